"""All positions that a Delta table remembers: the newest `Transaction(app_id, version)` of every app_id.

deltalake answers for one app_id that is known; who resumes must ask which there are. They lie in the table's log: in
the last checkpoint, and in the commits after it (https://github.com/delta-io/delta/blob/master/PROTOCOL.md,
"Transaction Identifiers").
"""

from __future__ import annotations

from typing import Any

import msgspec
import pyarrow.fs
import pyarrow.parquet as pq

LOG = "_delta_log"


class _Transaction(msgspec.Struct, rename="camel"):
    app_id: str
    version: int


class _Action(msgspec.Struct):
    txn: _Transaction | None = None


class _Checkpoint(msgspec.Struct):
    version: int


_DECODE_ACTION = msgspec.json.Decoder(_Action).decode
_DECODE_CHECKPOINT = msgspec.json.Decoder(_Checkpoint).decode


def read_transactions(files: Any, until: int | None = None) -> dict[str, int]:
    """The newest version of every app_id of the table at the root of `files`, as of one of its own versions (`None`:
    the last). Raises `FileNotFoundError` where the commits before that one were summed up in a later checkpoint.
    """
    found: dict[str, int] = {}
    infos = files.get_file_info(pyarrow.fs.FileSelector(LOG))
    names = sorted(info.path.rsplit("/", 1)[-1] for info in infos)
    since = -1
    if "_last_checkpoint" in names:
        since = _DECODE_CHECKPOINT(_bytes(files, "_last_checkpoint")).version
    if until is not None and since > until:
        raise FileNotFoundError(f"The last checkpoint is of version {since}, after {until}")
    for name in names:
        if name.startswith(f"{since:020}.checkpoint") and name.endswith(".parquet"):
            found |= _of_checkpoint(files, name)
    for name in names:
        number = int(name[:20]) if name.endswith(".json") and name[:20].isdigit() else since
        if number > since and (until is None or number <= until):
            found |= _of_commit(_bytes(files, name))
    return found


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
