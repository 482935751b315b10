"""What is archived of a windowed view and missing online: in training sets already, and in no online value.

    day        0    1    2    3    4
    archived   ■    ■    ■    ■    ■
    folded     ■    ■         ■
    cut                  |                 before it batch answers, from it on the stream does

Before the cut a day is missing as far as it is not folded from all that the archive holds (2 would be, if the cut were
behind it). From the cut on, events that a stream brought are online by its tiles, and events that were loaded from
files are nowhere: those days are named here (3 is to be published, 4 to be folded).

Online values that may lack what was loaded are marked: `until_us` is kept beside the cut, which a read fetches anyway.
Events that came late to the stream are not marked: up to the repair of their dates the law has that exception.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

import redis

from forebay.core.codec import NO_CUT
from forebay.errors import FencedError
from forebay.instants import DAY_US, day_us
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.publish import mark_missing
from forebay.online.slot_state import read_cut

RANGES_SHOWN_MAX = 5
MARKED = "values that reach there are STALE and defaults UNAVAILABLE until its tiles/… and online/… are materialized"
"""What follows for online values, and what to do."""


@dataclass(frozen=True)
class Gap:
    """Days of a view that are missing online: to be folded (and published then), or only to be published."""

    view: str
    unfolded: tuple[str, ...]
    unpublished: tuple[str, ...]
    until_us: int = NO_CUT
    """Behind the newest event that can be in a value that lacks loaded ones; NO_CUT: no value does."""

    def __bool__(self) -> bool:
        return bool(self.unfolded or self.unpublished)

    def __str__(self) -> str:
        parts = [
            f"{_listed(days)} {state}"
            for days, state in ((self.unfolded, "not folded"), (self.unpublished, "folded, not published"))
            if days
        ]
        return f"in training sets and not online: {'; '.join(parts)}" if parts else "all that is archived is online"

    @property
    def told(self) -> str:
        """The same, with what follows from it."""
        return str(self) if self.until_us == NO_CUT else f"{self}; {MARKED}"


def gap(store: OfflineStore, view: WindowedView, cut_us: int) -> Gap:
    """The days of a view that the archive holds and that no online value counts, under a published cut."""
    archive, tiles = store.archive(view.source), store.tiles(view)
    archived = archive.events_by_date()
    behind = (archived.keys() - tiles.folded().keys()) | tiles.behind(archived).keys()
    before = {day for day in archived.keys() | behind if day_us(day) + DAY_US <= cut_us}
    newest_us = archive.loaded(cut_us, behind & before)
    loaded = newest_us.keys() - before
    unfolded, unpublished = behind & (before | loaded), loaded - behind
    until_us = max((newest_us[day] + 1 for day in newest_us if day in unfolded | unpublished), default=NO_CUT)
    if until_us != NO_CUT and view.sessions is not None:
        until_us += view.sessions.reach_us
    return Gap(view.key, tuple(sorted(unfolded)), tuple(sorted(unpublished)), until_us)


def mark_gap(client: redis.Redis, namespace: str, store: OfflineStore, view: WindowedView) -> None:
    """Mark the online values of a view that lack loaded events, or those no more that did.

    Raises `FencedError` where it is being published all the while.
    """
    mark_missing(client, namespace, view, lambda: gap(store, view, read_cut(client, namespace, view)).until_us)


def mark_gaps(
    client: redis.Redis, namespace: str, store: OfflineStore, views: Iterable[WindowedView]
) -> dict[str, str]:
    """The same for some views, after events were loaded; what each of them lacks, in words, by its key.

    One that is being published all the while is marked by its publication, which looks when all is written.
    """
    found = {}
    for view in views:
        with contextlib.suppress(FencedError):
            mark_gap(client, namespace, store, view)
        missing = gap(store, view, read_cut(client, namespace, view))
        if missing:
            found[view.key] = missing.told
    return found


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
