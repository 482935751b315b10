"""Removing what a source declares not to keep: its old events, and what was made of them day by day.

    base        the archive's watermark; where no stream has run, the end of its newest day
    horizon     the midnight at or before base − keep, but never behind what is removed already, nor beyond the first
                unfolded day of a deployed view − its longest window and hop, which its next publication needs
    removed     dates before it of events/<source>, and of tiles/, streamed/ and history/ of its windowed views; dead
                letters of the source that were recorded before it, and marks for the repair of days before it
    superseded  rows that a batch view's later computation replaced longer ago, by the wall clock, than the view keeps

The archive goes first, with the position `retained`: from then on whoever needs an older event is refused
(`Archive.check_retained`), so no answer is ever made of what is left of a window. `fold/<date>` of the tiles becomes 0,
as many events as the archive holds, so such a day is neither behind nor a gap.

Invariants: time is that of the events, so an archive that gets nothing loses nothing, and a replay of history leaves
what a run in time would have left. Each step may be repeated; one that was killed is finished by the next. Rows that
hold in batch views, training sets and `revived` stay. An event that comes later than it would be kept is archived, and
goes the next time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from forebay.core.layout import Layout
from forebay.instants import DAY_US, day_text, day_us, floor_us
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import BatchView, WindowedView
from forebay.offline.archive import RETAINED
from forebay.offline.lake_table import LakeTable
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_table import FOLD


@dataclass(frozen=True)
class Removed:
    """What was removed of a source or a batch view (or would be): the first day that is kept and why, and how many rows
    of which tables.
    """

    name: str
    kept_from: str
    remark: str
    rows: dict[str, int]


def remove_old(
    store: OfflineStore, definitions: Definitions, source: EventSource, *, dry_run: bool = False
) -> Removed | None:
    """Remove what a source does not keep; `None` where it keeps everything, or has nothing yet."""
    views = [
        view
        for view in definitions.views.values()
        if isinstance(view, WindowedView) and view.source.name == source.name
    ]
    found = horizon(store, source, views)
    if found is None:
        return None
    horizon_us, remark = found
    day, archive = day_text(horizon_us), store.archive(source)
    rows = {table.path: _rows_before(table, day) for table in (archive.table, *_tables(store, views))}
    if not dry_run and any(rows.values()):
        archive.table.remove(_before(day), {RETAINED: horizon_us})
        for view in views:
            _remove_tiles(store, view, day)
        for table in _tables(store, views):
            if rows[table.path] and not table.path.startswith("tiles/"):
                table.remove(_before(day), {})
        _remove_marks(store, source, day)
    return Removed(source.name, day, remark, {path: count for path, count in rows.items() if count})


def remove_superseded(store: OfflineStore, view: BatchView, now_us: int, *, dry_run: bool = False) -> Removed | None:
    """Remove the rows of a batch view that were replaced longer ago than it keeps them; `None` where it keeps all."""
    if view.keep_us is None:
        return None
    before_us, rows = floor_us(now_us - view.keep_us, DAY_US), store.rows(view)
    count = rows.remove_superseded(before_us, dry_run=dry_run)
    found = {rows.superseded.path: count} if count else {}
    return Removed(view.key, day_text(before_us), f"{view.keep} before now, of rows that were replaced", found)


def horizon(store: OfflineStore, source: EventSource, views: list[WindowedView]) -> tuple[int, str] | None:
    """The first midnight that a source keeps now, and why."""
    archive = store.archive(source)
    archived = archive.events_by_date()
    if source.keep_us is None or not archived:
        return None
    base_us = archive.watermark_us()
    if base_us is None:
        base_us = day_us(max(archived)) + DAY_US
    retained_us = archive.retained_us() or source.history_start_us
    chosen_us, remark = floor_us(base_us - source.keep_us, DAY_US), f"{source.keep} before its newest events"
    for view in views:
        first_us, lookback_us = _first_unfolded_us(store, view, archived, retained_us), Layout.of(view).lookback_us
        if first_us is not None and lookback_us is not None and first_us - lookback_us < chosen_us:
            chosen_us = floor_us(first_us - lookback_us, DAY_US)
            remark = f"the windows of {view.key} at {day_text(first_us)}, its first day that is not folded"
    if chosen_us <= retained_us:
        return retained_us, f"{remark} reach back to it or beyond" if chosen_us < retained_us else remark
    return chosen_us, remark


def _first_unfolded_us(
    store: OfflineStore, view: WindowedView, archived: dict[str, int], retained_us: int
) -> int | None:
    """The first day of a view from the retained one on that is not folded; `None` where none was ever folded."""
    tiles = store.tiles(view)
    folded = tiles.folded()
    if not folded:
        return None
    done, us = folded.keys() - tiles.behind(archived).keys(), retained_us
    while day_text(us) in done:
        us += DAY_US
    return us


def _tables(store: OfflineStore, views: list[WindowedView]) -> Iterator[LakeTable]:
    for view in views:
        yield store.tiles(view).table
        yield store.streamed(view).table
        yield store.history(view).table


def _remove_tiles(store: OfflineStore, view: WindowedView, day: str) -> None:
    """Remove the tiles before a day, and remember that nothing is archived of those dates."""
    tiles = store.tiles(view)
    emptied = {FOLD + date: 0 for date, events in tiles.folded().items() if date < day and events}
    if emptied or _rows_before(tiles.table, day):
        tiles.table.remove(_before(day), emptied)


def _remove_marks(store: OfflineStore, source: EventSource, day: str) -> None:
    """Remove dead letters that were recorded before a day, and marks for the repair of days before it."""
    letters, repairs = store.dead_letters().table, store.repairs().table
    if _rows_before(letters, day):
        letters.remove(f"source = '{source.name}' AND {_before(day)}", {})
    if any(mark < day for mark in store.repairs().scan(source.name)["day"].to_pylist()):
        repairs.remove(f"source = '{source.name}' AND day < '{day}'", {})


def _rows_before(table: LakeTable, day: str) -> int:
    return sum(rows for date, rows in table.rows_by_date().items() if date < day)


def _before(day: str) -> str:
    return f"date < '{day}'"
