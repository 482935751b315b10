"""Files at the edge of the client: written whole or not at all, and refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from forebay.calls.files import read_file, write_file
from forebay.errors import RequestError

TABLE = pa.table({"user": ["ann", None], "count": [1, 2]})


@pytest.mark.parametrize("kind", [".parquet", ".csv", ".ndjson"])
def test_what_is_written_is_read_again_and_nothing_else_is_left(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "new" / f"rows{kind}"
    write_file(TABLE, path)
    assert read_file(path, "rows")["count"].to_pylist() == [1, 2]
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"rows\.csv' cannot be written: .*; name another file"):
        write_file(TABLE, tmp_path / "file" / "rows.csv")
