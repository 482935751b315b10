"""`where`, derived columns and keys: the same events of a view on every path; expressions see one event only."""

from __future__ import annotations

import decimal
import json
import random
import urllib.parse
from typing import Any

import numpy as np
import pytest

from forebay import (
    Bool,
    Count,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Float64,
    Int64,
    Last,
    Max,
    Min,
    String,
    Sum,
    Timestamp,
    Variance,
    WindowedView,
)
from forebay.errors import DefinitionError
from forebay.ingest.json import decode_json
from forebay.ingest.select import FEW, Selector, check_expressions
from forebay.instants import day_us

DAY = day_us("2024-01-01")
SOURCE = EventSource(
    "shop",
    schema={
        "event_id": String,
        "user_id": String,
        "shop": Int64,
        "event_type": String,
        "amount": Decimal(2),
        "quantity": Int64,
        "rate": Float64,
        "gift": Bool,
        "ts": Timestamp,
    },
    timestamp="ts",
    event_id="event_id",
)
USER = Entity("user", keys={"user_id": String})


def view(where: str | None = None, derived: dict[str, Derived] | None = None, *features: Any) -> WindowedView:
    derived = derived or {}
    of = [Last(f"last_{name}", of=name, windows=["1d"], default=None) for name in derived]
    return WindowedView(
        "v",
        version=1,
        entity=USER,
        source=SOURCE,
        where=where,
        derived=derived,
        features=[Count("events", windows=["1d"], default=0), *of, *features],
    )


def select(of: WindowedView, *rows: dict[str, Any]) -> Any:
    lines = [
        json.dumps({"event_id": f"e{i}", "user_id": "u", "ts": DAY + i, **row}).encode() for i, row in enumerate(rows)
    ]
    batch, dead = decode_json(SOURCE, "p", 0, lines, DAY + 10**12)
    assert not dead
    return Selector(of).select(batch.table)


def derived(kind: Any, sql: str, *rows: dict[str, Any]) -> list[Any]:
    column = select(view(None, {"d": Derived(sql, kind)}), *rows).columns["d"]
    return [kind.python(v) if ok else None for v, ok in zip(column.values.tolist(), column.valid.tolist(), strict=True)]


def test_a_zero_has_no_sign() -> None:
    """Of 0.0 and -0.0 a minimum would be whichever came first, and tiles are merged in no order."""
    of = view(None, None, Min("low", of="rate", windows=["1d"], default=0.0))
    column = select(of, {"rate": -0.0}).columns["rate"]
    assert (column.values.tolist(), np.signbit(column.values).tolist()) == ([0.0], [False])


def test_without_expressions_all_events_with_a_key_are_selected() -> None:
    events = select(
        view(), {"user_id": "b"}, {"user_id": None}, {"user_id": "a"}, {"user_id": "b"}, {"user_id": "x" * 600}
    )
    assert events.keys.to_pylist() == ["b", "a"]
    assert events.code.tolist() == [0, 1, 0]
    assert events.ts.tolist() == [DAY, DAY + 2, DAY + 3]
    assert events.ids.tolist() == [b"e0", b"e2", b"e3"]
    assert events.offset.tolist() == [0, 2, 3]


def test_columns_are_stored_units_and_masks() -> None:
    features = [
        kind(f"m{c}", of=c, windows=["1d"], default=None) for kind, c in ((Sum, "amount"), (Min, "rate"), (Max, "ts"))
    ]
    events = select(view(None, None, *features), {"amount": 1.255, "rate": 0.5}, {})
    assert events.columns["amount"].values.tolist() == [126, 0]
    assert events.columns["amount"].valid.tolist() == [True, False]
    assert events.columns["rate"].valid.tolist() == [True, False]
    assert events.columns["ts"].values.tolist() == [DAY, DAY + 1]


def test_an_unknown_where_is_false() -> None:
    events = select(
        view("event_type = 'purchase' AND amount > 1"),
        {"event_type": "purchase", "amount": 2},
        {"event_type": "purchase"},
        {"event_type": "view", "amount": 2},
        {"amount": 2},
    )
    assert events.offset.tolist() == [0]


def test_a_where_that_fails_for_an_event_is_false_for_it() -> None:
    events = select(
        view("CAST(event_type AS INTEGER) > 3"), {"event_type": "5"}, {"event_type": "x"}, {"event_type": "1"}
    )
    assert events.offset.tolist() == [0]


def test_derived_columns_are_rounded_half_even_and_null_where_they_do_not_fit() -> None:
    amounts = [{"amount": a} for a in (0.05, 0.15, 0.25, None)]
    expected = [decimal.Decimal(t) for t in ("0.02", "0.08", "0.12")]
    assert derived(Decimal(2), "amount * 0.5", *amounts) == [*expected, None]
    assert derived(Decimal(2), "amount::DOUBLE * 0.5", *amounts) == [*expected, None]
    assert derived(Int64, "quantity / 2", {"quantity": 3}, {"quantity": 5}, {}) == [2, 2, None]
    assert derived(Int64, "quantity * 4611686018427387904", {"quantity": 1}, {"quantity": 4}) == [2**62, None]
    assert derived(Float64, "rate / 0", {"rate": 1}, {"rate": 0}) == [None, None]
    assert derived(Decimal(12), "quantity", {"quantity": 1}, {"quantity": 2**40}) == [
        decimal.Decimal("1.000000000000"),
        None,
    ]
    assert derived(Bool, "amount > 1", {"amount": 2}, {"amount": 1}, {}) == [True, False, None]
    assert derived(String(max_bytes=3), "event_type", {"event_type": "abc"}, {"event_type": "abcd"}) == ["abc", None]
    assert derived(Int64, "CAST(event_type AS BIGINT)", {"event_type": "7"}, {"event_type": "x"}) == [7, None]


def test_instants_are_naive_utc_in_expressions() -> None:
    assert derived(Int64, "hour(ts)", {"ts": "2024-01-01T23:30:00+02:00"}) == [21]
    [day] = derived(Timestamp, "date_trunc('day', ts)", {"ts": "2023-12-31T23:30:00-02:00"})
    assert day.isoformat() == "2024-01-01T00:00:00+00:00"
    [day] = derived(Timestamp, "CAST(ts AS DATE)", {"ts": "2023-12-31T23:30:00-02:00"})
    assert day.isoformat() == "2024-01-01T00:00:00+00:00"


def test_a_squared_value_beyond_its_bound_is_null() -> None:
    of = view(None, {"d": Derived("quantity * 2", Int64)}, Variance("var", of="d", windows=["1d"], default=0.0))
    column = select(of, {"quantity": 2**46}, {"quantity": 2**46 + 1}).columns["d"]
    assert column.valid.tolist() == [True, False]


def test_no_rows_are_no_events_and_batches_do_not_mix() -> None:
    selector = Selector(view("quantity > 1", {"twice": Derived("quantity * 2", Int64)}))
    batch, _ = decode_json(
        SOURCE,
        "p",
        0,
        [json.dumps({"event_id": f"e{i}", "user_id": f"u{i}", "ts": DAY, "quantity": i}).encode() for i in range(9)],
        DAY,
    )
    assert len(selector.select(batch.table.slice(0, 0))) == 0
    for first in range(9):
        events = selector.select(batch.table.slice(first, 2))
        expected = [i for i in (first, first + 1) if 1 < i < 9]
        assert events.offset.tolist() == expected
        assert events.columns["twice"].values.tolist() == [2 * i for i in expected]
    assert np.array_equal(selector.select(batch.table).offset, np.arange(2, 9))


def test_text_with_a_nul_reaches_an_expression_whole() -> None:
    assert derived(Int64, "length(event_type)", {"event_type": "a\0b"}) == [3]


GOOD = [
    "event_type = 'purchase'", "amount > 1.5 AND (gift OR quantity IN (1, 2))", "event_type LIKE 'p%' -- a comment",
    "ts > TIMESTAMP '2024-01-01' + INTERVAL 1 DAY", "CASE WHEN gift THEN true ELSE quantity > 1 END",
    "list_contains([1, 2], quantity)", "len(list_filter([1, 2, 3], lambda x: x > quantity)) > 0",
    "if(gift, true, false)",
    "EVENT_TYPE IS NULL", "list_sum([quantity, 1]) > 3", "regexp_matches(event_type, 'a|b')",
    "age(ts, ts) = INTERVAL 0 DAY",
]  # fmt: skip
BAD = {
    "random() > 0.5": "'random'.*not decided by the event",
    "ts < now()": "'now'.*not decided by the event",
    "ts < current_timestamp": "'current_timestamp'.*not decided",
    "ts < current_localtimestamp()": "not decided",
    "CAST(ts AS DATE) = current_date": "'current_date'.*not decided",
    "age(ts) > INTERVAL 1 DAY": "'age'.*not decided",
    "uuid() = event_id": "'uuid'.*not decided",
    "current_setting('TimeZone') = 'UTC'": "not decided",
    "quantity > (SELECT 1)": "a subquery",
    "EXISTS (FROM '/etc/passwd')": "a subquery",
    "row_number() OVER () = 1": "a window function",
    "count(*) > 1": "the aggregate 'count_star'",
    "sum(quantity) > 1": "the aggregate 'sum'",
    "unnest([true, false])": "yields rows",
    "*": "a star",
    "COLUMNS('quantity') > 1": "a star",
    "quantity > ?": "a parameter",
    "quantity > $1": "a parameter",
    "gift, gift": "not one expression",
    "gift; SELECT true": "not one expression",
    "gift; DROP TABLE event": "is not SQL",
    "gift FROM event": "is a query",
    "gift ORDER BY 1": "is a query",
    "gift AS g": "leave out AS",
    "gift) OR (true": "is not SQL",
    "quantity >": "is not SQL",
    "-- nothing": "is not SQL",
    "'now'::TIMESTAMP": "is TIMESTAMP; expected",
    "current_user = event_type": "the source does not have|not decided",
    "event.gift": "reads 'event'",
    "quantitiy > 1": "reads 'quantitiy', which the source does not have. Did you mean 'quantity'",
    "nonsense(quantity)": "cannot be computed",
    "quantity": "is BIGINT; expected a condition",
    "event_type": "is VARCHAR; expected a condition",
}


@pytest.mark.parametrize("where", GOOD)
def test_an_expression_over_one_event_is_accepted(where: str) -> None:
    check_expressions(view(where))
    Selector(view(where))


@pytest.mark.parametrize("where", BAD)
def test_an_expression_that_sees_more_than_one_event_is_refused(where: str) -> None:
    with pytest.raises(DefinitionError, match=BAD[where]) as caught:
        check_expressions(view(where))
    assert "View 'v@1': where" in str(caught.value)


def test_a_derived_column_must_have_its_type() -> None:
    with pytest.raises(
        DefinitionError, match=r"derived column 'd' \('event_type'\) is VARCHAR; expected Int64. Write a CAST"
    ):
        check_expressions(view(None, {"d": Derived("event_type", Int64)}))
    with pytest.raises(DefinitionError, match="is BIGINT; expected String"):
        check_expressions(view(None, {"d": Derived("quantity", String(max_bytes=4))}))
    check_expressions(view())


@pytest.mark.parametrize("count", [0, 1, 7, FEW, FEW + 1, 3 * FEW])
def test_few_entities_are_numbered_as_many_are(count: int) -> None:
    """In the order in which they come; an event without one is left out."""
    rng = random.Random(count)
    users = [rng.choice([None, "", "a|b", "ünder", *(f"u{n}" for n in range(40))]) for _ in range(count)]
    rows = [{"event_id": str(n), "user_id": user, "ts": "2024-01-01T10:00:00Z"} for n, user in enumerate(users)]
    batch, dead = decode_json(SOURCE, "p", 0, [json.dumps(row).encode() for row in rows], DAY * 2)
    events = Selector(view()).select(batch.table)
    known = [user for user in users if user is not None]
    assert not dead
    assert events.keys.to_pylist() == [urllib.parse.quote(user) for user in dict.fromkeys(known)]
    assert [events.keys[code].as_py() for code in events.code.tolist()] == [urllib.parse.quote(user) for user in known]
