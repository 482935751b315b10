"""`training/<service>@<v>`: the training set of a service that an asset built, replaced as a whole; and any other Delta
table that a training set is written to.

Its columns are the spine's and the service's, so the table takes whatever schema it is given; older versions stay
readable by Delta's time travel until they are vacuumed.

    pieces  →  row groups of a file in memory  →  the next file, once it is large  →  one commit that names all files

Invariant: a piece and a file are in memory, and nothing else. Deltalake's own writer has some ten pieces wait for it.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema, write_deltalake
from deltalake._internal import DeltaFileSystemHandler  # the streams of the public handler take no bytes
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction, create_table_with_add_actions

from forebay.errors import RequestError
from forebay.language.service import FeatureService
from forebay.offline.data_files import ROW_GROUP_ROWS
from forebay.offline.location import Location

FILE_BYTES, FILE_BYTES_MIN = 32 * 2**20, 2**20
"""Size of its files: one is held in memory until it is written, so that with little memory they are smaller."""


class TrainingTable:
    """The stored training set of one service."""

    def __init__(self, location: Location, service: FeatureService) -> None:
        self._location, self._path = location, f"training/{service.key}"

    def claimed(self) -> str:
        """Where `FeatureStore.write_historical_features` is to write it, in a store that is of this namespace."""
        self._location.owner.claim()
        return self._location.at(self._path)

    def read(self) -> pa.Table:
        """All of it."""
        with self._location.reached(f"reading {self._path}"):
            snapshot = DeltaTable(self._location.at(self._path), storage_options=dict(self._location.options))
            return snapshot.to_pyarrow_table()


def write_delta(
    location: Location, schema: pa.Schema, pieces: Iterable[pa.Table], file_bytes: int = FILE_BYTES
) -> None:
    """Replace a Delta table by rows, piece by piece, in one commit.

    A file is written once it has `file_bytes` or 32 MB; where it cannot be done, what was written is removed. Raises
    `RequestError` for values that Delta's types do not hold.
    """
    with location.reached(f"writing {location.url}"):
        declared, before = _delta_schema(schema), _before(location)
        files = _Files(location, pa.schema(declared), min(FILE_BYTES, max(FILE_BYTES_MIN, file_bytes)))
        try:
            for piece in pieces:
                files.add(piece)
            files.finish()
            options = dict(location.options)
            create_table_with_add_actions(
                location.url, declared, files.added, mode="overwrite", storage_options=options, **before
            )
        except BaseException:
            files.remove()
            raise


class _Files:
    """Parquet files in the folder of a table, of which one is in memory until it is large."""

    def __init__(self, location: Location, schema: pa.Schema, file_bytes: int) -> None:
        if not location.options:
            Path(location.url).mkdir(parents=True, exist_ok=True)
        self._files: Any = DeltaFileSystemHandler(location.url, dict(location.options))  # its stub lacks close
        self._schema, self._file_bytes = schema, file_bytes
        self.added: list[AddAction] = []
        self._begin()

    def add(self, rows: pa.Table) -> None:
        """Rows, in the types of the table."""
        for first in range(0, len(rows), ROW_GROUP_ROWS):
            self._writer.write_table(_cast(rows.slice(first, ROW_GROUP_ROWS), self._schema))
            self._rows += min(ROW_GROUP_ROWS, len(rows) - first)
            if self._sink.tell() >= self._file_bytes:
                self.finish()
                self._begin()

    def finish(self) -> None:
        """Write what is in memory."""
        self._writer.close()
        if not self._rows:
            return
        data, path = self._sink.getvalue(), f"part-{uuid.uuid4()}.zstd.parquet"
        stream = self._files.open_output_stream(path)
        stream.write(data.to_pybytes())
        stream.close()
        statistics = json.dumps({"numRecords": self._rows})
        self.added.append(AddAction(path, data.size, {}, time.time_ns() // 1_000_000, True, statistics))

    def remove(self) -> None:
        """Take back what was written."""
        for one in self.added:
            self._files.delete_file(one.path)

    def _begin(self) -> None:
        self._sink, self._rows = pa.BufferOutputStream(), 0
        self._writer = pq.ParquetWriter(self._sink, self._schema, compression="zstd")


def _delta_schema(schema: pa.Schema) -> Schema:
    """The types that deltalake stores columns in: it has no unsigned integers, and instants to the microsecond."""
    with tempfile.TemporaryDirectory(prefix="forebay-schema-") as folder:
        write_deltalake(folder, schema.empty_table())
        return DeltaTable(folder).schema()


def _before(location: Location) -> dict[str, Any]:
    """What somebody has said of the table that is replaced."""
    try:
        metadata = DeltaTable(location.url, storage_options=dict(location.options)).metadata()
    except TableNotFoundError:
        return {}
    return {"name": metadata.name, "description": metadata.description, "configuration": metadata.configuration}


def _cast(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = []
    for field, column in zip(schema, rows.columns, strict=True):
        try:
            columns.append(column.cast(field.type, safe=not pa.types.is_timestamp(field.type)))
        except pa.ArrowInvalid as error:
            raise RequestError(
                f"Column {field.name!r} ({column.type}) cannot be written to a Delta table, which has it as "
                f"{field.type}: {error}; give it another type, or write a file"
            ) from None
    return pa.table(columns, schema=schema)
