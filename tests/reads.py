"""What is read of the files of tables, counted where it is read: on a folder and on S3."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pytest
from deltalake.fs import DeltaStorageHandler

from forebay.offline import clustering


class _Counted:
    """A file that notes how much of it is read."""

    def __init__(self, path: str, file: pa.NativeFile, found: Counter[str]) -> None:
        self.path, self.file, self.found = path, file, found
        self.closed = False

    def read(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        self.found[self.path] += len(data)
        return data

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def counted(patch: pytest.MonkeyPatch) -> Counter[str]:
    """The bytes that are read of each file of a table, from now on.

    Also of a folder by deltalake's files, whose reads can be seen.
    """
    found: Counter[str] = Counter()

    def open_counted(handler: DeltaStorageHandler, path: str) -> pa.PythonFile:
        return pa.PythonFile(_Counted(path, handler._handler.open_input_file(path), found), mode="r")

    patch.setattr(DeltaStorageHandler, "open_input_file", open_counted)
    patch.setattr(clustering, "_files_here", lambda snapshot: None)
    return found
