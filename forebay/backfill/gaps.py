"""What is archived of a windowed view and missing online: in training sets already, and in no online value.

    day        0    1    2    3    4
    archived   ■    ■    ■    ■    ■
    folded     ■    ■         ■
    cut                  |                 before it batch answers, from it on the stream does

Before the cut a day is missing as far as it is not folded from all that the archive holds (2 would be, if the cut were
behind it). From the cut on, events that a stream brought are online by its tiles, and events that were loaded from
files, or revived from dead letters, are nowhere: those days are named here (3 is to be published, 4 to be folded).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.instants import DAY_US, day_us
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore

RANGES_SHOWN_MAX = 5


@dataclass(frozen=True)
class Gap:
    """Days of a view that are missing online: to be folded (and published then), or only to be published."""

    view: str
    unfolded: tuple[str, ...]
    unpublished: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.unfolded or self.unpublished)

    def __str__(self) -> str:
        parts = [
            f"{_listed(days)} {state}"
            for days, state in ((self.unfolded, "not folded"), (self.unpublished, "folded, not published"))
            if days
        ]
        return f"in training sets and not online: {'; '.join(parts)}" if parts else "all that is archived is online"


def gap(store: OfflineStore, view: WindowedView, cut_us: int) -> Gap:
    """The days of a view that the archive holds and that no online value counts, under a published cut."""
    archive, tiles = store.archive(view.source), store.tiles(view)
    archived = archive.events_by_date()
    behind = (archived.keys() - tiles.folded().keys()) | tiles.behind(archived).keys()
    before = {day for day in archived.keys() | behind if day_us(day) + DAY_US <= cut_us}
    loaded = archive.days_without_stream(cut_us) - before
    return Gap(view.key, tuple(sorted(behind & (before | loaded))), tuple(sorted(loaded - behind)))


def _listed(days: Iterable[str]) -> str:
    """Days as ranges.

    >>> _listed(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05"])
    '2024-01-01 to 2024-01-03, 2024-01-05'
    """
    runs: list[list[str]] = []
    for day in sorted(days):
        if runs and day_us(day) - day_us(runs[-1][-1]) == DAY_US:
            runs[-1].append(day)
        else:
            runs.append([day])
    shown = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs[:RANGES_SHOWN_MAX]]
    return ", ".join([*shown, *(["…"] if len(runs) > RANGES_SHOWN_MAX else [])])
