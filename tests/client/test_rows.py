"""Rows of batch views: the newest of each entity, defaults and TTL, and how columns are stored."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from forebay import BatchView, Bool, Decimal, Entity, Feature, Float64, Int64, String, TableSource, Timestamp
from forebay.core.asof import AsOf
from forebay.core.events import Column, is_unused
from forebay.core.places import Places
from forebay.core.rows import REMEMBERED_US, Rows, finish_rows, finish_texts, newest, stored
from forebay.core.values import NO_INSTANT, Status
from forebay.online.expiry import lifetimes_s

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


@given(st.lists(ROW, max_size=12, unique_by=lambda row: row))
def test_the_newest_row_is_published(rows: list[tuple[str, int, int]]) -> None:
    have = Rows.of(VIEW, table(rows))
    for key, row in zip(have.keys.to_pylist(), newest(have).tolist(), strict=True):
        assert rows[row] == max(row for row in rows if row[0] == key)


def test_a_row_holds_from_its_very_instant_and_expires_after_its_ttl() -> None:
    #        7 s               8 s
    #   ──────[────── ttl ──────]──
    us = np.array([6_999_999, 7_000_000, 8_000_000, 8_000_001])
    asked = AsOf(Places(np.zeros(4, np.int64), us))
    asked.offer(*(np.array([n]) for n in (0, 7_000_000, 7_000_000, 0, 0)))
    found, event_us = asked.holding()
    columns = {name: Column(np.full(4, 5), found >= 0) for name in ("score", "rank")}
    score, rank = finish_rows(VIEW, columns, event_us, us)
    missing, expired, present = Status.DEFAULT_MISSING, Status.DEFAULT_EXPIRED, Status.PRESENT
    assert score.status.tolist() == rank.status.tolist() == [missing, present, present, expired]
    assert score.to_python() == [-1, 5, 5, -1]
    assert rank.to_python() == [None, 5, 5, None]
    assert score.event_us.tolist() == [NO_INSTANT, 7_000_000, 7_000_000, 7_000_000]
    for some in (slice(None), slice(1, 3)):
        given = {name: Column(column.values[some], column.valid[some]) for name, column in columns.items()}
        bare = finish_rows(VIEW, given, event_us[some], us[some], bare=True)
        assert [column.to_python() for column in bare] == [[-1, 5, 5, -1][some], [None, 5, 5, None][some]]
        assert all(is_unused(column.status) and is_unused(column.event_us) for column in bare)


def test_bare_texts_are_what_texts_are() -> None:
    view = BatchView(
        name="people",
        version=1,
        entity=VIEW.entity,
        sources=VIEW.sources,
        history_start="2013-01-01",
        ttl="1s",
        features=[Feature("name", String, default="nobody"), Feature("city", String(max_bytes=4), default=None)],
    )
    event_us = np.array([NO_INSTANT, 0, 0, 0, 0])
    us = np.array([5, TTL_US, TTL_US + 1, TTL_US, TTL_US + REMEMBERED_US + 1])
    texts = {"name": pa.array([None, "ann", "bob", None, "eve"]), "city": pa.array([None, "JFK", "LGA", "", "EWR"])}
    columns = {name: stored(array, view.outputs()[name].type) for name, array in texts.items()}
    whole = finish_rows(view, columns, event_us, us)
    bare = finish_texts(view, texts, event_us, us)
    assert [column.to_arrow().to_pylist() for column in bare] == [column.to_python() for column in whole]
    assert bare[0].to_arrow().to_pylist() == ["nobody", "ann", "nobody", "nobody", "nobody"]
    assert bare[1].take(np.array([1, 1, 0])).to_arrow().to_pylist() == ["JFK", "JFK", None]
    assert bare[1].to_arrow().type == whole[1].to_arrow().type == pa.string()


def test_an_expired_row_is_forgotten_in_every_path_before_the_online_store_may_drop_it() -> None:
    #   ──────[── ttl ──)──────── REMEMBERED ────────]── missing ──────▶ 1 h later its key may go
    us = TTL_US + np.array([0, 1, REMEMBERED_US, REMEMBERED_US + 1])
    columns = {name: Column(np.full(4, 5), np.ones(4, np.bool_)) for name in ("score", "rank")}
    score, _ = finish_rows(VIEW, columns, np.zeros(4, np.int64), us)
    missing, expired, present = Status.DEFAULT_MISSING, Status.DEFAULT_EXPIRED, Status.PRESENT
    assert score.status.tolist() == [present, expired, expired, missing]
    assert score.event_us.tolist() == [0, 0, 0, NO_INSTANT]
    (lifetime_s,) = lifetimes_s(VIEW, np.zeros(1, np.int64), now_us=7) or [0]
    assert lifetime_s * 1_000_000 > TTL_US + REMEMBERED_US


def test_rows_with_a_null_key_are_left_out() -> None:
    rows = table([("a", 1, 0), ("b", 1, 0)]).set_column(0, "user_id", pa.array([None, "b"]))
    assert Rows.of(VIEW, rows).keys.to_pylist() == ["b"]


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
