"""Upkeep of the tables: files put in order and merged, garbage removed, logs summed up. No row is ever removed.

    order     a date whose rows have changed is written anew, by the hash of the entity (`forebay.offline.clustering`):
              a look-up of an entity then reads a row group of it, and a shard of entities only its own
    compact   small files of a date become large ones, where there is no order or a date is too large for memory
    vacuum    files that no version of the last week has (replaced ones, and those of loads that were killed)
    log       a checkpoint, and commits older than Delta keeps are removed; positions live on in the checkpoint

May run at any time, beside streams, folds and readers. A commit of theirs that meets one of upkeep is tried again, as
after any other writer; upkeep that meets theirs too often leaves the date for the next time. Who has opened a version
can read it for a week, of a table that streams write for a day.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from forebay.errors import StoreError
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import BatchView, WindowedView
from forebay.offline.archive import event_order
from forebay.offline.clustering import Clustering
from forebay.offline.lake_table import LakeTable
from forebay.offline.rows_table import EVENT_TIMESTAMP, PARTITION_START
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_columns import HOP_US, START

VACUUM_HOURS = 168
"""Longer than any load, fold, training set or backfill runs."""
VACUUM_HOURS_MIN = 24
DATE_BYTES_MAX = 512 * 2**20
"""Parquet of one date that is sorted in memory, where it takes some ten times as much."""
SMALL_BYTES, SMALL_FILES = 32 * 2**20, 8
"""So many files of a date that are smaller are merged."""


@dataclass(frozen=True)
class Kept:
    """What upkeep did to a table (or would do): dates put in order, dates compacted, dates left because writers came in
    between, files and their bytes before and after, and files of garbage removed.
    """

    table: str
    ordered: tuple[str, ...]
    compacted: int
    busy: tuple[str, ...]
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    removed: int


def tables(store: OfflineStore, definitions: Definitions) -> Iterator[tuple[LakeTable, Clustering | None]]:
    """All tables of some definitions, each with the order of its rows; none where only time orders them."""
    for source in definitions.sources.values():
        if isinstance(source, EventSource):
            yield store.archive(source).table, _order_of(source, definitions)
    for view in definitions.views.values():
        keys = tuple(view.entity.keys)
        if isinstance(view, WindowedView):
            by = Clustering(keys, first=(HOP_US,), last=(START,))
            yield store.tiles(view).table, by
            yield store.streamed(view).table, by
        elif isinstance(view, BatchView):
            rows, by = store.rows(view), Clustering(keys, last=(EVENT_TIMESTAMP, PARTITION_START))
            yield rows.table, by
            yield rows.superseded, by
            yield store.newest(view).table, None
        yield store.history(view).table, None
    yield store.dead_letters().table, None
    yield store.repairs().table, None
    yield store.revived().table, None


def keep_up(table: LakeTable, by: Clustering | None, *, hours: int = VACUUM_HOURS, dry_run: bool = False) -> Kept:
    """Put a table in order; with `dry_run` only say what would be done."""
    sizes = table.file_sizes()
    before, bytes_before = _counted(sizes)
    loose = table.unordered(by)
    unordered = [date for date in loose if sum(sizes.get(date, ())) <= DATE_BYTES_MAX] if by else []
    crowded = [date for date in loose if _is_crowded(sizes.get(date, ())) and date not in unordered]
    busy: list[str] = []
    if not dry_run and before:
        busy = [date for date in unordered if by and not _put_in_order(table, date, by)]
        if crowded:
            table.compact()
        table.checkpoint()
    removed = table.vacuum(hours, dry_run=dry_run)
    after, bytes_after = (before, bytes_before) if dry_run else _counted(table.file_sizes())
    ordered = tuple(date for date in unordered if date not in busy)
    files = before, after, bytes_before, bytes_after
    return Kept(table.path, ordered, len(crowded), tuple(busy), *files, removed)


def _counted(sizes: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    """How many files, and their bytes."""
    return sum(map(len, sizes.values())), sum(map(sum, sizes.values()))


def _put_in_order(table: LakeTable, date: str, by: Clustering) -> bool:
    try:
        table.cluster(date, by)
    except StoreError:
        return False
    return True


def _is_crowded(sizes: Sequence[int]) -> bool:
    return sum(size < SMALL_BYTES for size in sizes) >= SMALL_FILES


def _order_of(source: EventSource, definitions: Definitions) -> Clustering | None:
    """By the entity that most views have, then by instant."""
    windowed = [view for view in definitions.views.values() if isinstance(view, WindowedView)]
    keys = Counter(tuple(view.entity.keys) for view in windowed if view.source.name == source.name)
    most = max(sorted(keys), key=lambda columns: keys[columns], default=())
    return event_order(source, most) if most else None
