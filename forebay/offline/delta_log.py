"""All positions that a Delta table remembers: the newest `Transaction(app_id, version)` of every app_id.

deltalake answers for one app_id that is known; who resumes must ask which there are. They lie in the table's log: in
the last checkpoint, and in the commits after it (https://github.com/delta-io/delta/blob/master/PROTOCOL.md,
"Transaction Identifiers"). Commits are read by their names, all at once, and not listed: a log may have a million,
and on S3 each one that is opened by deltalake's files holds up all threads of Python for a round trip.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec
import pyarrow.parquet as pq

from forebay.offline.location import Location

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


_CHECKPOINT = re.compile(r"/(?P<version>\d{20})\.checkpoint(\.\d{10}\.(?P<parts>\d{10}))?\.parquet$")
_NO_CHECKPOINT = _Checkpoint(-1)
_DECODE_ACTION = msgspec.json.Decoder(_Action).decode
_DECODE_CHECKPOINT = msgspec.json.Decoder(_Checkpoint).decode


@dataclass(frozen=True)
class DeltaLog:
    """The log of the table at a path of the offline store."""

    location: Location
    path: str

    def transactions(self, until: int) -> dict[str, int]:
        """The newest version of every app_id, as of one of the table's own versions.

        Raises `FileNotFoundError` where the commits before that one were summed up in a later checkpoint.
        """
        last = self._last_checkpoint() or self._listed_checkpoint(until)
        if last.version > until:
            raise FileNotFoundError(f"The last checkpoint is of version {last.version}, after {until}")
        try:
            return self._since(last, until)
        except FileNotFoundError:  # who wrote a later one died before it said so, and this one was removed since
            return self._since(self._listed_checkpoint(until), until)

    def _since(self, checkpoint: _Checkpoint, until: int) -> dict[str, int]:
        """What a checkpoint and the commits after it say."""
        found: dict[str, int] = {}
        for name in checkpoint.files():
            found |= self._of_checkpoint(name)
        return found | self.moved(range(checkpoint.version + 1, until + 1))

    def moved(self, commits: Iterable[int]) -> dict[str, int]:
        """The app_ids that some commits moved, and where to. Raises `FileNotFoundError` where a file is gone."""
        names = [f"{number:020}.json" for number in commits]
        found: dict[str, int] = {}
        for name, data in zip(names, self._read(names), strict=True):
            if data is None:
                raise FileNotFoundError(f"{self.path}/{LOG}/{name}")
            found |= _of_commit(data)
        return found

    def _last_checkpoint(self) -> _Checkpoint | None:
        """The last checkpoint, as is said; of version -1 where nothing is, and `None` where that is damaged."""
        (data,) = self._read(["_last_checkpoint"])
        if data is None:
            return _NO_CHECKPOINT
        try:
            return _DECODE_CHECKPOINT(data)
        except msgspec.DecodeError:  # a power cut may leave it empty; it is a hint
            return None

    def _listed_checkpoint(self, until: int) -> _Checkpoint:
        """The last checkpoint that there is up to a version, whether it is said or not; of version -1 where none is."""
        names = self.location.documents.names(f"{self.path}/{LOG}")
        found = [match for name in names if (match := _CHECKPOINT.search(name)) and int(match["version"]) <= until]
        if not found:
            return _NO_CHECKPOINT
        return _Checkpoint(int(found[-1]["version"]), int(found[-1]["parts"]) if found[-1]["parts"] else None)

    def _read(self, names: Iterable[str]) -> list[bytes | None]:
        return self.location.documents.read_all([f"{self.path}/{LOG}/{name}" for name in names])

    def _of_checkpoint(self, name: str) -> dict[str, int]:
        with self.location.files(self.path).open_input_file(f"{LOG}/{name}") as file:
            parquet = pq.ParquetFile(file)
            if "txn" not in parquet.schema_arrow.names:
                return {}
            rows = parquet.read(columns=["txn.appId", "txn.version"])["txn"].drop_null().to_pylist()
        return {row["appId"]: row["version"] for row in rows if row["appId"] is not None}


def _of_commit(data: bytes) -> dict[str, int]:
    lines = (line for line in data.split(b"\n") if b'"txn"' in line)
    actions = map(_DECODE_ACTION, lines)
    return {action.txn.app_id: action.txn.version for action in actions if action.txn is not None}
