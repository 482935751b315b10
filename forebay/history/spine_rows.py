"""A spine piece by piece, as often as it is needed: what may be longer than memory holds.

May live here: where the rows of a spine come from. A Parquet file is read anew each time; everything else (DataFrames,
CSV, NDJSON) is a table in memory already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from forebay.calls.asked import Asked
from forebay.calls.files import check_file
from forebay.errors import RequestError
from forebay.history.spine import WHERE, Spine, to_table

BUFFER_BYTES = 2**16
"""What is read of a column at a time. Arrow would read a column's row group at once, and, of what it reads ahead, keep
all of the file until it is read to its end."""


class SpineRows:
    """The rows of `entity_df`, and how many there are."""

    def __init__(self, entity_df: Any, asked: Asked, *, with_statuses: bool) -> None:
        self._asked, self._with_statuses = asked, with_statuses
        self._path: Path | None = None
        self._table: Any = None
        if isinstance(entity_df, str | Path) and Path(entity_df).suffix == ".parquet":
            self._path = Path(entity_df)
            check_file(self._path, WHERE)
            self.rows = int(self._file().metadata.num_rows)
        else:
            self._table = to_table(entity_df, asked)
            self.rows = len(self._table)

    def row_bytes(self) -> int:
        """About how much memory a row takes."""
        if self._path is None:
            size = int(self._table.nbytes)
        else:
            groups = self._file().metadata
            size = sum(groups.row_group(i).total_byte_size for i in range(groups.num_row_groups))
        return size // max(self.rows, 1) + 1

    def pieces(self, size: int) -> Iterator[tuple[int, Spine]]:
        """The rows in their order, in pieces of exactly `size` (the last may be shorter), with the first row's number.

        A spine without rows is one piece. Raises `RequestError` as `Spine.of`.
        """
        first = 0
        for table in _exactly(size, self._batches(size), self._empty()):
            yield first, Spine.of(table, self._asked, with_statuses=self._with_statuses, first_row=first)
            first += len(table)
        if first != self.rows:
            raise RequestError(f"{WHERE} had {self.rows} rows and has {first} now; keep it as it is while it is read")

    def _batches(self, size: int) -> Iterator[pa.RecordBatch]:
        if self._path is None:
            yield from self._table.to_batches(max_chunksize=size)
        else:
            yield from self._file().iter_batches(batch_size=size)

    def _empty(self) -> pa.Table:
        return self._table.slice(0, 0) if self._path is None else self._file().schema_arrow.empty_table()

    def _file(self) -> pq.ParquetFile:
        assert self._path is not None
        try:
            return pq.ParquetFile(self._path, pre_buffer=False, buffer_size=BUFFER_BYTES)
        except (pa.ArrowException, OSError) as error:
            raise RequestError(f"{WHERE} {str(self._path)!r} cannot be read: {error}") from None


def _exactly(size: int, batches: Iterable[pa.RecordBatch], empty: pa.Table) -> Iterator[pa.Table]:
    """The same rows in tables of `size`."""
    held = empty
    nothing = True
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])])
        while len(held) >= size:
            yield held.slice(0, size)
            held, nothing = held.slice(size), False
    if len(held) or nothing:
        yield held
