"""Training sets as Delta tables: what deltalake itself would have stored, in one commit or not at all."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from forebay.errors import RequestError
from forebay.offline.location import Location
from forebay.offline.training_table import FILE_BYTES_MIN, write_delta

UTC = pa.timestamp("us", "UTC")
ODD = pa.table(
    {
        "small": pa.array([1, None], pa.uint8()),
        "large": pa.array([2, 2**62], pa.uint64()),
        "fine": pa.array([10**9 + 1, None], pa.timestamp("ns", "UTC")),
        "naive": pa.array([1, 2], pa.timestamp("us")),
        "there": pa.array([1, 2], pa.timestamp("us", "Europe/Berlin")),
        "long": pa.array(["q", None], pa.large_string()),
        "raw": pa.array([b"1", b"2"], pa.binary(1)),
        "day": pa.array([datetime.date(2024, 1, 1), None]),
        "pair": pa.array([{"a": 1}, None]),
        "list": pa.array([[1.0], []]),
        "exact": pa.array([1, None], pa.decimal128(18, 2)),
        "single": pa.array([1.5, None], pa.float32()),
    }
)


def stored(location: Location) -> DeltaTable:
    return DeltaTable(location.url, storage_options=dict(location.options))


def test_columns_of_any_type_are_stored_as_deltalake_stores_them(offline_url: str, tmp_path: Path) -> None:
    location = Location.of(f"{offline_url}/sets/odd")
    write_delta(location, ODD.schema, [ODD.slice(0, 1), ODD.slice(1), ODD.slice(2)])
    write_deltalake(tmp_path / "deltalake", ODD)
    expected = DeltaTable(tmp_path / "deltalake").to_pyarrow_table()
    assert stored(location).to_pyarrow_table().equals(expected)


def test_a_set_of_other_columns_replaces_it_in_one_commit_and_what_was_said_of_it_stays(offline_url: str) -> None:
    location, rows = Location.of(f"{offline_url}/sets/one"), pa.table({"a": [1, 2]})
    write_delta(location, rows.schema, [rows, rows])
    stored(location).alter.set_table_properties({"delta.logRetentionDuration": "interval 9 days"})
    other = pa.table({"b": ["x"], "at": pa.array([3], UTC)})
    write_delta(location, other.schema, [other])
    table = stored(location)
    assert table.to_pyarrow_table().equals(other)
    assert table.metadata().configuration == {"delta.logRetentionDuration": "interval 9 days"}
    assert [commit["version"] for commit in table.history()] == [2, 1, 0]
    table.load_as_version(0)
    assert table.to_pyarrow_table()["a"].to_pylist() == [1, 2, 1, 2], "who reads the one before goes on"


def test_a_set_without_rows_is_a_table(offline_url: str) -> None:
    location = Location.of(f"{offline_url}/sets/none")
    write_delta(location, ODD.schema, [ODD.slice(0, 0)])
    assert stored(location).to_pyarrow_table().num_rows == 0
    assert stored(location).schema().fields[0].name == "small"


def test_a_set_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    location, first = Location.of(str(tmp_path / "sets")), pa.table({"small": pa.array([7], pa.uint8())})
    large = pa.table({"small": pa.array([200] * 2**21, pa.uint8()).cast(pa.int64())})

    def failing() -> Iterator[pa.Table]:
        yield pa.table({"small": pa.array(range(FILE_BYTES_MIN), pa.int64())})
        raise KeyError

    with pytest.raises(KeyError):
        write_delta(location, large.schema, failing(), 0)
    assert list(tmp_path.glob("sets/*")) == [], "a new place is as new as before"
    write_delta(location, first.schema, [first])
    with pytest.raises(KeyError):
        write_delta(location, large.schema, failing(), 0)
    with pytest.raises(RequestError, match=r"'small' \(uint8\) cannot be written to a Delta table, .* as int8"):
        write_delta(location, first.schema, [pa.table({"small": pa.array([200], pa.uint8())})])
    assert stored(location).to_pyarrow_table()["small"].to_pylist() == [7]
    assert len([*tmp_path.glob("sets/*.parquet")]) == 1


def test_files_are_as_large_as_may_be_held(tmp_path: Path) -> None:
    location = Location.of(str(tmp_path / "sets"))
    rows = [pa.table({"n": pa.array(range(n, n + 200_000), pa.int64())}) for n in range(0, 2_000_000, 200_000)]
    write_delta(location, rows[0].schema, rows, FILE_BYTES_MIN)
    files = [*tmp_path.glob("sets/*.parquet")]
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 3 * FILE_BYTES_MIN
    counts = pa.table(stored(location).get_add_actions(flatten=True))["num_records"]
    assert sum(counts.to_pylist()) == 2_000_000, "who counts by the log alone is right"
    assert sorted(stored(location).to_pyarrow_table()["n"].to_pylist()) == list(range(2_000_000))
