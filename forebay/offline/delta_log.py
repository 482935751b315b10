"""All positions that a Delta table remembers: the newest `Transaction(app_id, version)` of every app_id.

deltalake answers for one app_id that is known; who resumes must ask which there are. They lie in the table's log: in
the last checkpoint, and in the commits after it (https://github.com/delta-io/delta/blob/master/PROTOCOL.md,
"Transaction Identifiers"). Files are opened by their names and never listed: a log may have a million.
"""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pyarrow.parquet as pq

LOG = "_delta_log"


class _Transaction(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _Action(msgspec.Struct):
    txn: _Transaction | None = None


class _Checkpoint(msgspec.Struct):
    version: int
    parts: int | None = None

    def files(self) -> list[str]:
        """The names of its files."""
        if self.version < 0:
            return []
        name = f"{self.version:020}.checkpoint"
        parts = self.parts or 0
        return [f"{name}.{n:010}.{parts:010}.parquet" for n in range(1, parts + 1)] or [f"{name}.parquet"]


_DECODE_ACTION = msgspec.json.Decoder(_Action).decode
_DECODE_CHECKPOINT = msgspec.json.Decoder(_Checkpoint).decode


def read_transactions(files: Any, until: int | None = None) -> dict[str, int]:
    """The newest version of every app_id of the table at the root of `files`, as of one of its own versions (`None`:
    the last). Raises `FileNotFoundError` where the commits before that one were summed up in a later checkpoint.
    """
    found: dict[str, int] = {}
    last = _last_checkpoint(files)
    if until is not None and last.version > until:
        raise FileNotFoundError(f"The last checkpoint is of version {last.version}, after {until}")
    for name in last.files():
        found |= _of_checkpoint(files, name)
    for number in itertools.count(last.version + 1) if until is None else range(last.version + 1, until + 1):
        try:
            found |= transactions_of(files, number)
        except FileNotFoundError:
            if until is not None:
                raise
            break
    return found


def _last_checkpoint(files: Any) -> _Checkpoint:
    """The last checkpoint of a table; of version -1 where there is none yet."""
    try:
        return _DECODE_CHECKPOINT(_bytes(files, "_last_checkpoint"))
    except FileNotFoundError:
        return _Checkpoint(-1)


def transactions_of(files: Any, version: int) -> dict[str, int]:
    """The app_ids that one commit moved, and where to. Raises `FileNotFoundError` where its file is gone."""
    return _of_commit(_bytes(files, f"{version:020}.json"))


def _bytes(files: Any, name: str) -> bytes:
    with files.open_input_stream(f"{LOG}/{name}") as stream:
        data: bytes = stream.read()
    return data


def _of_commit(data: bytes) -> dict[str, int]:
    lines = (line for line in data.split(b"\n") if b'"txn"' in line)
    actions = map(_DECODE_ACTION, lines)
    return {action.txn.app_id: action.txn.version for action in actions if action.txn is not None}


def _of_checkpoint(files: Any, name: str) -> dict[str, int]:
    with files.open_input_file(f"{LOG}/{name}") as file:
        parquet = pq.ParquetFile(file)
        if "txn" not in parquet.schema_arrow.names:
            return {}
        rows = parquet.read(columns=["txn.appId", "txn.version"])["txn"].drop_null().to_pylist()
    return {row["appId"]: row["version"] for row in rows if row["appId"] is not None}
