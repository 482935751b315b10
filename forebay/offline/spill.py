"""Rows cut into bucket files in a folder of this process: what is read once, and then needed part by part.

    pieces of a table       ●▲■▲●●    ■▲●    ▲▲■
    files                   ●●●●      ▲▲▲▲▲    ■■■

May live here: writing rows to the file that each is meant for, and reading one file back. What decides where a row goes
is the caller's.

Invariants: the rows of a file are in the order in which they were added; memory is that of the piece that is added or
read. Files are Arrow IPC and nobody's format: they are gone when the process is done with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.offline.pieces import in_pieces

Ints = npt.NDArray[np.int64]
Made = TypeVar("Made")
FILES_MAX = 512
"""Files that are open at a time; systems allow a process 1,024 by default."""
PIECE_ROWS = 1_000_000
"""Rows that are handed out together."""
_COMPRESSED = pa.ipc.IpcWriteOptions(compression="lz4")


def give_back() -> None:
    """Give the system what Arrow has freed and keeps: of many pieces of many sizes that adds up to many pieces."""
    pa.default_memory_pool().release_unused()


class Spill:
    """Rows of one schema in up to `FILES_MAX` files."""

    def __init__(self, folder: Path, schema: pa.Schema, files: int) -> None:
        assert 1 <= files <= FILES_MAX, f"{files} files are asked for"
        folder.mkdir(parents=True)
        self._folder, self.schema, self.files = folder, schema, files
        self._writers: dict[int, Any] = {}
        self.rows = np.zeros(files, np.int64)
        self.bytes = 0

    def add(self, rows: pa.Table, file: Ints) -> None:
        """Add each row to the file that it is meant for."""
        if not len(rows):
            return
        order = np.argsort(file, kind="stable")
        counts = np.bincount(file, minlength=self.files)
        sorted_rows = rows.select(self.schema.names).cast(self.schema).take(pa.array(order)).combine_chunks()
        firsts = np.cumsum(counts) - counts
        for number in np.flatnonzero(counts).tolist():
            if number not in self._writers:
                self._writers[number] = pa.ipc.new_file(self._path(number), self.schema, options=_COMPRESSED)
            self._writers[number].write_table(sorted_rows.slice(firsts[number], counts[number]))
        self.rows += counts
        self.bytes += sorted_rows.nbytes

    def close(self) -> None:
        """Finish the files; from now on they can be read."""
        for writer in self._writers.values():
            writer.close()
        give_back()

    def file(self, number: int) -> SpilledRows:
        """The rows of one file."""
        return SpilledRows(self._path(number) if self.rows[number] else None, self.schema, int(self.rows[number]))

    def read(self, number: int) -> pa.Table:
        """All rows of one file, which is removed: it is not needed any more."""
        rows = self.file(number).read()
        self._path(number).unlink(missing_ok=True)
        return rows

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.arrow"


class SpilledRows:
    """The rows of one file, numbered in their order."""

    def __init__(self, path: Path | None, schema: pa.Schema, rows: int) -> None:
        self._path, self._schema, self.rows = path, schema, rows

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of them."""
        names = self._schema.names if columns is None else list(columns)
        return pa.concat_tables([self.nothing(names), *(rows for _, rows in self._batches(names))]).combine_chunks()

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows in pieces of some `PIECE_ROWS`, each with the number of its first row."""
        return in_pieces((rows for _, rows in self._batches(columns)), PIECE_ROWS)

    def each_piece(
        self, columns: Sequence[str], make: Callable[[int, pa.Table], Made], rows_least: int = PIECE_ROWS
    ) -> Iterator[Made]:
        """What is made of columns of all rows in pieces of some rows, each with the number of its first row."""
        pieces = in_pieces((rows for _, rows in self._batches(columns)), min(rows_least, PIECE_ROWS))
        return (make(number, rows) for number, rows in pieces)

    def each_taken(
        self, numbers: Ints, columns: Sequence[str], make: Callable[[slice, pa.Table], Made]
    ) -> Iterator[Made]:
        """What is made of columns of some rows, piece by piece, each with its part of `numbers`, which ascend."""
        for first, rows in self._batches(columns):
            low, high = np.searchsorted(numbers, (first, first + len(rows))).tolist()
            if high > low:
                yield make(slice(low, high), rows.take(pa.array(numbers[low:high] - first)))

    def nothing(self, columns: Sequence[str]) -> pa.Table:
        """No rows, with some columns."""
        return self._schema.empty_table().select(list(columns))

    def _batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        if self._path is None:
            return
        fields = sorted(self._schema.get_field_index(name) for name in columns)
        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_file(file, options=pa.ipc.IpcReadOptions(included_fields=fields))
            first = 0
            for number in range(reader.num_record_batches):
                rows = pa.Table.from_batches([reader.get_batch(number)]).select(list(columns))
                yield first, rows
                first += len(rows)


class TableRows:
    """The rows of a table in memory, numbered as those of a file."""

    def __init__(self, table: pa.Table) -> None:
        self._table, self.rows = table, len(table)

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows, in one piece."""
        yield 0, self._table.select(list(columns))

    def each_piece(
        self, columns: Sequence[str], make: Callable[[int, pa.Table], Made], rows_least: int = PIECE_ROWS
    ) -> Iterator[Made]:
        """What is made of columns of all rows, in one piece."""
        yield make(0, self._table.select(list(columns)))

    def each_taken(
        self, numbers: Ints, columns: Sequence[str], make: Callable[[slice, pa.Table], Made]
    ) -> Iterator[Made]:
        """What is made of columns of some rows, in one piece."""
        yield make(slice(0, len(numbers)), self._table.select(list(columns)).take(pa.array(numbers)))

    def nothing(self, columns: Sequence[str]) -> pa.Table:
        """No rows, with some columns."""
        return self._table.schema.empty_table().select(list(columns))
