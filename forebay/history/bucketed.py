"""A training set bucket of entities by bucket, and from there to a file: for archives and spines larger than memory.

    spine     →  buckets by entity  ─┐
    archive   →  buckets by entity  ─┴→  answers of each bucket  →  files by range of rows  →  rows in the spine's order

Each arrow is one pass: the spine is read twice, the archive once per entity kind and source, however many buckets there
are. A bucket is answered by the functions that answer a whole training set (`forebay.history.historical`), so its
values are the same (ADR 0110).

May live here: the passes, and what each may hold of the memory that is left. Invariants: as those of
`forebay.history.historical`; in the end nothing is left of what was spilled (to a folder where TMPDIR says).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.asked import Asked
from forebay.calls.on_demand import with_on_demand
from forebay.calls.responses import STATUS_SUFFIX
from forebay.core.values import FeatureColumn
from forebay.errors import RequestError
from forebay.history.answers import column_of, table_of
from forebay.history.buckets import (
    PIECE_SHARE,
    ROW,
    SPINE_SCHEMA,
    SpineBuckets,
    asked_row_bytes,
    buckets_needed,
    piece_rows,
    tightly,
)
from forebay.history.outputs import write_out
from forebay.history.rows_asked import RowsAsked
from forebay.history.spark import spark_session
from forebay.history.spine import Spine
from forebay.history.spine_rows import SpineRows
from forebay.history.stored_buckets import Stored, StoredBuckets
from forebay.language.feature import Feature
from forebay.language.view import AnyView, WindowedView
from forebay.offline.spill import FILES_MAX, Spill
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
RANGE_ROWS_MAX = 2**18
"""Rows that are written together: a row group of a Parquet file."""


class Results(Protocol):
    """The answers to a view, by range of rows."""

    def read(self, number: int) -> pa.Table:
        """The answers of a range, in no particular order; they are asked for once."""
        ...


@dataclass(frozen=True)
class Written:
    """What was written: how many rows, with which features, where, and in how many buckets they were answered."""

    rows: int
    feature_names: tuple[str, ...]
    out: str
    buckets: int
    spilled_bytes: int


def write_training_set(
    store: OfflineStore,
    asked: Asked,
    spine: SpineRows,
    out: Path | str,
    *,
    left: int,
    with_statuses: bool,
    known: bool,
    spark: str | None = None,
    scratch: Path | str | None = None,
) -> Written:
    """The training set of a spine, written to a file or a Delta table within `left` bytes of memory.

    With `spark`, a master, its buckets are answered there, each task within as much.
    """
    session = None if spark is None else spark_session(spark)
    with tempfile.TemporaryDirectory(prefix="forebay-spill-", dir=scratch) as name:
        folder = Path(name)
        stored = StoredBuckets(store, asked, folder / "stored", left, known)
        work = _Passes(asked, spine, stored, folder, left, with_statuses)
        work.spill_spine()
        results: dict[str, Results] = {
            view.key: work.answer(view) if session is None else work.answer_on(session, view)
            for view in work.in_order()
        }
        stored.check_retained()
        write_out(*work.merged(results), out, left // PIECE_SHARE)
        titles = tuple(column.title for column in asked.columns)
        buckets = max(mine.spill.files for mine in work.buckets.values())
        spills = [one for one in results.values() if isinstance(one, Spill)]
        spills += [mine.spill for mine in work.buckets.values()]
        size = stored.spilled_bytes + sum(spill.bytes for spill in spills)
        return Written(spine.rows, titles, str(out), buckets, size)


@dataclass
class _Passes:
    """One training set on its way through the folder."""

    asked: Asked
    spine: SpineRows
    stored: StoredBuckets
    folder: Path
    left: int
    with_statuses: bool
    buckets: dict[str, SpineBuckets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        width = self.spine.row_bytes() + asked_row_bytes(feature.type for feature in self._features())
        self.range_rows = piece_rows(width, self.left, RANGE_ROWS_MAX)
        self.ranges = max(1, -(-self.spine.rows // self.range_rows))
        if self.ranges > FILES_MAX:
            needed = self.left * self.ranges // FILES_MAX
            raise RequestError(
                f"A training set of {self.spine.rows:,} rows with {len(self.asked.columns)} features needs some "
                f"{needed // 1_000_000} MB to be put in order; give it more memory"
            )

    def _features(self) -> Iterator[Feature]:
        """What is read, and what is computed of it."""
        for key, names in self.asked.names.items():
            yield from (self.asked.views[key].outputs()[name] for name in names)
        for view in self.asked.on_demand.values():
            yield from view.outputs().values()

    def spill_spine(self) -> None:
        """The first pass: who is asked about, where and when."""
        for name, entity in self.asked.entities.items():
            spill = Spill(self.folder / "spine" / name, SPINE_SCHEMA, self._buckets_of(name))
            self.buckets[name] = SpineBuckets(entity, spill)
        for first, piece in self.spine.pieces(self.range_rows):
            for name, keyed in piece.keyed.items():
                self.buckets[name].add(first, piece.instants_us, keyed)
        for mine in self.buckets.values():
            mine.spill.close()

    def in_order(self) -> list[AnyView]:
        """The views, those of one entity and source one after another: they share what is spilled."""
        return sorted(self.asked.views.values(), key=lambda view: (view.entity.name, _read_by(view)))

    def schema(self, view: AnyView) -> pa.Schema:
        """The columns of the answers to a view."""
        nothing = [FeatureColumn.of_defaults(view.outputs()[name], 0) for name in self.asked.names[view.key]]
        return table_of(np.empty(0, np.int64), nothing, self.with_statuses).schema

    def answer_on(self, session: Any, view: AnyView) -> Results:
        """As `answer`, on Spark."""
        from forebay.history.spark import Cut, Lying, Shard, SparkResults, answered_by_spark

        mine, names, known = self.buckets[view.entity.name], tuple(self.asked.names[view.key]), self.stored.known
        url, cuts = self.stored.store.location.url, []
        for part, (table, columns, where) in enumerate([] if mine.nobody else self.stored.reading(view, mine)):
            schema, shards_count = table.stored_schema(), mine.spill.files
            cut = Cut(url, table.path, view, tuple(columns), schema, where, shards_count, part, table.names)
            cuts.append((cut, table))
        schemas = tuple(pa.schema([table.schema.field(name) for name in cut.columns]) for cut, table in cuts)
        shards = self.stored.shards(view, mine) if cuts and isinstance(view, WindowedView) else None
        lying = None if shards is None else Lying(cuts.pop()[0], tuple(map(tuple, shards.files())))
        stored = Stored((mine.start_us, mine.end_us), schemas, known, self.stored.row_bytes(view)[0])
        shard = Shard(view, names, stored, self.range_rows, self.with_statuses, lying)
        folder = answered_by_spark(session, self.folder / "spark" / view.key, mine, shard, cuts)
        return SparkResults(folder, self.schema(view))

    def answer(self, view: AnyView) -> Spill:
        """The features of a view for all rows, by range of rows."""
        names, mine, schema = self.asked.names[view.key], self.buckets[view.entity.name], self.schema(view)
        results = Spill(self.folder / "results" / view.key, schema, self.ranges)
        answer = None if mine.nobody else self.stored.answering(view, mine)
        for number in range(mine.spill.files):
            rows, us, keyed = mine.bucket(number)
            if answer is not None and len(keyed.keys):
                columns = RowsAsked.of(keyed, us).answered(partial(answer, number))
            else:
                columns = [FeatureColumn.of_defaults(view.outputs()[name], len(rows)) for name in names]
            results.add(table_of(rows, columns, self.with_statuses), rows // self.range_rows)
        results.close()
        return results

    def merged(self, results: Mapping[str, Results]) -> tuple[pa.Schema, Iterator[pa.Table]]:
        """The last pass: the spine again, with the features of each row beside it."""
        pieces = tightly(self._merged(results), self.left)
        first = next(pieces)
        return first.schema, chain([first], pieces)

    def _merged(self, results: Mapping[str, Results]) -> Iterator[pa.Table]:
        for number, (_, piece) in enumerate(self.spine.pieces(self.range_rows)):
            table, found = piece.table, {key: _range(spill, number) for key, spill in results.items()}
            found |= self._on_demand(piece, found)
            for wanted in self.asked.columns:
                mine = found[wanted.view.key]
                table = table.append_column(wanted.title, mine[wanted.name])
                if self.with_statuses:
                    table = table.append_column(wanted.title + STATUS_SUFFIX, mine[wanted.name + STATUS_SUFFIX])
            yield table

    def _on_demand(self, piece: Spine, found: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
        """The on-demand features of some rows, by view."""
        if not self.asked.on_demand:
            return {}
        views = self.asked.views
        read = {
            (k, n): column_of(views[k].outputs()[n], found[k]) for k, names in self.asked.names.items() for n in names
        }
        computed = with_on_demand(self.asked, read, piece.request, piece.instants_us, piece.first_row)
        rows = np.arange(len(piece.table))
        return {
            key: table_of(rows, [computed[key, name] for name in view.outputs()], self.with_statuses)
            for key, view in self.asked.on_demand.items()
        }

    def _buckets_of(self, entity: str) -> int:
        """How many buckets the view that takes most needs."""
        views = [view for view in self.asked.views.values() if view.entity.name == entity]
        needed = 1
        for view in views:
            rows, width = self.stored.row_bytes(view)
            kinds = [view.outputs()[name].type for name in self.asked.names[view.key]]
            asked = self.spine.rows * asked_row_bytes(kinds)
            needed = max(needed, buckets_needed(rows * width, asked, self.left))
        return needed


def _read_by(view: AnyView) -> str:
    """What is read for a view: views of one source share it."""
    return f"source {view.source.name}" if isinstance(view, WindowedView) else view.key


def _range(results: Results, number: int) -> pa.Table:
    """The results of a range of rows, in order."""
    rows = results.read(number)
    return rows.take(pa.array(np.argsort(np.asarray(rows[ROW]))))
