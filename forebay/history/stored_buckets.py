"""What is stored, cut into the buckets of a spine, and the answers to the rows of one bucket.

May live here: which columns and rows of which tables are spilled, and handing a bucket to the functions that answer any
rows (`forebay.core`, `forebay.history.effective`). Invariant: a table is read once per entity kind, and what was
spilled of it goes before the next one is read.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.calls.asked import Asked
from forebay.core.lookup import KeyLookup
from forebay.core.rows import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from forebay.core.values import FeatureColumn
from forebay.history.archived import LARGE_PIECE_ROWS, Made, Make, Selecting, first_counted
from forebay.history.buckets import SpineBuckets, columns_of, in_pieces, piece_rows, stored_row_bytes, tightly
from forebay.history.effective import answer_stored
from forebay.history.historical import answer_windowed
from forebay.history.rows_asked import RowsAsked
from forebay.ingest.batch import INSTANT
from forebay.ingest.select import Selector
from forebay.language.source import EventSource
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.offline.archive import ARRIVED_AT, Archive
from forebay.offline.lake_table import LakeTable
from forebay.offline.rows_table import SUPERSEDED_TIMESTAMP, RowsTable
from forebay.offline.shards import ShardRows, Shards
from forebay.offline.spill import Spill, SpilledRows, TableRows
from forebay.offline.tables import OfflineStore
from forebay.settings import processors

Ints = npt.NDArray[np.int64]
TIMES_READ_MAX = 2.0
"""What is read more often than this is copied once, by bucket: that is a pass, a copy, and a pass over the copy."""
Answer = Callable[[int, RowsAsked], list[FeatureColumn]]
"""The features of the rows of a bucket, by its number."""


@dataclass(frozen=True)
class Stored:
    """What answers the rows of a view out of its own stored rows: between which instants, and of how many events."""

    within_us: tuple[int, int]
    schemas: tuple[pa.Schema, ...]
    known: bool
    part_of: int = 0


def answer_shard(
    view: AnyView, stored: Stored, parts: dict[int, list[pa.Table]], asked: RowsAsked, names: Sequence[str]
) -> list[FeatureColumn]:
    """The features of rows, out of stored rows in memory: those of each of `stored.schemas` by its number."""
    tables = [
        TableRows(pa.concat_tables([schema.empty_table(), *(_with(rows, schema) for rows in parts.get(number, []))]))
        for number, schema in enumerate(stored.schemas)
    ]
    if isinstance(view, BatchView):
        return answer_stored(view, tables[0], tables[1] if stored.known else None, asked, names, 1)
    read, keyed, us = SpilledEvents(tables[0], processors()), asked.keyed, asked.instants_us
    return answer_windowed(read, view, keyed, us, stored.within_us, names, known=stored.known, part_of=stored.part_of)


def _with(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in a schema; columns that they lack are null."""
    there = set(rows.column_names)
    return pa.table(
        [rows[f.name].cast(f.type) if f.name in there else pa.nulls(len(rows), f.type) for f in schema], schema=schema
    )


@dataclass
class StoredBuckets:
    """The stored rows behind a request, by bucket, one table at a time."""

    store: OfflineStore
    asked: Asked
    folder: Path
    left: int
    known: bool
    spilled_bytes: int = 0
    _spilled: dict[str, Spill] = field(default_factory=dict)
    _known: list[tuple[RowsTable, int]] = field(default_factory=list)
    _needed: list[tuple[Archive, int | None, str]] = field(default_factory=list)

    def check_retained(self) -> None:
        """Raise `RequestError` where events that were needed had been removed: then what was read was not whole."""
        for archive, first_us, key in self._needed:
            archive.check_retained(first_us, f"View {key!r}")
        for rows, first_us in self._known:
            rows.check_known(first_us)

    def answering(self, view: AnyView, mine: SpineBuckets) -> Answer:
        """What answers the buckets of a view's entity, for which somebody must be asked about."""
        return self._of_rows(view, mine) if isinstance(view, BatchView) else self._of_events(view, mine)

    def row_bytes(self, view: AnyView) -> tuple[int, int]:
        """How many rows may be read for a view, and about how much memory each takes."""
        if isinstance(view, BatchView):
            table = self.store.rows(view)
            size = (table.size() or (0, 0))[0] + ((table.superseded.size() or (0, 0))[0] if self.known else 0)
            features = {feature.name: feature.type for feature in view.features}
            return size, stored_row_bytes(_fields(table.table, self._batch_columns(view)), features)
        archive = self.store.archive(view.source)
        names = self._selector(view).columns
        return (archive.size() or (0, 0))[0], stored_row_bytes(_fields(archive.table, names), view.source.schema)

    def reading(self, view: AnyView, mine: SpineBuckets) -> list[tuple[LakeTable, list[str], pc.Expression]]:
        """The tables behind one view, which of their columns and which of their rows."""
        if isinstance(view, BatchView):
            table, columns = self.store.rows(view), self._batch_columns(view)
            where = pc.field(EVENT_TIMESTAMP) <= pa.scalar(mine.end_us, INSTANT)
            self._known += [(table, mine.start_us)] if self.known else []
            past = [(table.superseded, [*columns, SUPERSEDED_TIMESTAMP], where)] if self.known else []
            return [(table.table, columns, where), *past]
        where = within(view.source.timestamp, self._first_us([view], mine), mine.end_us)
        return [(self.store.archive(view.source).table, self._selector(view).columns, where)]

    def _of_events(self, view: WindowedView, mine: SpineBuckets) -> Answer:
        names, within_us = self.asked.names[view.key], (mine.start_us, mine.end_us)
        shards = self.shards(view, mine)
        stored = self._events(view, mine) if shards is None else shards
        total = int(stored.rows.sum())

        def answered(number: int, rows: RowsAsked) -> list[FeatureColumn]:
            read, keyed, us = SpilledEvents(stored.file(number), self.store.threads), rows.keyed, rows.instants_us
            return answer_windowed(read, view, keyed, us, within_us, names, known=self.known, part_of=total)

        return answered

    def _of_rows(self, view: BatchView, mine: SpineBuckets) -> Answer:
        now, *replaced = self.reading(view, mine)
        current, past = self._cut(f"{view.key} now", *now, mine), None
        for before in replaced:
            past = self._cut(f"{view.key} before", *before, mine, beside=f"{view.key} now")

        def answered(number: int, rows: RowsAsked) -> list[FeatureColumn]:
            before = None if past is None else past.file(number)
            return answer_stored(view, current.file(number), before, rows, self.asked.names[view.key], 1)

        return answered

    def shards(self, view: WindowedView, mine: SpineBuckets) -> Shards | None:
        """The events of a view where they lie, if the archive is in such an order that little is read twice."""
        alike = self._alike(view)
        if view.sessions is not None or f"{view.entity.name} {view.source.name}" in self._spilled:
            return None
        start_us = self._first_us([view], mine)
        where = within(view.source.timestamp, start_us, mine.end_us)
        archive = self.store.archive(view.source)
        width = stored_row_bytes(_fields(archive.table, self._selector(view).columns), {})
        piece = piece_rows(width, self.left, LARGE_PIECE_ROWS)
        shards = archive.shards(view.entity.keys, mine.spill.files, where, start_us, mine.end_us, piece)
        return shards if shards.times_read() * len(alike) <= TIMES_READ_MAX else None

    def _alike(self, view: WindowedView) -> list[WindowedView]:
        """The views of the same entity and source that are asked."""
        return [
            one
            for one in self.asked.views.values()
            if isinstance(one, WindowedView) and (one.entity, one.source) == (view.entity, view.source)
        ]

    def _events(self, view: WindowedView, mine: SpineBuckets) -> Spill:
        """The events of a source by entity, with what all views of both need that are asked."""
        views = self._alike(view)
        selectors = [self._selector(one) for one in views]
        start_us = self._first_us(views, mine)
        where = within(view.source.timestamp, start_us, mine.end_us)
        columns = columns_of([selector.columns for selector in selectors])
        archive = self.store.archive(view.source)
        dates = archive.dates(start_us, mine.end_us)
        return self._cut(f"{view.entity.name} {view.source.name}", archive.table, columns, where, mine, dates)

    def _selector(self, view: WindowedView) -> Selector:
        names = [] if view.sessions else self.asked.names[view.key]
        return Selector(view, names, ARRIVED_AT if self.known else None)

    def _first_us(self, views: Sequence[WindowedView], mine: SpineBuckets) -> int | None:
        """The first event that any of some views needs; `None`: all, as for sessions, of which no end is known."""
        starts = [None if view.sessions else first_counted(view, mine.start_us) for view in views]
        for view, first_us in zip(views, starts, strict=True):
            self._needed.append((self.store.archive(view.source), first_us, view.key))
            self._needed[-1][0].check_retained(first_us, f"View {view.key!r}")
        return None if None in starts else min(us for us in starts if us is not None)

    def _cut(
        self,
        name: str,
        table: LakeTable,
        columns: Sequence[str],
        where: pc.Expression,
        mine: SpineBuckets,
        dates: str | None = None,
        beside: str = "",
    ) -> Spill:
        """Columns of a table by bucket; what was spilled of others, but of one `beside`, is removed."""
        if name not in self._spilled:
            for other in [other for other in self._spilled if other != beside]:
                del self._spilled[other]
                shutil.rmtree(self.folder / other)
            schema = _fields(table, columns)
            size = piece_rows(stored_row_bytes(schema, {}), self.left, LARGE_PIECE_ROWS)
            pieces = tightly(in_pieces(table.reading(columns, where, dates).row_groups(), size), self.left)
            self._spilled[name] = mine.spilled(self.folder / name, pieces, schema)
            self.spilled_bytes += self._spilled[name].bytes
        return self._spilled[name]

    def _batch_columns(self, view: BatchView) -> list[str]:
        return [*view.entity.keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP, *self.asked.names[view.key]]


@dataclass(frozen=True)
class SpilledEvents:
    """Reads the events of one bucket."""

    stored: SpilledRows | TableRows | ShardRows
    threads: int
    late_ids = False

    def size(self, source: EventSource) -> int:
        """What the bucket holds."""
        return self.stored.rows

    def pieces(
        self,
        selector: Selector,
        keys: list[str],
        first_us: int | None,
        end_us: int,
        made: Make[Made],
        others_max: float = 0.0,
    ) -> Iterator[Made]:
        """Reads one piece after another, so that memory holds one."""
        asked = KeyLookup(selector.view.entity, keys, self.stored.rows)
        select = Selecting(selector, asked, (first_us, end_us), others_max)
        yield made(select(self.stored.nothing(selector.columns)))
        for _, rows in self.stored.pieces(selector.columns):
            yield made(select(rows))


def within(instant: str, start_us: int | None, end_us: int) -> pc.Expression:
    """The rows whose instant is in `[start, end)`; without a start, before `end`."""
    before = pc.field(instant) < pa.scalar(end_us, INSTANT)
    return before if start_us is None else before & (pc.field(instant) >= pa.scalar(start_us, INSTANT))


def _fields(table: LakeTable, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([table.schema.field(name) for name in columns])
