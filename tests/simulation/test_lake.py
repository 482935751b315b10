"""The lake in memory keeps the promises of Delta that the simulation rests on: one suite for both."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from forebay.errors import FencedError
from forebay.offline.commit import Commit
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.stored_table import between_dates
from tests.simulation.lake import MemoryLake

SCHEMA = pa.schema([("n", pa.int64()), ("date", pa.string())])


@pytest.fixture(params=["memory", "delta"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Location:
    """Where tables are."""
    if request.param == "memory":
        MemoryLake().install(monkeypatch)
    return Location.of(str(tmp_path / "lake"))


def table(place: Location, path: str = "t") -> LakeTable:
    return LakeTable(place, path, SCHEMA, statistics=["n"])


def rows(*numbers: int) -> pa.Table:
    return pa.table({"n": numbers, "date": [f"2024-01-0{n}" for n in numbers]}, schema=SCHEMA)


def numbers(one: LakeTable) -> list[int]:
    return sorted(one.reading(["n"]).table()["n"].to_pylist())


def test_rows_and_positions_are_seen_by_every_object_of_a_table(place: Location) -> None:
    one, other = table(place), table(place)
    assert (other.positions(), other.position("p"), numbers(other), other.rows_by_date()) == ({}, None, [], {})
    assert one.append(lambda position: Commit(rows(1, 2), {"p": 5}))
    assert not one.append(lambda position: None)
    assert other.append(lambda position: Commit(rows(2), {"q": (position("p") or 0) + 1}))
    assert (one.positions(), numbers(one)) == ({"p": 5, "q": 6}, [1, 2, 2])
    assert dict(one.rows_by_date()) == {"2024-01-01": 1, "2024-01-02": 2}
    assert numbers(table(place, "another")) == []


def test_dates_are_replaced_with_their_positions(place: Location) -> None:
    one = table(place)
    one.append(lambda position: Commit(rows(1, 2, 3, 4), {"p": 5}))
    one.overwrite(between_dates("2024-01-02", "2024-01-03"), Commit(rows(3, 3), {"fold": 1}))
    assert (numbers(one), one.positions()) == ([1, 3, 3, 4], {"p": 5, "fold": 1})
    batches = pa.concat_tables(one.reading(["n"], pc.field("n") > 1).batches())
    assert sorted(batches["n"].to_pylist()) == [3, 3, 4]
    assert sorted(one.reading(["n"], pc.field("n") < 4).table()["n"].to_pylist()) == [1, 3, 3]


def test_a_table_that_was_taken_refuses_who_was_there_before(place: Location) -> None:
    first, second, other = table(place), table(place), table(place)
    first.take("flow", 1)
    second.take("flow", 2)
    with pytest.raises(FencedError):
        first.append(lambda position: Commit(rows(1)))
    second.append(lambda position: Commit(rows(2)))
    other.append(lambda position: Commit(rows(3)))
    assert (numbers(first), first.positions()["flow"]) == ([2, 3], 2)


def test_files_are_committed_together_once(place: Location) -> None:
    one = LakeTable(place, "t", pa.schema([("ts", pa.timestamp("us", "UTC")), ("date", pa.string())]), statistics=[])
    loaded = pa.table({"ts": pa.array([1, 2], pa.timestamp("us", "UTC")), "date": ["1970-01-01"] * 2})
    for expected in (True, False):
        files = one.files("ts")
        files.write(loaded)
        files.flush()
        assert one.append_files(files, {"load:1": 2}) is expected
    assert (len(one.reading(["ts"]).table()), one.positions()) == (2, {"load:1": 2})
