"""The archive of a source, `events/<source>`: every event once, before any split, as it was when it arrived.

Columns: the source's, `event_id`, `source_partition`, `source_offset`, `arrived_at`, `date` (the UTC date of the
event). Positions: each source partition, brought to the next offset that it lacks, and `<partition>/watermark`, the
newest event of it. Whoever appends a range that overlaps what is there adds only the rest, so two writers of one
partition leave what one would have left. A file that is loaded is a partition `load:<hash of its bytes>` without a
watermark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.batch import INSTANT, SOURCE_OFFSET, EventBatch, event_schema
from forebay.instants import day_text
from forebay.language.source import EventSource
from forebay.stores.data_files import DATE, in_order
from forebay.stores.lake_table import Commit, LakeTable, Position, between_dates
from forebay.stores.location import Location

if TYPE_CHECKING:
    from forebay.stores.loading import Loaded

SOURCE_PARTITION, ARRIVED_AT = "source_partition", "arrived_at"
WATERMARK = "/watermark"
LOAD = "load:"


@dataclass(frozen=True)
class PartitionPosition:
    """How far a stream partition is archived: the next offset that is not, and the newest event that is."""

    next_offset: int
    newest_us: int | None


@dataclass(frozen=True)
class Appended:
    """What an append added: rows, and per partition the offset from which on its events were new."""

    rows: int
    since: Mapping[str, int]


class Archive:
    """The archive of one source; get it from `OfflineStore.archive`. `limits` bounds columns of loaded files."""

    def __init__(self, location: Location, source: EventSource, limits: Mapping[str, int] | None = None) -> None:
        self.source = source
        self.limits = limits or {}
        self.table = LakeTable(
            location,
            f"events/{source.name}",
            archive_schema(source),
            statistics=[source.timestamp, SOURCE_OFFSET, ARRIVED_AT],
        )

    def append(self, batches: Sequence[EventBatch], arrived_at_us: int) -> Appended:
        """Append what the archive lacks of some batches, in one commit with their positions."""
        appended = Appended(0, {})

        def prepare(position: Position) -> Commit | None:
            nonlocal appended
            names = sorted({batch.partition for batch in batches})
            since = {name: position(name) or 0 for name in names}
            ends = {name: max(b.next_offset for b in batches if b.partition == name) for name in names}
            positions = {name: end for name, end in ends.items() if end > since[name]}
            appended = Appended(0, since)
            if not positions:
                return None
            parts = [_lacking(batch, since[batch.partition]) for batch in batches]
            rows = archived(self.source, parts, arrived_at_us)
            appended = Appended(len(rows), since)
            return Commit(rows, positions | self._watermarks(parts, position))

        self.table.append(prepare)
        return appended

    def next_offset(self, partition: str) -> int:
        """The first offset of a partition that is not archived."""
        return self.table.position(partition) or 0

    def positions(self) -> dict[str, PartitionPosition]:
        """How far each stream partition is archived."""
        found = self.table.positions()
        names = [name for name in found if not name.startswith(LOAD) and not _is_watermark(name, found)]
        return {name: PartitionPosition(found[name], found.get(name + WATERMARK)) for name in names}

    def watermark_us(self) -> int | None:
        """The least of the stream partitions' newest events; `None` where no stream has run."""
        newest = [position.newest_us for position in self.positions().values() if position.newest_us is not None]
        return min(newest, default=None)

    def scan(
        self,
        columns: Sequence[str],
        start_us: int | None = None,
        end_us: int | None = None,
        entities: pa.Table | None = None,
    ) -> pa.Table:
        """Columns of the events in `[start, end)`, in no particular order.

        `entities` (a few key columns, one row per entity) leaves out events of others where that spares reading; it may
        leave some in.
        """
        instant = pc.field(self.source.timestamp)
        conditions = [] if start_us is None else [instant >= pa.scalar(start_us, INSTANT)]
        if end_us is not None:
            conditions.append(instant < pa.scalar(end_us, INSTANT))
        if entities is not None:
            conditions += [pc.field(name).isin(entities[name].combine_chunks()) for name in entities.column_names]
        where = None
        for condition in conditions:
            where = condition if where is None else where & condition
        return self.table.read(columns, where, _dates(start_us, end_us))

    def size(self) -> tuple[int, int] | None:
        """Rows and bytes; `None` where nothing was archived yet."""
        return self.table.size()

    def events_by_date(self) -> dict[str, int]:
        """Archived events of each UTC date that has any."""
        return self.table.rows_by_date()

    def load(self, file: Path) -> Loaded:
        """Append the events of a Parquet or NDJSON file, once, however often it is asked for."""
        from forebay.stores.loading import load

        return load(self, file)

    def _watermarks(self, batches: Sequence[EventBatch], position: Position) -> dict[str, int]:
        newest: dict[str, int] = {}
        for batch in batches:
            if len(batch):
                latest = pc.max(batch.table[self.source.timestamp].cast(pa.int64())).as_py()
                name = batch.partition + WATERMARK
                newest[name] = max(latest, newest.get(name, latest))
        before = {name: position(name) for name in newest}
        return {name: us for name, us in newest.items() if before[name] is None or us > (before[name] or us - 1)}


def archive_schema(source: EventSource) -> pa.Schema:
    """The columns of a source's archive."""
    events = [field for field in event_schema(source) if field.name != SOURCE_OFFSET]
    own = [(SOURCE_PARTITION, pa.string()), (SOURCE_OFFSET, pa.int64()), (ARRIVED_AT, INSTANT), (DATE, pa.string())]
    return pa.schema([*events, *own])


def archived(source: EventSource, batches: Sequence[EventBatch], arrived_at_us: int) -> pa.Table:
    """Batches as rows of the archive, by timestamp (and thereby by date)."""
    tables = [
        batch.table.append_column(SOURCE_PARTITION, pa.repeat(pa.scalar(batch.partition), len(batch)))
        for batch in batches
    ]
    rows = pa.concat_tables(tables)
    rows = rows.append_column(ARRIVED_AT, pa.repeat(pa.scalar(arrived_at_us, INSTANT), len(rows)))
    rows = rows.append_column(DATE, dates_of(rows[source.timestamp]))
    return in_order(rows.select(archive_schema(source).names), source.timestamp)


def dates_of(instants: pa.ChunkedArray) -> pa.ChunkedArray:
    """The UTC date of each instant, as text."""
    return pc.cast(pc.cast(instants, pa.date32()), pa.string())


def _lacking(batch: EventBatch, since: int) -> EventBatch:
    """The part of a batch from an offset on."""
    if batch.first_offset >= since:
        return batch
    offsets = np.asarray(batch.table[SOURCE_OFFSET])
    return EventBatch(
        batch.source,
        batch.partition,
        batch.table.filter(pa.array(offsets >= since)),
        since,
        max(since, batch.next_offset),
    )


def _is_watermark(name: str, known: Mapping[str, int]) -> bool:
    return name.endswith(WATERMARK) and name.removesuffix(WATERMARK) in known


def _dates(start_us: int | None, end_us: int | None) -> str | None:
    if start_us is None and end_us is None:
        return None
    first = "0001-01-01" if start_us is None else _day(start_us)
    last = "9999-12-31" if end_us is None else _day(end_us)
    return between_dates(first, last)


def _day(us: int) -> str:
    """The date of an instant, within the years that there are."""
    try:
        return day_text(us)
    except OverflowError:
        return "0001-01-01" if us < 0 else "9999-12-31"
