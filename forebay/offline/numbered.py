"""Rows of one version of a table, numbered as they lie in its files: a few columns of all, then more of some.

What decides which rows are wanted is narrow, what they hold is wide: the wide columns are read of the row groups that
hold a wanted row, and only these rows are kept. Several threads may read, each a row group whole.

Invariants: numbers are good for one object alone, and ascend from date to date. Memory is some row groups for each
thread, and what is made of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from forebay.core.threads import worked_ahead
from forebay.offline.row_groups import read_row_group

Ints = npt.NDArray[np.int64]
Made = TypeVar("Made")
PIECE_ROWS = 2_000_000
"""Narrow rows that are handed out together."""
TAKEN_ROWS = 2**17
"""Rows of which those that are wanted are handed out together."""


@dataclass(frozen=True)
class _Group:
    """A row group that may hold rows that are looked for, and the number of its first row."""

    fragment: Any
    first: int
    rows: int

    def __len__(self) -> int:
        return self.rows


class NumberedRows:
    """The rows of a dataset in the row groups that may meet a filter; others may be among them.

    So many `threads` read; of what is `remote` the columns of a row group are fetched together.
    """

    def __init__(
        self, dataset: ds.Dataset | None, where: pc.Expression | None, schema: pa.Schema, threads: int, *, remote: bool
    ) -> None:
        self._schema, self._threads, self._remote = schema, threads, remote
        self._groups: list[_Group] = []
        self.rows = 0
        fragments = dataset.get_fragments(filter=where) if dataset else ()
        by_path = sorted(fragments, key=lambda one: str(one.path))
        split = partial(_row_groups, where=where, schema=None if dataset is None else dataset.schema)
        for found in worked_ahead(split, iter(by_path), threads):
            for fragment, rows in found:
                self._groups.append(_Group(fragment, self.rows, rows))
                self.rows += rows

    def each_piece(
        self, columns: Sequence[str], make: Callable[[int, pa.Table], Made], rows_least: int = PIECE_ROWS
    ) -> Iterator[Made]:
        """What is made of columns of all rows in pieces of at least so many, each with the number of its first row."""

        def made(groups: Sequence[_Group]) -> Made:
            return make(groups[0].first, pa.concat_tables([self._read(group, columns) for group in groups]))

        return worked_ahead(made, together(self._groups, rows_least), self._threads)

    def each_taken(
        self, numbers: Ints, columns: Sequence[str], make: Callable[[slice, pa.Table], Made]
    ) -> Iterator[Made]:
        """What is made of columns of some rows, piece by piece, each with its part of `numbers`, which ascend."""
        edges = {group.first: _within(numbers, group) for group in self._groups}
        wanted = (group for group in self._groups if edges[group.first].start < edges[group.first].stop)

        def made(groups: Sequence[_Group]) -> Made:
            taken = []
            for group in groups:
                places = pa.array(numbers[edges[group.first]] - group.first)
                taken.append(self._read(group, columns).take(places))
            part = slice(edges[groups[0].first].start, edges[groups[-1].first].stop)
            return make(part, pa.concat_tables(taken))

        return worked_ahead(made, together(wanted, TAKEN_ROWS), self._threads)

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows in pieces of some `PIECE_ROWS`, each with the number of its first row."""
        return self.each_piece(columns, lambda number, rows: (number, rows), PIECE_ROWS)

    def take(self, numbers: Ints, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows; `numbers` ascend."""
        nothing = pa.schema([self._schema.field(name) for name in columns]).empty_table()
        return pa.concat_tables([nothing, *self.each_taken(numbers, columns, lambda part, rows: rows)])

    def _read(self, group: _Group, columns: Sequence[str]) -> pa.Table:
        schema = pa.schema([self._schema.field(name) for name in columns])
        return read_row_group(group.fragment, schema, {}, remote=self._remote)


def together(groups: Iterable[_Group], rows_least: int) -> Iterator[list[_Group]]:
    """Row groups, so many at a time as have some rows: of small files many."""
    held: list[_Group] = []
    for group in groups:
        held.append(group)
        if sum(map(len, held)) >= rows_least:
            yield held
            held = []
    if held:
        yield held


def _row_groups(fragment: Any, where: pc.Expression | None, schema: pa.Schema) -> list[tuple[Any, int]]:
    """The row groups of a file that may meet a filter and have rows, with how many they have."""
    groups = fragment.split_by_row_group(filter=where, schema=schema)
    return [(group, rows) for group in groups if (rows := group.row_groups[0].num_rows)]


def _within(numbers: Ints, group: _Group) -> slice:
    """Which of some numbers are of a row group."""
    low, high = np.searchsorted(numbers, (group.first, group.first + group.rows)).tolist()
    return slice(low, high)
