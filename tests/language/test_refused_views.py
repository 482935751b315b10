"""Every aggregation and windowed view that is refused, with the exact sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from forebay import (
    Bool,
    Count,
    Derived,
    Entity,
    Feature,
    Int64,
    Last,
    Max,
    Mean,
    SecondsSince,
    StdDev,
    String,
    Sum,
)
from tests.language.refused import Cases, check, each, source, view
from tests.language.shop import SCHEMA, SPEND

CASES: Cases = {
    # aggregations
    "no windows": (
        lambda: Count("n", default=0),
        "Count 'n' has 0 windows; expected 1 to 16, e.g. windows=['1h', '7d'], or windows=[None] for the lifetime",
    ),
    "windows as a text": (
        lambda: Count("n", windows="24h", default=0),
        "Count 'n': windows='24h' is not a list; write e.g. windows=['1h', '7d']",
    ),
    "window of a kind": (
        lambda: Count("n", windows=[24], default=0),
        (
            "Count 'n': window: 24 is not a duration; "
            "write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        ),
    ),
    "window twice": (
        lambda: Count("n", windows=["1h", "1h"], default=0),
        "Count 'n' names a window twice; each yields one feature",
    ),
    "too long a window": (
        lambda: Count("n", windows=["3661d"], default=0),
        "Count 'n': window '3661d' is longer than ten years; write None for the lifetime",
    ),
    "hop": (
        lambda: Count("n", windows=["1h"], hop="7m", default=0),
        "Count 'n': hop '7m' of window '1h' must divide a day, be at least 1s and at most the window",
    ),
    "hop longer than the window": (
        lambda: Count("n", windows=["1h"], hop="6h", default=0),
        "Count 'n': hop '6h' of window '1h' must divide a day, be at least 1s and at most the window",
    ),
    "no default": (
        lambda: Count("n", windows=["1h"]),
        "Count 'n' names no default; say what an entity without events gets, e.g. default=0 (or None for null)",
    ),
    "of nothing": (
        lambda: Sum("s", windows=["1h"], default=0),
        "Sum 's' does not say of what; write of='<column>'",
    ),
    "seconds since a column": (
        lambda: SecondsSince("s", of="amount", windows=["1h"], default=0),
        "SecondsSince 's' looks at events, not at a column; leave out of='amount'",
    ),
    # windowed views
    "entity": (lambda: view(entity="user"), "View 'v': entity='user' is not an Entity"),
    "source": (lambda: view(source="shop"), "View 'v': source='shop' is not an EventSource"),
    "missing key": (
        lambda: view(entity=Entity("user", keys={"userid": String})),
        "View 'v': source 'shop' has no column 'userid', a key of 'user'. Did you mean 'user_id'?",
    ),
    "key of another type": (
        lambda: view(entity=Entity("user", keys={"user_id": Int64})),
        "View 'v': 'user_id' is String in 'shop' and Int64 in entity 'user'",
    ),
    "features alone": (
        lambda: view(features=Count("n", windows=["1h"], default=0)),
        (
            f"View 'v': features={Count('n', windows=['1h'], default=0)!r} is not a list; "
            "write e.g. features=[Count('n', windows=['1h'], default=0)]"
        ),
    ),
    "no features": (lambda: view(features=[]), "View 'v' has 0 features; expected 1 to 500"),
    "no aggregation": (
        lambda: view(Feature("f", Int64, default=0)),
        (
            f"View 'v': {Feature('f', Int64, default=0)!r} is not an aggregation; "
            "expected Count, Sum, Mean, … over windows"
        ),
    ),
    "unknown column": (
        lambda: view(Sum("s", of="amuont", windows=["1h"], default=0)),
        "View 'v': Sum 's' is of 'amuont', which 'shop' does not have. Did you mean 'amount'?",
    ),
    "sum of text": (
        lambda: view(Sum("s", of="note", windows=["1h"], default=0)),
        "View 'v': Sum 's': Sum cannot be taken of String; it needs numbers",
    ),
    "max of text": (
        lambda: view(Max("m", of="note", windows=["1h"], default=0)),
        "View 'v': Max 'm': Max cannot be taken of String; it needs numbers or instants",
    ),
    "mean of truth": (
        lambda: view(Mean("m", of="new", windows=["1h"], default=0), source=source(schema={**SCHEMA, "new": Bool})),
        "View 'v': Mean 'm': Mean needs numbers: derive one, e.g. Derived(\"CASE WHEN new THEN 1 ELSE 0 END\", Int64)",
    ),
    "deviation of instants": (
        lambda: view(StdDev("d", of="ts", windows=["1h"], default=0)),
        "View 'v': StdDev 'd': StdDev cannot be taken of Timestamp; it needs numbers",
    ),
    "last of unbounded text": (
        lambda: view(Last("l", of="note", windows=["1h"], default="")),
        (
            "View 'v': Last 'l': Last keeps the text in every tile, so it must be bounded: "
            "declare the column as String(max_bytes=32)"
        ),
    ),
    "default of another type": (
        lambda: view(Count("n", windows=["1h"], default="none")),
        "View 'v': Count 'n': default 'none' is not an Int64; expected a whole number of 64 bits",
    ),
    "default that does not fit": (
        lambda: view(
            Last("l", of="note", windows=["1h"], default="unknown"),
            source=source(schema={**SCHEMA, "note": String(max_bytes=4)}),
        ),
        (
            "View 'v': Last 'l': default 'unknown' is not a String(max_bytes=4); "
            "expected at most 4 UTF-8 bytes and no NUL"
        ),
    ),
    "infinite default": (
        lambda: view(Mean("m", of="amount", windows=["1h"], default=float("inf"))),
        "View 'v': Mean 'm': default inf is not a Float64; expected a finite number",
    ),
    "two features of a name": (
        lambda: view(Count("n", windows=["1h"], default=0), Sum("n", of="amount", windows=["24h", "1h"], default=0)),
        "View 'v' has two features named 'n_1h'; give one another name",
    ),
    "features in two cases": (
        lambda: view(Count("n", windows=["1h"], default=0), Count("N", windows=["1h"], default=0)),
        "View 'v': features 'n_1h' and 'N_1h' differ in upper and lower case alone; rename one",
    ),
    "hops that do not fit": (
        lambda: view(
            Count("n", windows=["1h"], hop="15s", default=0), Count("m", windows=["1h"], hop="20s", default=0)
        ),
        "View 'v': hops 15s and 20s do not divide one another; declare hop= so that they do",
    ),
    "where": (lambda: view(where=" "), "View 'v': where=' '; expected a text that is not empty"),
    "derived as a text": (
        lambda: view(derived={"net": "amount * 2"}),
        "View 'v': derived column 'net' is 'amount * 2'; expected Derived(sql, type)",
    ),
    "derived without a type": (
        lambda: Derived("amount * 2", "Decimal"),
        "Derived('amount * 2') is of type 'Decimal'; expected a type such as String, Int64 or Decimal(2)",
    ),
    "derived hides": (
        lambda: view(derived={"Amount": Derived("pieces", Int64)}),
        "View 'v': derived column 'Amount' hides a column of 'shop'; choose another name",
    ),
    "ttl": (
        lambda: view(ttl="1 month"),
        (
            "View 'v': ttl: '1 month' is not a duration; "
            "write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        ),
    ),
    "cron": (
        lambda: view(refresh="hourly"),
        "View 'v': refresh='hourly' is not a cron schedule; expected five fields such as '0 * * * *' (hourly)",
    ),
    "cron field": (
        lambda: view(refresh="0 24 * * *"),
        "View 'v': refresh='0 24 * * *': '24' is not a hour; expected 0 to 23, '*', '*/5', '1-5' or '1,2'",
    ),
    "unknown feature": (
        lambda: SPEND["paid_24"],
        "View 'spend@1' has no feature 'paid_24'. Did you mean 'paid_24h'?",
    ),
}


@each(CASES)
def test_a_wrong_one_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    check(declare, sentence)
