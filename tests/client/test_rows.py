"""Batch rows as of an instant: against a loop that reads as the law does."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from forebay import BatchView, Bool, Decimal, Entity, Feature, Float64, Int64, String, TableSource, Timestamp
from forebay.core.rows import Rows, batch_answer, stored
from forebay.core.values import NO_INSTANT, Status

TTL_US = 1_000_000
VIEW = BatchView(
    name="scores",
    version=1,
    entity=Entity("user", keys={"user_id": String}),
    sources=[TableSource("t", schema={"user_id": String, "at": Timestamp}, effective="at", path="x")],
    history_start="2013-01-01",
    ttl="1s",
    features=[Feature("score", Int64, default=-1), Feature("rank", Int64, default=None)],
)
INSTANT = pa.timestamp("us", "UTC")
ROW = st.tuples(st.sampled_from("abc"), st.integers(0, 4).map(lambda n: n * 700_000), st.integers(0, 10**6))


def table(rows: list[tuple[str, int, int]]) -> pa.Table:
    users, event_us, created_us = (list(column) for column in zip(*rows, strict=True)) if rows else ([], [], [])
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "score": pa.array(range(len(rows)), pa.int64()),
            "rank": pa.nulls(len(rows), pa.int64()),
            "event_timestamp": pa.array(event_us, INSTANT),
            "created_timestamp": pa.array(created_us, INSTANT),
        }
    )


def expected(rows: list[tuple[str, int, int]], user: str, instant_us: int) -> tuple[int, Status]:
    """The newest event_timestamp ≤ T and, of equal ones, the latest created_timestamp; then the TTL."""
    held = [(event, created, i) for i, (u, event, created) in enumerate(rows) if u == user and event <= instant_us]
    if not held:
        return -1, Status.DEFAULT_MISSING
    event_us, _, row = max(held)
    return (-1, Status.DEFAULT_EXPIRED) if instant_us - event_us > TTL_US else (row, Status.PRESENT)


@given(
    st.lists(ROW, max_size=12, unique_by=lambda row: row),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-1, 4_000_000)), max_size=12),
)
def test_as_of_is_the_loop(rows: list[tuple[str, int, int]], asked: list[tuple[str, int]]) -> None:
    have = Rows.of(VIEW, table(rows))
    code = np.array([have.keys.index(user) if user in have.keys else -1 for user, _ in asked], np.int64)
    us = np.array([us for _, us in asked], np.int64)
    score, rank = batch_answer(VIEW, have, code, us)
    want = [expected(rows, user, at) for user, at in asked]
    assert list(zip(score.to_python(), score.status.tolist(), strict=True)) == want
    assert rank.to_python() == [None] * len(asked)
    for (_, at), column_us, (_, status) in zip(asked, score.event_us.tolist(), want, strict=True):
        assert column_us == NO_INSTANT if status == Status.DEFAULT_MISSING else 0 <= column_us <= at


def test_a_row_holds_from_its_very_instant_and_expires_after_its_ttl() -> None:
    #        7 s               8 s
    #   ──────[────── ttl ──────]──
    have = Rows.of(VIEW, table([("a", 7_000_000, 0)]))
    us = np.array([6_999_999, 7_000_000, 8_000_000, 8_000_001])
    score, _ = batch_answer(VIEW, have, np.zeros(4, np.int64), us)
    assert [Status(status).name for status in score.status] == [
        "DEFAULT_MISSING",
        "PRESENT",
        "PRESENT",
        "DEFAULT_EXPIRED",
    ]


def test_rows_with_a_null_key_are_left_out() -> None:
    rows = table([("a", 1, 0), ("b", 1, 0)]).set_column(0, "user_id", pa.array([None, "b"]))
    assert Rows.of(VIEW, rows).keys == ["b"]


def test_stored_columns_are_units_and_a_mask_whatever_slice_or_chunk_they_come_in() -> None:
    cases: list[tuple[Any, pa.Array, list[Any]]] = [
        (Int64, pa.array([9, 1, None, 3]), [1, 0, 3]),
        (Bool, pa.array([True, True, None, False]), [True, False, False]),
        (Float64, pa.array([9.0, 1.5, float("nan"), 2.0]), [1.5, 0.0, 2.0]),
        (
            Decimal(2),
            pa.array([decimal.Decimal(9), decimal.Decimal("-1.25"), None, decimal.Decimal("3")]),
            [-125, 0, 300],
        ),
        (Timestamp, pa.array([9, 1, None, 3], INSTANT), [1, 0, 3]),
        (String(max_bytes=4), pa.array(["x", "é", None, "b"]), ["é".encode(), b"", b"b"]),
    ]
    for kind, array, want in cases:
        for column in (array.slice(1), pa.chunked_array([array.slice(1, 1), array.slice(2)])):
            got = stored(column, kind)
            assert got.values.tolist() == want, kind
            assert got.valid.tolist() == [True, False, True], kind
