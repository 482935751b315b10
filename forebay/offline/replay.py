"""Archived events in the order in which they were read: the archive as a log.

    files    by date, sorted by instant          replay    by partition, sorted by offset

Lives here: reading stretches of partitions back in the order of their offsets. What is short is sorted in memory, what
is long by DuckDB, which spills to disk. Invariants: exactly the events of the stretches, each once, as they were
archived; a partition comes in one piece, and no table holds events of two.
"""

from __future__ import annotations

import functools
import itertools
import operator
import tempfile
from collections.abc import Iterable, Iterator, Mapping

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.batch import SOURCE_OFFSET, event_schema
from forebay.offline.archive import SOURCE_PARTITION, Archive

Stretches = Mapping[str, tuple[int, int]]
"""Of each partition the offsets `[first, end)`."""

HELD_ROWS_MAX = 500_000
"""So many events are sorted in memory: some hundred megabytes."""
CONDITIONS_MAX = 64
"""Partitions that are named one by one in the question to the files; of more, the least offset is asked for."""
ROWS_MAX = 8192
_SPILLING = {"threads": "2", "memory_limit": "512MB"}
_ORDER = [(SOURCE_PARTITION, "ascending"), (SOURCE_OFFSET, "ascending")]


def replay(archive: Archive, stretches: Stretches) -> Iterator[tuple[str, pa.Table]]:
    """The archived events of some stretches, in tables of `event_schema` of up to ROWS_MAX events of one partition."""
    schema = event_schema(archive.source)
    found = _within(archive.table.reading([*schema.names, SOURCE_PARTITION], _where(stretches)).batches(), stretches)
    for table in _ordered(found):
        for name in pc.unique(table[SOURCE_PARTITION]).to_pylist():
            rows = table.filter(pc.field(SOURCE_PARTITION) == name).select(schema.names).cast(schema)
            for first in range(0, len(rows), ROWS_MAX):
                yield name, rows.slice(first, ROWS_MAX)


def _where(stretches: Stretches) -> pc.Expression:
    offset, partition = pc.field(SOURCE_OFFSET), pc.field(SOURCE_PARTITION)
    if len(stretches) > CONDITIONS_MAX:
        return partition.isin(list(stretches)) & (offset >= min(first for first, _ in stretches.values()))
    each = ((partition == name) & (offset >= first) & (offset < end) for name, (first, end) in stretches.items())
    return functools.reduce(operator.or_, each)


def _within(tables: Iterable[pa.Table], stretches: Stretches) -> Iterator[pa.Table]:
    """The rows of the stretches alone, instants as numbers: DuckDB would give them its own time zone."""
    names = list(stretches)
    bounds = np.array([stretches[name] for name in names], np.int64)
    for table in tables:
        offsets = np.asarray(table[SOURCE_OFFSET])
        place = np.asarray(pc.index_in(table[SOURCE_PARTITION], pa.array(names, pa.string())).fill_null(0))
        inside = (offsets >= bounds[place, 0]) & (offsets < bounds[place, 1])
        rows = table if inside.all() else table.filter(pa.array(inside))
        if len(rows):
            yield rows.cast(pa.schema([_plain(field) for field in rows.schema]))


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(pa.int64()) if pa.types.is_timestamp(field.type) else field


def _ordered(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(map(len, held)) > HELD_ROWS_MAX:
            yield from _spilled(itertools.chain(held, tables), table.schema)
            return
    if held:
        yield pa.concat_tables(held).sort_by(_ORDER)


def _spilled(tables: Iterator[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    batches = itertools.chain.from_iterable(table.to_batches() for table in tables)
    with (
        tempfile.TemporaryDirectory(prefix="forebay-replay-") as folder,
        duckdb.connect(config={**_SPILLING, "temp_directory": folder}) as database,
    ):
        rows = database.from_arrow(pa.RecordBatchReader.from_batches(schema, batches))
        for batch in rows.order(f"{SOURCE_PARTITION}, {SOURCE_OFFSET}").to_arrow_reader(ROWS_MAX):
            yield pa.Table.from_batches([batch])
