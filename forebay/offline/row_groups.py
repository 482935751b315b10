"""Reading row group by row group, each while the one before it is worked on.

Arrow's own scan of a dataset reads on until a gigabyte waits to be taken, whatever it is told to read ahead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

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


def ahead(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """The same pieces, each made while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece
