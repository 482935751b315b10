"""What a backfill of a view would touch: its partitions, and the rows and bytes of the archives it reads.

Partitions are the complete ones from the start of history to a clock that is passed in; nothing here opens a store, the
sizes come through a callable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from forebay.instants import DAY_US, HOUR_US, day_text, day_us, instant_text
from forebay.language.source import EventSource
from forebay.language.view import AnyView, WindowedView

STEPS_US = {"daily": DAY_US, "hourly": HOUR_US}


class ArchiveSize(NamedTuple):
    """How much an archive holds, the first date of which it has events, and the columns that it holds as another type
    than is declared, and as which.
    """

    rows: int
    bytes: int
    first_day: str | None = None
    otherwise: Mapping[str, str] = MappingProxyType({})


Archives = Callable[[EventSource], ArchiveSize | None]
"""The size of a source's archive; `None` where there is none yet."""


class Reused(NamedTuple):
    """The view whose tiles serve, of how many days, and the partials that it lacks, which are folded."""

    view: str
    days: int
    lacking: tuple[str, ...] = ()


Reusable = Callable[[WindowedView], Reused | None]
"""What of a new view's tiles can be made of those of another one; `None` where nothing can."""
FOLD_EVENTS_S = 300_000
"""Archived events that a fold reads, folds and writes in a second: measured with three rings and sparse entities, where
more tiles are written than events are read."""


@dataclass(frozen=True)
class Footprint:
    """The partitions of a backfill: `unit` is daily, hourly or none; `first` and `last` as Dagster names them.

    `seconds` is an estimate from a stated rate (`FOLD_EVENTS_S`), of windowed views alone; `reused` says what need not
    be read.
    """

    unit: str
    count: int
    first: str | None
    last: str | None
    rows: int | None
    bytes: int | None
    seconds: float | None = None
    reused: Reused | None = None

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "partitions": self.unit,
            "count": self.count,
            "first": self.first,
            "last": self.last,
            "rows": self.rows,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "reused": None if self.reused is None else self.reused._asdict(),
        }


def footprint(
    view: AnyView, now_us: int, archives: Archives | None = None, reusable: Reusable | None = None
) -> Footprint:
    """What a backfill of a view would touch at an instant."""
    rows, size = _archived(view, archives)
    unit = "daily" if isinstance(view, WindowedView) else view.partitions
    start = view.source.history_start if isinstance(view, WindowedView) else view.first_day
    if unit == "none" or start is None:
        return Footprint("none", 1, None, None, rows, size)
    step_us, start_us = STEPS_US[unit], day_us(start)
    count = max(0, (now_us - start_us) // step_us)
    last_us = start_us + (count - 1) * step_us
    first, last = (partition_name(unit, start_us), partition_name(unit, last_us)) if count else (None, None)
    if not isinstance(view, WindowedView):
        return Footprint(unit, count, first, last, rows, size)
    reused = reusable(view) if reusable else None
    left = 1.0 if reused is None or reused.lacking or not count else max(0.0, 1 - reused.days / count)
    seconds = None if rows is None else round(rows * left / FOLD_EVENTS_S, 1)
    return Footprint(unit, count, first, last, rows, size, seconds, reused)


def partition_name(unit: str, start_us: int) -> str:
    """`YYYY-MM-DD` of a day, `YYYY-MM-DD-HH:MM` of an hour.

    >>> partition_name("hourly", 0)
    '1970-01-01-00:00'
    """
    return day_text(start_us) if unit == "daily" else instant_text(start_us)[:16].replace("T", "-")


def _archived(view: AnyView, archives: Archives | None) -> tuple[int | None, int | None]:
    """Rows and bytes of all the archives that a view reads."""
    sources = [view.source] if isinstance(view, WindowedView) else view.sources
    events = [source for source in sources if isinstance(source, EventSource)]
    sizes = [size for source in events if (size := archives(source) if archives else None) is not None]
    return (sum(size.rows for size in sizes), sum(size.bytes for size in sizes)) if sizes else (None, None)
