"""Rows of one version of a table, numbered as they lie in its files: a few columns of all, then more of some.

What decides which rows are wanted is narrow, what they hold is wide: the wide columns are read of the files and row
groups that hold a wanted row, and only these rows are kept.

Invariants: numbers are good for one object alone, and ascend from date to date. Memory is some row groups, and what is
taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from forebay.offline.pieces import in_pieces

Ints = npt.NDArray[np.int64]
PIECE_ROWS = 2_000_000
"""Narrow rows that are handed out together."""
READ_AHEAD = 2
"""Batches and files that are read ahead: enough for two processors, and little memory."""


@dataclass(frozen=True)
class _Part:
    """The row groups of a file that may hold rows that are looked for, and the number of their first row."""

    fragment: Any
    first: int
    rows: int


class NumberedRows:
    """The rows of a dataset in the row groups that may meet a filter; others may be among them."""

    def __init__(self, dataset: ds.Dataset | None, where: pc.Expression | None, schema: pa.Schema) -> None:
        self._schema = schema
        self._stored = schema if dataset is None else dataset.schema
        self._parts: list[_Part] = []
        self.rows = 0
        fragments = dataset.get_fragments(filter=where) if dataset else ()
        for fragment in sorted(fragments, key=lambda one: str(one.path)):
            part = fragment if where is None else fragment.subset(where, schema=self._stored)
            rows = sum(group.num_rows for group in part.row_groups)
            if rows:
                self._parts.append(_Part(part, self.rows, rows))
            self.rows += rows

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows in pieces of some `PIECE_ROWS`, each with the number of its first row."""
        return in_pieces((rows for part in self._parts for rows in self._read(part.fragment, columns)), PIECE_ROWS)

    def take(self, numbers: Ints, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows; `numbers` ascend and are distinct."""
        taken = [self._of(self._schema.empty_table(), columns)]
        for part in self._parts:
            low, high = np.searchsorted(numbers, (part.first, part.first + part.rows))
            if high > low:
                taken += self._taken(part.fragment, numbers[low:high] - part.first, columns)
        return pa.concat_tables(taken)

    def _taken(self, fragment: Any, places: Ints, columns: Sequence[str]) -> Iterator[pa.Table]:
        groups = fragment.row_groups
        sizes = np.array([group.num_rows for group in groups], np.int64)
        ends = np.cumsum(sizes)
        mine = np.searchsorted(ends, places, "right")
        used = np.unique(mine)
        firsts = np.zeros(len(groups), np.int64)
        firsts[used] = np.cumsum(sizes[used]) - sizes[used]
        places = places - (ends - sizes)[mine] + firsts[mine]
        if len(used) < len(groups):
            fragment = fragment.subset(row_group_ids=[groups[group].id for group in used.tolist()])
        first = 0
        for rows in self._read(fragment, columns):
            low, high = np.searchsorted(places, (first, first + len(rows)))
            if high > low:
                yield rows.take(pa.array(places[low:high] - first))
            first += len(rows)

    def _read(self, fragment: Any, columns: Sequence[str]) -> Iterator[pa.Table]:
        known = [name for name in columns if name in self._stored.names]
        options = {"batch_readahead": READ_AHEAD, "fragment_readahead": READ_AHEAD}
        for batch in fragment.to_batches(schema=self._stored, columns=known, **options):
            if batch.num_rows:
                yield self._of(pa.Table.from_batches([batch]), columns)

    def _of(self, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
        """Columns in declared types; those that the files lack are null."""
        fields = [self._schema.field(name) for name in columns]
        there = set(rows.column_names)
        columns = [rows[f.name].cast(f.type) if f.name in there else pa.nulls(len(rows), f.type) for f in fields]
        return pa.table(columns, schema=pa.schema(fields))
