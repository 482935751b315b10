"""Reading row group by row group, each while the one before it is worked on, or each by a thread of its own.

Arrow's own scan of a dataset reads on until a gigabyte waits to be taken, whatever it is told to read ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

Piece = TypeVar("Piece")

Names = Mapping[str, Sequence[str]]
"""Of columns that go by several names, all of them."""


def stored_columns(stored: pa.Schema, columns: Sequence[str], names: Names) -> dict[str, pc.Expression]:
    """Those columns that there are, by what they are read from: of several names by the first that has a value."""
    found = {}
    for name in columns:
        there = [pc.field(one) for one in names.get(name, (name,)) if one in stored.names]
        if there:
            found[name] = there[0] if len(there) == 1 else pc.coalesce(*there)
    return found


def read_row_groups(
    dataset: ds.Dataset, columns: Sequence[str], where: pc.Expression | None, names: Names
) -> Iterator[pa.Table]:
    """Those columns that there are of the rows that meet `where`, a row group at a time, in the order of the files."""
    known = stored_columns(dataset.schema, columns, names)
    for fragment in dataset.get_fragments(filter=where):
        for group in fragment.split_by_row_group(filter=where, schema=dataset.schema):
            yield group.to_table(schema=dataset.schema, columns=known, filter=where)


def read_row_group(fragment: Any, schema: pa.Schema, names: Names, *, remote: bool) -> pa.Table:
    """A row group whole, decoded by the thread that asks for it: Arrow's datasets have others do that.

    Its rows are always in the same order, its columns in declared types, null where the file lacks them.
    """
    with fragment.open() as opened:
        file = pq.ParquetFile(opened, metadata=fragment.metadata, pre_buffer=remote)
        stored = set(file.schema_arrow.names)
        there = {field.name: [n for n in names.get(field.name, (field.name,)) if n in stored] for field in schema}
        physical = [name for found in there.values() for name in found]
        rows = file.read_row_group(fragment.row_groups[0].id, physical, use_threads=False)
    found = [_first_value([rows[one] for one in ones], schema.field(name).type) for name, ones in there.items()]
    count = fragment.row_groups[0].num_rows
    columns = [
        pa.nulls(count, field.type) if column is None else column.cast(field.type)
        for field, column in zip(schema, found, strict=True)
    ]
    return pa.table(columns, schema=schema)


def _first_value(columns: Sequence[pa.ChunkedArray], kind: pa.DataType) -> pa.ChunkedArray | None:
    """Of columns of several names the first that has a value."""
    return pc.coalesce(*(column.cast(kind) for column in columns)) if len(columns) > 1 else next(iter(columns), None)


def ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, each made while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece
