"""What is read of a table: which columns of which rows, and in what pieces.

    table()         all at once, by Arrow's threads           row_groups()   in the order of the files, one read ahead
    batches()       piece by piece, up to a gigabyte ahead    groups(n)      each read by whoever is handed it

May live here: reading the newest version of one table. Invariants: columns come in their declared types, null where a
file lacks them; where there is no table yet, there are no rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from forebay.core.threads import worked_ahead
from forebay.offline.clustering import Hashes, dataset_of, near
from forebay.offline.row_groups import ahead, read_row_group, read_row_groups, stored_columns

if TYPE_CHECKING:
    from forebay.offline.stored_table import StoredTable


@dataclass(frozen=True)
class Reading:
    """Some columns of the rows of a table that meet `where`.

    `dates` is a SQL predicate on `date` that spares files from being looked at; `hashes` leaves out row groups of dates
    that are in order, and their rows: those that may have them are read.
    """

    of: StoredTable
    columns: Sequence[str]
    where: pc.Expression | None = None
    dates: str | None = None
    hashes: Hashes | None = None

    def table(self) -> pa.Table:
        """All rows, in no particular order."""

        def at_once(dataset: ds.Dataset) -> Iterator[pa.Table]:
            yield dataset.to_table(columns=self._stored(dataset), filter=self._filter(dataset))

        nothing = self.schema.empty_table()
        return pa.concat_tables([nothing, *self._pieces(at_once)])

    def batches(self) -> Iterator[pa.Table]:
        """Piece by piece, for what may not fit in memory; up to a gigabyte is read ahead."""

        def by_batch(dataset: ds.Dataset) -> Iterator[pa.Table]:
            for batch in dataset.to_batches(columns=self._stored(dataset), filter=self._filter(dataset)):
                yield pa.Table.from_batches([batch])

        return self._pieces(by_batch)

    def row_groups(self) -> Iterator[pa.Table]:
        """In the order of the files, with no more in memory than a row group and the next."""

        def by_group(dataset: ds.Dataset) -> Iterator[pa.Table]:
            return ahead(read_row_groups(dataset, self.columns, self._filter(dataset), self.of.names))

        return self._pieces(by_group)

    def groups(self, threads: int) -> Iterator[RowGroup]:
        """The row groups that may have rows, in the order of the files, whose footers so many threads look at.

        Their other rows are read too, and left out by whoever reads them.
        """
        snapshot = self.of.snapshot()
        if snapshot is None:
            return
        dataset = dataset_of(snapshot, self.dates)
        where = self._filter(dataset)

        def split(fragment: Any) -> list[Any]:
            with self.of.location.reached(f"reading {self.of.path}"):
                return list(fragment.split_by_row_group(filter=where, schema=dataset.schema))

        for found in worked_ahead(split, dataset.get_fragments(filter=where), threads):
            yield from (RowGroup(self, fragment) for fragment in found)

    @property
    def schema(self) -> pa.Schema:
        """What is read, as it is declared."""
        return self.of.declared(self.columns)

    def _pieces(self, read: Callable[[ds.Dataset], Iterator[pa.Table]]) -> Iterator[pa.Table]:
        snapshot = self.of.snapshot()
        if snapshot is None:
            return
        with self.of.location.reached(f"reading {self.of.path}"):
            for rows in read(dataset_of(snapshot, self.dates)):
                yield conformed(rows, self.schema)

    def _stored(self, dataset: ds.Dataset) -> dict[str, pc.Expression]:
        return stored_columns(dataset.schema, self.columns, self.of.names)

    def _filter(self, dataset: ds.Dataset) -> pc.Expression | None:
        return near(dataset, self.where, self.hashes)


@dataclass(frozen=True)
class RowGroup:
    """A row group of a table, read and decoded by the thread that asks for it: Arrow's datasets have others do that."""

    reading: Reading
    fragment: Any

    def __len__(self) -> int:
        return int(self.fragment.row_groups[0].num_rows)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All its rows, always in the same order: the columns of the reading, or others."""
        of, columns = self.reading.of, self.reading.columns if columns is None else columns
        with of.location.reached(f"reading {of.path}"):
            remote = bool(of.location.options)
            return read_row_group(self.fragment, of.declared(columns), of.names, remote=remote)


def conformed(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in declared types, with nulls for each column that they lack."""
    return with_columns(rows, schema).select(schema.names).cast(schema)


def with_columns(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows with nulls for each column that they lack."""
    for field_ in schema:
        if field_.name not in rows.column_names:
            rows = rows.append_column(field_, pa.nulls(len(rows), field_.type))
    return rows
