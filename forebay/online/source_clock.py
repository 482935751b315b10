"""The clock of a source: up to which instant a partition is known that was read to its end and is quiet.

A partition without events says nothing of time. What does: the wall clock, where the source is live (its newest event,
or what a heartbeat moved it to, is of the last day), because then an event that is written later is dated later, give
or take the source's lateness. A log of old events has a time of its own, the newest event of any of its partitions: a
quiet partition no longer holds the others back, and the wall clock does not rush ahead of events that are still to
come. Before its first event a source has no clock.
"""

from __future__ import annotations

from forebay.instants import DAY_US

LIVE_WITHIN_US = DAY_US
"""A source that was quiet for longer, and was not even read to its end meanwhile, waits for its next event."""


def clock_us(newest_us: int, seen_us: int) -> int:
    """The clock of a source whose newest instant is `newest_us`, when its end was seen at `seen_us`."""
    return seen_us if seen_us - LIVE_WITHIN_US <= newest_us < seen_us else newest_us
