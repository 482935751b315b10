"""When the demo's history ends, when its stream pauses, and which partitions are over by then.

Pure arithmetic on instants (UTC microseconds) and names of partitions; nothing here reads or runs anything.

    2013-01-01            split                                        end
    ─────┼── history ───────┼──── stream ──┼──── stream ──┼──── stream ──┤
                                         pause          pause          pause

A batch partition may be built at a pause only when it is over: it ends at or before the pause. So a row of a batch view
is in the online store at the pause exactly when the training path says that it was effective by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, day_text, day_us, floor_us, moment

HISTORY_START = "2013-01-01"
HISTORY_DAYS = 348
"""1 January to 14 December 2013: the history ends when the 15th begins."""
STREAM_DAYS = 18
"""15 December to 1 January: the last flight of the year lands on New Year's morning."""
PAUSES = 4
"""Pauses of a stream of as many days or more; a shorter one pauses once a day."""
BEFORE_MIDNIGHT_US = (
    2 * HOUR_US,
    7 * HOUR_US + 15 * SECOND_US,
    35 * MINUTE_US,
    HOUR_US + 1,
)
"""Pauses fall on a busy hour, off every hop, and a microsecond beside one; never at the same time of day."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """The instants of one run of the demo, all in UTC microseconds."""

    start_us: int
    split_us: int
    end_us: int
    pauses_us: tuple[int, ...]

    @property
    def catch_up_pause(self) -> int:
        """The pause at which the batch side catches up with days that were streamed, so that the seam moves."""
        return len(self.pauses_us) // 2


def timeline(*, history_days: int = HISTORY_DAYS, days: int = STREAM_DAYS) -> Timeline:
    """The instants of a demo over `history_days` of history and `days` of stream; the last pause is the end.

    >>> [day_text(us) for us in timeline().pauses_us]
    ['2013-12-18', '2013-12-23', '2013-12-27', '2014-01-02']
    """
    if history_days < 1 or days < 1:
        raise ValueError(f"history_days={history_days}, days={days}: expected 1 or more of each")
    pauses = min(PAUSES, days)
    start_us = day_us(HISTORY_START)
    split_us = start_us + history_days * DAY_US
    end_us = split_us + days * DAY_US
    between = (split_us + max(1, days * (i + 1) // pauses) * DAY_US - BEFORE_MIDNIGHT_US[i] for i in range(pauses - 1))
    return Timeline(start_us, split_us, end_us, (*sorted(set(between)), end_us))


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """The partitions of `[start_us, end_us)` with a grain of one hour or one day; empty ranges are falsy."""

    start_us: int
    end_us: int
    grain_us: int

    def __bool__(self) -> bool:
        return self.start_us < self.end_us

    def __iter__(self) -> Iterator[str]:
        return (self._name(us) for us in range(self.start_us, self.end_us, self.grain_us))

    def _name(self, us: int) -> str:
        return day_text(us) if self.grain_us == DAY_US else moment(us).strftime("%Y-%m-%d-%H:%M")

    @property
    def text(self) -> str:
        """The range as Dagster's `--partition-range` wants it: first...last, both included."""
        return f"{self._name(self.start_us)}...{self._name(self.end_us - self.grain_us)}"


def partitions(start_us: int, until_us: int, grain_us: int) -> PartitionRange:
    """The partitions that begin at or after `start_us` and are over at `until_us`.

    >>> partitions(day_us("2013-12-15"), day_us("2013-12-18") + HOUR_US, DAY_US).text
    '2013-12-15...2013-12-17'
    """
    return PartitionRange(floor_us(start_us, grain_us), floor_us(until_us, grain_us), grain_us)
