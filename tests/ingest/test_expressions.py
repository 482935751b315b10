"""An expression that fails for an event is null for it, whatever stands beside it; what fails for all is refused.

DuckDB's TRY lets errors through: those of parts that its optimizer computes ahead, and those that are not of a value.
One event would end the flow, at each start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from forebay import Count, Decimal, Derived, Entity, EventSource, Float64, Int64, String, Timestamp, WindowedView
from forebay.errors import DefinitionError
from forebay.ingest.expressions import Expressions, check_expressions
from forebay.ingest.select import computed
from forebay.instants import day_us

SOURCE = EventSource(
    "shop",
    schema={"event_id": String, "user": String, "code": String, "zone": String, "n": Int64, "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
)
GOOD = {"event_id": "e", "user": "u", "code": "5", "zone": "UTC", "n": 3, "ts": day_us("2024-01-01")}
SCHEMA = pa.schema([(name, pa.int64() if name in {"n", "ts"} else pa.string()) for name in GOOD])


def view(where: str | None = None, **derived: Derived) -> WindowedView:
    return WindowedView(
        "v",
        version=1,
        entity=Entity("user", keys={"user": String}),
        source=SOURCE,
        where=where,
        derived=derived,
        features=[Count("events", windows=["1d"], default=0)],
    )


def table(*rows: Mapping[str, Any]) -> pa.Table:
    found = pa.Table.from_pylist([{**GOOD, **row} for row in rows], SCHEMA)
    return found.set_column(found.column_names.index("ts"), "ts", found["ts"].cast(pa.timestamp("us", "UTC")))


def results(of: WindowedView, *rows: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each row has of each expression."""
    found = Expressions(of).evaluate(table(*rows))
    return pa.table(list(found.values()), list(found)).to_pylist()


TWICE = {"k": Derived("CAST(code AS INT) + 1", Int64)}


@pytest.mark.parametrize(
    ("where", "derived", "bad"),
    [
        ("CAST(code AS INT) BETWEEN 0 AND 10", {}, {"code": "x"}),
        ("CAST(code AS INT) > 3", TWICE, {"code": "x"}),
        ("n * n > 3 AND n * n < 10", {}, {"n": 2**62}),
        ("CASE WHEN code::INT > 0 THEN code::INT END = 5", {}, {"code": "x"}),
        ("hour(ts AT TIME ZONE zone) = 0", {}, {"zone": "Mars/Base"}),
        ("code NOT LIKE zone ESCAPE '!'", {}, {"code": "abc", "zone": "abc!"}),
        ("time_bucket(to_microseconds(n), ts) <= ts", {}, {"n": 0}),
    ],
)
def test_an_expression_is_null_for_an_event_for_which_it_fails(
    where: str, derived: dict[str, Derived], bad: dict[str, Any]
) -> None:
    of, rows = view(where, **derived), [{}, bad, {}, {}, bad, {"code": None, "zone": None, "n": None}]
    together = results(of, *rows)
    assert [row["where"] for row in together] == [True, None, True, True, None, None]
    assert together == [one for row in rows for one in results(of, row)], "alone it has the same"
    assert len(computed(of, Expressions(of), table(*rows))) == 3
    assert results(of) == []


def test_only_the_expression_that_fails_is_null() -> None:
    of = view("hour(ts AT TIME ZONE zone) = 0", k=Derived("CAST(code AS INT) + 1", Int64))
    assert results(of, {"zone": "Mars"}, {"code": "x"}) == [
        {"where": None, "derived column 'k'": 6},
        {"where": True, "derived column 'k'": None},
    ]


@pytest.mark.parametrize("error", [duckdb.OutOfMemoryException("full"), duckdb.InternalException("broken")])
def test_an_error_that_is_of_no_event_makes_nothing_null(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    of = Expressions(view("n > 1"))

    def executed(*arguments: object) -> pa.Table:
        raise error

    monkeypatch.setattr(of, "_executed", executed)
    with pytest.raises(DefinitionError, match="its expressions cannot be computed"):
        of.evaluate(table({}, {}))


@pytest.mark.parametrize("code", ["infinity", "-infinity", "290000-01-01", "5877642-06-25 (BC)"])
def test_dates_that_are_no_instants_are_null(code: str) -> None:
    of = view(None, day=Derived("CAST(code AS DATE)", Timestamp))
    found = computed(of, Expressions(of), table({"code": code}, {"code": "2024-02-03"}))["day"]
    assert found.cast(pa.int64()).to_pylist() == [None, day_us("2024-02-03")]


@pytest.mark.parametrize("where", ["hour(ts AT TIME ZONE 'Europe/Berln') > 6", "regexp_extract(code, '(') = 'x'"])
def test_what_fails_for_every_event_is_refused(where: str) -> None:
    with pytest.raises(DefinitionError, match="fails for every event: "):
        check_expressions(view(where))


@pytest.mark.parametrize(
    "where",
    [
        "hour(ts AT TIME ZONE zone) > 6",
        "hour(ts AT TIME ZONE ('Europe/' || zone)) > 6",
        "time_bucket(to_minutes(n - 10), ts) <= ts",
        "list_reduce(list_filter([n], lambda q: q > 100), lambda a, b: a + b) > 3",
        "CAST(code AS DATE) = '2024-01-01'",
    ],
)
def test_what_fails_for_some_events_is_not(where: str) -> None:
    check_expressions(view(where))


def test_what_is_deployed_is_not_asked_again() -> None:
    """A flow begins with what a plan let through, whatever likely events are by now."""
    assert results(view("hour(ts AT TIME ZONE 'Europe/Berln') > 6"), {}, {}) == [{"where": None}] * 2


@pytest.mark.parametrize("kind", [Int64, Float64, Decimal(2)])
def test_numbers_that_arrow_shows_as_others_are_refused(kind: Any) -> None:
    with pytest.raises(DefinitionError, match=r"is UHUGEINT; expected .*Write a CAST"):
        check_expressions(view(None, k=Derived("CAST(code AS UHUGEINT)", kind)))
