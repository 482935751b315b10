"""Parquet files of a table that are written first and committed together later: how more is loaded than memory holds.

Rows are held until there are `HELD_BYTES_MAX` of them, sorted, and written as one file per date; nobody sees a file
before the commit names it. What was written for a commit that never came is garbage that Delta's vacuum removes.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake._internal import DeltaFileSystemHandler  # the streams of the public handler take no bytes
from deltalake.transaction import AddAction

from forebay.offline.location import Location

HELD_BYTES_MAX = 128 * 2**20
"""Some million events; sorting them takes as much again."""
ROW_GROUP_ROWS = 128 * 1024
WRITERS = 8
"""Files that are written at a time: S3 answers slowly, but many at once."""
DATE = "date"


class DataFiles:
    """Writes the rows of one table, sorted by the instant that their `date` is of, and remembers the files."""

    def __init__(self, location: Location, path: str, *, instant: str, statistics: Sequence[str]) -> None:
        self._location, self._path, self._instant, self._statistics = location, path, instant, statistics
        self._files: Any = DeltaFileSystemHandler(location.at(path), dict(location.options))  # its stub lacks close
        self._held: list[pa.Table] = []
        self.added: list[AddAction] = []

    def write(self, rows: pa.Table) -> None:
        """Take rows in any order."""
        self._held.append(rows)
        if sum(table.nbytes for table in self._held) > HELD_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        held, self._held = self._held, []
        if not held:
            return
        rows = in_order(pa.concat_tables(held), self._instant)
        counts = rows[DATE].combine_chunks().value_counts().to_pylist()
        dates = {count["values"]: count["counts"] for count in sorted(counts, key=lambda count: str(count["values"]))}
        firsts = np.cumsum([0, *dates.values()]).tolist()
        parts = [rows.slice(first, size) for first, size in zip(firsts, dates.values(), strict=False)]
        with ThreadPoolExecutor(WRITERS) as pool:
            self.added += pool.map(self._write_date, dates, parts)

    def _write_date(self, date: str, rows: pa.Table) -> AddAction:
        rows = rows.drop_columns(DATE)
        sink = pa.BufferOutputStream()
        pq.write_table(rows, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
        data = sink.getvalue().to_pybytes()
        path = f"{DATE}={date}/part-{uuid.uuid4()}.zstd.parquet"
        with self._location.reached(f"writing {self._path}"):
            stream = self._files.open_output_stream(path)
            stream.write(data)
            stream.close()
        now_ms = time.time_ns() // 1_000_000
        return AddAction(path, len(data), {DATE: date}, now_ms, True, json.dumps(self._statistics_of(rows)))

    def _statistics_of(self, rows: pa.Table) -> dict[str, Any]:
        """What readers skip files by; instants are cut off to milliseconds, and readers add one to the largest."""
        found = {name: pc.min_max(rows[name]).as_py() for name in self._statistics}
        return {
            "numRecords": len(rows),
            "minValues": {name: _plain(edge["min"]) for name, edge in found.items() if edge["min"] is not None},
            "maxValues": {name: _plain(edge["max"]) for name, edge in found.items() if edge["max"] is not None},
            "nullCount": {name: rows[name].null_count for name in found},
        }


def in_order(rows: pa.Table, instant: str) -> pa.Table:
    """The rows by an instant; those of one instant stay in the order that they have."""
    values = np.asarray(rows[instant].cast(pa.int64()))
    return rows if (values[1:] >= values[:-1]).all() else rows.take(pa.array(np.argsort(values, kind="stable")))


def _plain(value: Any) -> Any:
    if isinstance(value, int):
        return value
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
