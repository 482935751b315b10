"""Batch rows, dead letters and repair marks on a folder and on S3."""

from __future__ import annotations

import decimal
from typing import Any

import pyarrow as pa
import pytest

from forebay import Decimal, Entity, EventSource, Feature, Int64, String, Timestamp, batch_view
from forebay.errors import RequestError
from forebay.ingest.batch import DeadLetter
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.offline.tables import OfflineStore

START_US = day_us("2024-01-01")
INSTANT = pa.timestamp("us", "UTC")
SOURCE = EventSource(
    "s", schema={"event_id": String, "u": String, "ts": Timestamp}, timestamp="ts", event_id="event_id"
)


@batch_view(
    entity=Entity("user", keys={"u": String}),
    version=1,
    sources=[SOURCE],
    partitions="hourly",
    features=[Feature("score", Int64, default=0), Feature("amount", Decimal(2), default=0)],
)
def hourly(context: Any, s: Any) -> Any:
    return s


def rows(hours: range, score: int, created_us: int = START_US) -> pa.Table:
    """One row per partition, dated at its end."""
    return pa.table(
        {
            "u": pa.array([f"u{h % 3}" for h in hours], pa.string()),
            "score": pa.array([score] * len(hours), pa.int64()),
            "amount": pa.array([decimal.Decimal("1.25")] * len(hours), pa.decimal128(38, 2)),
            "event_timestamp": pa.array([START_US + (h + 1) * HOUR_US for h in hours], INSTANT),
            "created_timestamp": pa.array([created_us] * len(hours), INSTANT),
            "partition_start": pa.array([START_US + h * HOUR_US for h in hours], INSTANT),
        }
    )


def scores(table: Any) -> list[int]:
    return table.scan().sort_by("partition_start")["score"].to_pylist()


def test_partitions_are_replaced_whatever_their_rows_are_dated(offline_url: str) -> None:
    table = OfflineStore(offline_url).rows(hourly)
    assert table.scan().num_rows == 0
    assert table.scan().schema.equals(table.table.schema)
    table.overwrite(START_US, START_US + 2 * DAY_US, rows(range(48), 1))
    assert scores(table) == [1] * 48

    table.overwrite(START_US + 23 * HOUR_US, START_US + 25 * HOUR_US, rows(range(23, 25), 2))
    assert scores(table) == [1] * 23 + [2] * 2 + [1] * 23
    table.overwrite(START_US + 5 * HOUR_US, START_US + 6 * HOUR_US, rows(range(0), 3))
    assert scores(table) == [1] * 22 + [2] * 2 + [1] * 23
    table.overwrite(START_US + DAY_US, START_US + 2 * DAY_US, rows(range(30, 32), 4))
    assert scores(table) == [1] * 22 + [2] + [4] * 2

    some = table.scan(["u", "score"], START_US + HOUR_US, START_US + 3 * HOUR_US)
    assert some.column_names == ["u", "score"]
    assert some.num_rows == 2
    assert table.scan()["amount"].to_pylist()[0] == decimal.Decimal("1.25")


def test_rows_outside_of_the_range_are_refused(tmp_path: Any) -> None:
    table = OfflineStore(str(tmp_path)).rows(hourly)
    with pytest.raises(RequestError, match="outside"):
        table.overwrite(START_US, START_US + HOUR_US, rows(range(2), 1))
    with pytest.raises(RequestError, match="lack partition_start"):
        table.overwrite(START_US, START_US + HOUR_US, rows(range(1), 1).drop_columns("partition_start"))


def letter(offset: int, partition: str = "p") -> DeadLetter:
    return DeadLetter("s", partition, offset, "malformed", "not JSON", b"\xff{", 2)


def test_dead_letters_are_there_once(offline_url: str) -> None:
    letters = OfflineStore(offline_url).dead_letters()
    assert letters.scan().num_rows == 0
    assert letters.append([letter(3), letter(7)], START_US, {"s/p": 10}) == 2
    assert letters.position("s/p") == 10

    again = OfflineStore(offline_url).dead_letters()
    assert again.append([letter(7), letter(9)], START_US) == 0
    assert again.append([letter(9), letter(12), letter(0, "q")], START_US + 1) == 2
    assert again.append([], START_US) == 0
    assert again.scan("s")["source_offset"].to_pylist() == [12, 0, 7, 3]
    assert again.scan("other").num_rows == 0
    assert set(again.scan()["raw"].to_pylist()) == {b"\xff{"}
    assert again.position("s/p") == 13


def test_repairs_are_kept(offline_url: str) -> None:
    repairs = OfflineStore(offline_url).repairs()
    repairs.append([], START_US)
    repairs.append([("s", "2024-01-01", "late"), ("s", "2024-01-02", "late")], START_US)
    repairs.append([("t", "2024-01-01", "late")], START_US + 1)
    assert repairs.scan("s")["day"].to_pylist() == ["2024-01-01", "2024-01-02"]
    assert repairs.scan().num_rows == 3
