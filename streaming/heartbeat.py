"""Heartbeats: what a reader says when its partitions hold nothing more, so that quiet is told from behind or dead.

    log        ● ●  ●           (nothing)                    ●
    reader     chunk        beat   beat   beat  …          chunk      a beat: "read to its end at this instant"
    online     watermark follows the source's clock at each beat      STALE: no beat came, or events wait
    archive    watermark follows it only for partitions that were quiet for IDLE_AFTER: it decides where batch may cut

Lives here: the value that travels through the flow behind the chunks, and how often. What the source's clock is lives
in `forebay.online.source_clock`. Invariants: a beat comes after every chunk that its reader had read before; `seen_us`
was taken before the poll that found nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.instants import SECOND_US
from forebay.language.source import EventSource
from forebay.language.view import WindowedView

INTERVAL_MAX_US = 5 * SECOND_US
INTERVAL_MIN_US = SECOND_US // 10
"""A beat is one small transaction a worker; oftener would cost more than it tells."""
BEATS_PER_FRESHNESS = 4
"""Of these, so that one that is late doesn't make a quiet view stale."""


@dataclass(frozen=True)
class End:
    """A partition that holds nothing behind `next_offset`; `appended_us` is when its last event was appended to it, as
    far as the log knows.
    """

    partition: str
    next_offset: int
    appended_us: int | None = None


@dataclass(frozen=True)
class Quiet:
    """Where a partition ended, and since when nothing was appended to it."""

    next_offset: int
    since_us: int


@dataclass(frozen=True)
class Heartbeat:
    """The partitions of a reader that were read to their end when it looked at `seen_us`; for one writer."""

    source: EventSource
    seen_us: int
    ends: Mapping[str, Quiet]
    reader: int = 0
    writer: int = 0


class Pulse:
    """When a reader says so, and since when each of its partitions is quiet."""

    def __init__(self, interval_us: int, reader: int = 0) -> None:
        self._interval_us, self._reader, self._beaten_us = interval_us, reader, 0
        self._quiet: dict[tuple[str, str], Quiet] = {}

    def is_due(self, now_us: int, *, busy: bool) -> bool:
        """Whether it is time for a beat. A reader that just found events waits for its next poll, at once, which may
        find the end; but no longer than another interval. A clock that was set back silences nobody.
        """
        return not 0 <= now_us - self._beaten_us < self._interval_us * (2 if busy else 1)

    def beat(self, source: EventSource, ends: Sequence[End], seen_us: int) -> Heartbeat | None:
        """The beat of a source whose partitions ended like this; `None` where none did."""
        if not ends:
            return None
        self._beaten_us = seen_us
        for end in ends:
            where = (source.name, end.partition)
            known = self._quiet.get(where)
            if end.appended_us is not None:
                self._quiet[where] = Quiet(end.next_offset, end.appended_us)
            elif known is None or known.next_offset != end.next_offset:
                self._quiet[where] = Quiet(end.next_offset, seen_us)
        quiet = {end.partition: self._quiet[source.name, end.partition] for end in ends}
        return Heartbeat(source, seen_us, quiet, self._reader)


def interval_us(views: Sequence[WindowedView]) -> int:
    """How often a flow beats: often enough for the strictest freshness of its views."""
    strictest_us = min((view.freshness_us for view in views if view.freshness_us is not None), default=None)
    if strictest_us is None:
        return INTERVAL_MAX_US
    return min(max(strictest_us // BEATS_PER_FRESHNESS, INTERVAL_MIN_US), INTERVAL_MAX_US)
