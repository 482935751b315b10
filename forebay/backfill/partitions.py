"""Partitions: the intervals of time that batch work is done by, and their names.

    daily    2013-01-01           [00:00, 24:00) UTC
    hourly   2013-01-01-07:00     [07:00, 08:00) UTC
    none     (no name)            all of time, computed anew at each refresh

A partition is computed for an instant, its `end_us`: its own end once that has passed, before that the last refresh
tick. What is computed for it knows nothing that became effective at or after that instant.

    partition     [──────────────────────)            tick = the last tick of the refresh schedule
    at now₁            ×tick   now₁                    end_us = tick
    at now₂                              ×    now₂    end_us = the partition's end, whenever it is computed
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forebay.errors import RequestError
from forebay.instants import DAY_US, HOUR_US, day_text, day_us, instant_text, moment
from forebay.language.view import BatchView

GRAINS_US = {"hourly": HOUR_US, "daily": DAY_US}
PARTITIONS_MAX = 200_000
"""Twenty years of hours; a range beyond it is a slip of the pen."""


@dataclass(frozen=True)
class Partition:
    """One partition: where it starts, and the instant it is computed for (µs UTC)."""

    name: str
    start_us: int
    end_us: int


def day_range(start_day: str, end_day: str) -> tuple[int, int]:
    """`[start, end)` of two UTC dates `YYYY-MM-DD`, the second not included. Raises `RequestError`."""
    try:
        start_us, end_us = day_us(start_day), day_us(end_day)
    except ValueError:
        raise RequestError(f"{start_day!r} to {end_day!r} are not UTC dates; write YYYY-MM-DD") from None
    if start_us >= end_us:
        raise RequestError(
            f"The dates [{start_day}, {end_day}) are none; the end is not included, so write the day after"
        )
    return start_us, end_us


def days(start_us: int, end_us: int) -> Iterator[str]:
    """The UTC dates that begin in `[start, end)`."""
    return (day_text(us) for us in range(start_us, end_us, DAY_US))


def partition_name(start_us: int, grain_us: int) -> str:
    """The name of the partition that starts at an instant.

    >>> partition_name(day_us("2013-01-01") + 7 * HOUR_US, HOUR_US)
    '2013-01-01-07:00'
    """
    return day_text(start_us) if grain_us == DAY_US else moment(start_us).strftime("%Y-%m-%d-%H:%M")


def partitions_between(view: BatchView, start_us: int, end_us: int, *, tick_us: int, now_us: int) -> list[Partition]:
    """The partitions of a view within `[start, end)` of which something can be known now.

    An unpartitioned view has one: from its `history_start` (or 1970) until the tick, whatever the range. Raises
    `RequestError`.
    """
    grain_us = GRAINS_US.get(view.partitions)
    if grain_us is None:
        return [Partition("", day_us(view.first_day) if view.first_day else 0, tick_us)]
    if start_us % grain_us or end_us % grain_us or not 0 < (end_us - start_us) // grain_us <= PARTITIONS_MAX:
        raise RequestError(
            f"View {view.key!r}: [{instant_text(start_us)}, {instant_text(end_us)}) is no range of its "
            f"{view.partitions} "
            f"partitions; expected 1 to {PARTITIONS_MAX} whole ones"
        )
    found = []
    for us in range(start_us, end_us, grain_us):
        known_us = us + grain_us if us + grain_us <= now_us else tick_us
        if known_us > us:
            found.append(Partition(partition_name(us, grain_us), us, known_us))
    return found
