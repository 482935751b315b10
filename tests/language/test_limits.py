"""How large numbers may be that are summed."""

from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from forebay import (
    Count,
    DecayedSum,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Float64,
    Int64,
    Max,
    Mean,
    StdDev,
    String,
    Sum,
    Timestamp,
    Variance,
    WindowedView,
)
from forebay.algebra.int128 import EVENTS_MAX, VARIANCE_UNITS_MAX
from forebay.algebra.partials import FLOAT_MOMENTS_MAX, FLOAT_SUM_MAX
from forebay.core.answer import answer
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge, roll_up
from forebay.core.values import Status
from forebay.ingest.arrow import conform
from forebay.ingest.json import decode_json
from forebay.ingest.select import Selector
from forebay.language.definitions import Definitions
from forebay.language.limits import limits_of

NOW_US = 1_700_000_000_000_000
USER = Entity("user", keys={"user_id": String})
SOURCE = EventSource(
    "readings",
    schema={
        "event_id": String,
        "user_id": String,
        "ts": Timestamp,
        "amount": Decimal(2),
        "pieces": Int64,
        "weight": Float64,
        "length": Float64,
    },
    timestamp="ts",
    event_id="event_id",
    history_start="2023-01-01",
)


def view(*features: Any, version: int = 1, **others: Any) -> WindowedView:
    """A view of these features."""
    return WindowedView("sums", version=version, entity=USER, source=SOURCE, features=list(features), **others)


def of(kind: Any, column: str, **others: Any) -> Any:
    """An aggregation of a column over an hour."""
    return kind(f"{kind.__name__.lower()}_{column}", of=column, windows=["1h"], default=0, **others)


def line(**values: Any) -> bytes:
    """An event with these values."""
    return json.dumps({"event_id": "a", "user_id": "ann", "ts": NOW_US, **values}).encode()


def test_what_overflows_nothing_has_no_limit() -> None:
    assert (
        limits_of(view(of(Sum, "amount"), of(Mean, "pieces"), of(Max, "weight"), Count("n", windows=["1h"], default=0)))
        == {}
    )
    assert limits_of(view(of(DecayedSum, "amount", half_life="1h"))) == {}


def test_the_least_limit_holds_for_a_column_of_a_view_and_of_all_views_of_a_source() -> None:
    sums = view(of(Sum, "weight"), of(Mean, "weight"), of(DecayedSum, "length", half_life="1h"))
    spread = view(of(StdDev, "weight"), of(Sum, "weight"), of(Variance, "amount"), version=2)
    assert limits_of(sums) == {"weight": FLOAT_SUM_MAX, "length": FLOAT_SUM_MAX}
    assert limits_of(spread) == {"weight": FLOAT_MOMENTS_MAX, "amount": VARIANCE_UNITS_MAX}
    assert Definitions.of(sums, spread).limits("readings") == {
        "weight": FLOAT_MOMENTS_MAX,
        "length": FLOAT_SUM_MAX,
        "amount": VARIANCE_UNITS_MAX,
    }


def test_as_many_as_may_be_summed_do_not_overflow_at_the_limits() -> None:
    assert np.isfinite(FLOAT_SUM_MAX * EVENTS_MAX)
    assert np.isfinite((2 * FLOAT_MOMENTS_MAX) ** 2 * EVENTS_MAX)


@pytest.mark.parametrize("aggregation", [Sum, Mean, Variance, StdDev])
def test_whatever_the_order_a_sum_of_the_largest_is_a_value(aggregation: Any) -> None:
    one = view(of(aggregation, "weight"))
    [limit], layout, selector = limits_of(one).values(), Layout.of(one), Selector(one)
    lines = [line(weight=sign * limit, event_id=f"e{n}") for n, sign in enumerate([1, 1, 1, -1, -1, -1])]
    batch, dead = decode_json(SOURCE, "p", 0, lines, NOW_US, Definitions.of(one).limits(SOURCE))
    assert not dead
    events = selector.select(batch.table)
    answers = set()
    for order in itertools.permutations(range(len(lines))):
        tiles = Tiles.empty(layout)
        for row in order:  # each of them into what the ones before it came to
            both = Tiles.joined([tiles, roll_up(layout, fold(layout, events.take(np.array([row]))))])
            tiles = merge(layout, both.code, both.records, both.cells)
        [column] = answer(layout, tiles, np.array([NOW_US + 1]))
        assert column.status.tolist() == [Status.PRESENT]
        answers.add(column.values.item())
    expected = {Sum: 0.0, Mean: 0.0, Variance: limit * limit, StdDev: limit}[aggregation]
    assert all(abs(found - expected) <= 1e-9 * 6 * max(limit, expected) for found in answers)


@pytest.mark.parametrize(
    ("column", "largest", "beyond", "limit"),
    [
        ("weight", FLOAT_MOMENTS_MAX, FLOAT_MOMENTS_MAX * 2, f"Float64 within ±{FLOAT_MOMENTS_MAX}"),
        ("weight", -FLOAT_MOMENTS_MAX, -1e200, f"Float64 within ±{FLOAT_MOMENTS_MAX}"),
        ("amount", 1407374883553.28, 1407374883553.29, "Decimal(2) within ±1407374883553.28"),
        ("pieces", 2**47, -(2**47) - 1, f"Int64 within ±{2**47}"),
    ],
)
def test_what_is_beyond_is_refused_and_told(column: str, largest: float, beyond: float, limit: str) -> None:
    limits = Definitions.of(view(of(Variance, column))).limits(SOURCE)
    batch, [letter] = decode_json(SOURCE, "p", 0, [line(**{column: largest}), line(**{column: beyond})], NOW_US, limits)
    assert (len(batch), letter.offset, letter.reason) == (1, 1, "too_large")
    assert letter.detail == f"{column!r} is {beyond!r}; expected {limit}, so that no sum of it overflows"
    loaded, [same] = conform(SOURCE, "p", 0, _table([{column: largest}, {column: beyond}]), NOW_US, limits)
    assert (len(loaded), same.reason) == (1, "too_large")
    free, none = decode_json(SOURCE, "p", 0, [line(**{column: beyond})], NOW_US, {})
    assert (len(free), none) == (1, [])


def test_what_a_view_derives_beyond_its_limit_is_null_and_so_is_what_was_archived_before_it_summed() -> None:
    lines = [line(weight=value) for value in (1e297, 1.1e297, 1e307)]
    batch, _ = decode_json(SOURCE, "p", 0, lines, NOW_US, {})
    [tenfold, plain] = (
        view(of(Sum, name), derived={"tenfold": Derived("weight * 10", Float64)}) for name in ("tenfold", "weight")
    )
    assert Selector(tenfold).select(batch.table).columns["tenfold"].valid.tolist() == [True, False, False]
    assert Selector(plain).select(batch.table).columns["weight"].valid.tolist() == [True, True, False]


def _table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.table(
        {
            "event_id": ["a"] * len(rows),
            "user_id": ["ann"] * len(rows),
            "ts": pa.array([NOW_US] * len(rows), pa.timestamp("us", "UTC")),
            **{name: [row[name] for row in rows] for name in rows[0]},
        }
    )
