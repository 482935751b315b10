"""One Delta table of the offline store as it is read: its newest version, opened on first use.

Invariants: a table is partitioned by the column `date` (text, `YYYY-MM-DD`, UTC). A column that was added to a schema
is null in older files. Where there is no table yet, there are no rows.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from forebay.offline.clustering import Hashes, dataset_of, near
from forebay.offline.data_files import DATE
from forebay.offline.location import Location
from forebay.offline.numbered import NumberedRows
from forebay.offline.reading import Reading
from forebay.offline.row_groups import Names


class StoredTable:
    """A Delta table by its path in the offline store. May be read by several threads.

    `names` are those of columns that have several: what is stored under either is read as one.
    """

    def __init__(self, location: Location, path: str, schema: pa.Schema, *, names: Names | None = None) -> None:
        self.location, self.path, self.schema, self.names = location, path, schema, names or {}
        self._table: DeltaTable | None = None
        self._lock = threading.RLock()

    def snapshot(self) -> DeltaTable | None:
        """The newest version of the table; `None` where there is no table yet."""
        with self._lock, self.location.reached(f"reading {self.path}"):
            if self._table is None:
                self.location.owner.check()
                try:
                    self._table = DeltaTable(self.location.at(self.path), storage_options=dict(self.location.options))
                except TableNotFoundError:
                    return None
            else:
                self._table.update_incremental()
            return self._table

    def reading(
        self,
        columns: Sequence[str],
        where: pc.Expression | None = None,
        dates: str | None = None,
        hashes: Hashes | None = None,
    ) -> Reading:
        """Some columns of the rows that meet `where`, of some dates (a SQL predicate) and hashes."""
        return Reading(self, columns, where, dates, hashes)

    def named(self, column: str) -> Sequence[str]:
        """The names that a column goes by in files."""
        return self.names.get(column, (column,))

    def declared(self, columns: Sequence[str]) -> pa.Schema:
        """Some columns as they are declared."""
        return pa.schema([self.schema.field(name) for name in columns])

    def files_of(self, where: pc.Expression | None = None) -> list[str]:
        """The Parquet files of the newest version that may hold rows that meet `where`, by their paths in the table."""
        snapshot = self.snapshot()
        if snapshot is None:
            return []
        with self.location.reached(f"reading {self.path}"):
            return [str(fragment.path) for fragment in dataset_of(snapshot).get_fragments(filter=where)]

    def files_with(
        self, hashes: Sequence[Hashes], where: pc.Expression | None = None, pruning: str | None = None
    ) -> list[list[str]]:
        """For some hashes each, the files with a row group that may have them, of which the footers are looked at."""
        snapshot = self.snapshot()
        if snapshot is None:
            return [[] for _ in hashes]
        with self.location.reached(f"reading {self.path}"):
            dataset = dataset_of(snapshot, pruning)
            there = list(dataset.get_fragments(filter=where))
            found = []
            for some in hashes:
                condition = near(dataset, where, some)
                found.append([one.path for one in there if one.subset(condition, schema=dataset.schema).row_groups])
            return found

    def stored_schema(self) -> pa.Schema:
        """The columns that it has, which may be more than those declared."""
        snapshot = self.snapshot()
        return self.schema if snapshot is None else pa.schema(snapshot.schema())

    @contextlib.contextmanager
    def numbered(
        self, where: pc.Expression | None = None, hashes: Hashes | None = None, threads: int = 1
    ) -> Iterator[NumberedRows]:
        """The rows of the newest version that may meet `where`, and maybe others: a few columns first, more later."""
        snapshot, remote = self.snapshot(), bool(self.location.options)
        with self.location.reached(f"reading {self.path}"):
            dataset = dataset_of(snapshot) if snapshot else None
            yield NumberedRows(dataset, near(dataset, where, hashes), self.schema, threads, remote=remote)

    def size(self) -> tuple[int, int] | None:
        """Rows and bytes; `None` where there is no table yet."""
        files = self._files(["num_records", "size_bytes"])
        return None if files is None else (pc.sum(files[0]).as_py() or 0, pc.sum(files[1]).as_py() or 0)

    def rows_by_date(self) -> dict[str, int]:
        """Rows of each date that has any."""
        files = self._files([f"partition.{DATE}", "num_records"])
        if files is None:
            return {}
        counted = pa.table({"date": files[0], "rows": files[1]}).group_by("date").aggregate([("rows", "sum")])
        counts = zip(counted["date"].to_pylist(), counted["rows_sum"].to_pylist(), strict=True)
        return {date: rows for date, rows in sorted(counts) if rows}

    def file_sizes(self) -> dict[str, list[int]]:
        """Bytes of the files of each date."""
        files = self._files([f"partition.{DATE}", "size_bytes"])
        found: dict[str, list[int]] = {}
        for date, size in zip(*(column.to_pylist() for column in files), strict=True) if files else ():
            found.setdefault(date, []).append(size)
        return found

    def _files(self, columns: Sequence[str]) -> list[Any] | None:
        snapshot = self.snapshot()
        if snapshot is None:
            return None
        with self.location.reached(f"reading {self.path}"):
            files = pa.table(snapshot.get_add_actions(flatten=True))
        return [files[name] if name in files.column_names else pa.nulls(0) for name in columns]


def between_dates(first: str, last: str) -> str:
    """The SQL predicate of the dates from `first` to `last`, both included."""
    return f"{DATE} >= '{first}' AND {DATE} <= '{last}'"
