"""The fingerprint covers exactly what changes values: every field of every kind of definition is classified here.

A new field fails `test_every_field_is_classified` until it is put on one side or the other, with an example of its
change.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import (
    BatchView,
    Count,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    Float64,
    Int64,
    KafkaTopic,
    Last,
    Max,
    OnDemandView,
    Sessionize,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
    batch_view,
)
from forebay.language.aggregations import AGGREGATIONS, TopK
from forebay.language.code import code_of
from forebay.language.definitions import Definitions
from forebay.language.fingerprint import fingerprint, signature, used_columns
from tests.language.shop import FRAUD, PEOPLE, RATIO, SCHEMA, SCORE, SHOP, SPEND, USER, VISITS, but
from tests.language.strategies import definitions
from tests.own_arguments import OWN

PAID, BUYS = SPEND.features[1], SPEND.features[0]
SCORED = SCORE.features[0]


def spend_kept(keep: str) -> WindowedView:
    """SPEND on a source that is not kept for ever, which its lifetime forbids."""
    view = but(SPEND)
    msgspec.structs.force_setattr(view, "source", but(SHOP, keep=keep))
    return view


def spend_on(source: EventSource) -> WindowedView:
    return but(SPEND, source=source)


def with_entity(entity: Entity) -> WindowedView:
    return but(SPEND, entity=entity, source=but(SHOP, schema={**SCHEMA, **entity.keys}))


def with_paid(**fields: Any) -> WindowedView:
    return but(SPEND, features=[but(one, **fields) if one is PAID else one for one in SPEND.features])


def with_score(**fields: Any) -> BatchView:
    return but(SCORE, features=[but(SCORED, **fields), SCORE.features[1]])


# Per kind of definition and field: a changed definition, and whether its fingerprint must change with it.
Cases = dict[str, tuple[Any, bool]]

OF_A_WINDOWED_VIEW: Cases = {
    "name": (but(SPEND, name="spending"), False),
    "version": (but(SPEND, version=2), False),
    "entity": (with_entity(Entity("user", keys={"user_id": String, "kind": String})), True),
    "source": (spend_on(but(SHOP, name="store")), True),
    "features": (but(SPEND, features=[*SPEND.features, Count("more", windows=["1h"], default=0)]), True),
    "where": (but(SPEND, where="kind = 'return'"), True),
    "derived": (but(SPEND, derived={"net": Derived("amount * 0.9", Decimal(4))}), True),
    "ttl": (but(SPEND, ttl="31d"), True),
    "freshness": (but(SPEND, freshness="2s"), False),
    "retention": (but(SPEND, retention="90d"), False),
    "history": (but(SPEND, history="1h"), False),
    "refresh": (but(SPEND, refresh="0 2 * * *"), False),
    "owner": (but(SPEND, owner="b"), False),
    "description": (but(SPEND, description="b"), False),
    "tags": (but(SPEND, tags={"b": "b"}), False),
    "sessions": (but(SPEND, source=VISITS.sessions, where=None, derived={}, features=SPEND.features[:1]), True),
}
OF_ITS_SESSIONS: Cases = {
    "source": (but(VISITS, source=but(VISITS.sessions, source=but(SHOP, name="store"))), True),
    "gap": (but(VISITS, source=but(VISITS.sessions, gap="20m")), True),
    "longest": (but(VISITS, source=but(VISITS.sessions, longest="11h")), True),
    "name": (but(VISITS, source=but(VISITS.sessions, name="calls")), False),
}
OF_ITS_ENTITY: Cases = {
    "name": (with_entity(but(USER, name="person")), False),
    "keys": (with_entity(but(USER, keys={"pieces": Int64, "user_id": String})), True),
    "description": (with_entity(but(USER, description="b")), False),
}
OF_ITS_SOURCE: Cases = {
    "name": (spend_on(but(SHOP, name="store")), True),
    "schema": (spend_on(but(SHOP, schema={**SCHEMA, "amount": Decimal(3)})), True),
    "timestamp": (spend_on(but(SHOP, schema={**SCHEMA, "at": Timestamp}, timestamp="at")), True),
    "event_id": (
        spend_on(but(SHOP, schema={k: v for k, v in SCHEMA.items() if k != "event_id"}, event_id="note")),
        True,
    ),
    "stream": (spend_on(but(SHOP, stream=KafkaTopic("k", format="avro"))), False),
    "lateness": (spend_on(but(SHOP, lateness="1h")), False),
    "dedupe": (spend_on(but(SHOP, dedupe="10m")), True),
    "max_skew": (spend_on(but(SHOP, max_skew="2m")), False),
    "history_start": (spend_on(but(SHOP, history_start="2023-01-01")), False),
    "keep": (spend_kept("900d"), False),
    "renamed": (spend_on(but(SHOP, renamed={"amount": "paid"})), True),
    "owner": (spend_on(but(SHOP, owner="b")), False),
    "description": (spend_on(but(SHOP, description="b")), False),
    "tags": (spend_on(but(SHOP, tags={"b": "b"})), False),
}
OF_AN_AGGREGATION: Cases = {
    "name": (with_paid(name="bought"), True),
    "of": (with_paid(of="net"), True),
    "windows": (with_paid(windows=["24h", "7d"]), True),
    "default": (with_paid(default=1), True),
    "hop": (with_paid(hop="1m"), True),
    "description": (with_paid(description="b"), False),
}
OTHER_ARGUMENTS: dict[str, Any] = {"k": 17, "cap": 5, "q": 0.8, "edges": [-1, 0, 3], "half_life": "46m"}
OF_ONE_WITH_ARGUMENTS: dict[type, tuple[WindowedView, Cases]] = {}
for aggregation in AGGREGATIONS:
    if aggregation.__name__ in OWN:
        feature = aggregation("f", of="amount", windows=["24h"], default=None, **OWN[aggregation.__name__])
        changes = {"name": "g", "of": "net", "windows": ["24h", "7d"], "default": 1, "hop": "1m", "description": "b"}
        changes |= {name: other for name, other in OTHER_ARGUMENTS.items() if hasattr(feature, name)}
        if aggregation is TopK:
            changes["k"] = 3
        if feature.output(Decimal(2)).storage == "O":
            changes["default"] = [1]
        cases = {
            name: (but(SPEND, features=[but(feature, **{name: value})]), name != "description")
            for name, value in changes.items()
        }
        OF_ONE_WITH_ARGUMENTS[aggregation] = but(SPEND, features=[feature]), cases
OF_A_DERIVED_COLUMN: Cases = {
    "sql": (but(SPEND, derived={"net": Derived("amount * 0.9", Decimal(4))}), True),
    "type": (but(SPEND, derived={"net": Derived("amount * 0.8", Float64)}), True),
}
OF_A_BATCH_VIEW: Cases = {
    "name": (but(SCORE, name="points"), False),
    "version": (but(SCORE, version=2), False),
    "entity": (but(SCORE, entity=but(USER, keys={"user_id": Int64})), True),
    "sources": (but(SCORE, sources=[SHOP]), True),
    "features": (but(SCORE, features=SCORE.features[:1]), True),
    "partitions": (but(SCORE, partitions="hourly"), True),
    "refresh": (but(SCORE, refresh="0 2 * * *"), True),
    "ttl": (but(SCORE, ttl=None), True),
    "reach": (but(SCORE, reach="8d"), True),
    "history_start": (but(SCORE, history_start="2023-01-01"), False),
    "keep": (but(SCORE, keep="30d"), False),
    "history": (but(SCORE, history="1h"), False),
    "code": (but(SCORE, code="fedcba9876543210"), True),
    "owner": (but(SCORE, owner="b"), False),
    "description": (but(SCORE, description="b"), False),
    "tags": (but(SCORE, tags={"b": "b"}), False),
    "compute": (but(SCORE, compute=len), False),
}
OF_A_FEATURE: Cases = {
    "name": (with_score(name="points"), True),
    "type": (with_score(type=Int64, default=0), True),
    "default": (with_score(default=0.6), True),
    "description": (with_score(description="b"), False),
}
OF_A_TABLE_SOURCE: Cases = {
    "name": (but(PEOPLE, name="persons"), True),
    "schema": (but(PEOPLE, schema={**PEOPLE.schema, "age": Float64}), False),  # the plan lets its columns grow only
    "effective": (but(PEOPLE, schema={**PEOPLE.schema, "since": Timestamp}, effective="since"), True),
    "path": (but(PEOPLE, path="people.csv"), False),
    "sql": (but(PEOPLE, sql="SELECT * FROM {path}"), True),
    "owner": (but(PEOPLE, owner="b"), False),
    "description": (but(PEOPLE, description="b"), False),
    "tags": (but(PEOPLE, tags={"b": "b"}), False),
}
OF_AN_ON_DEMAND_VIEW: Cases = {
    "name": (but(RATIO, name="share"), False),
    "version": (but(RATIO, version=2), False),
    "inputs": (but(RATIO, inputs=[but(SPEND, version=2)["paid_24h"]]), True),
    "request": (but(RATIO, request={"amount": Decimal(2)}), True),
    "features": (but(RATIO, features=[but(RATIO.features[0], default=0.0)]), True),
    "code": (but(RATIO, code="fedcba9876543210"), True),
    "owner": (but(RATIO, owner="b"), False),
    "description": (but(RATIO, description="b"), False),
    "tags": (but(RATIO, tags={"b": "b"}), False),
    "compute": (but(RATIO, compute=len), False),
}
OF_A_SERVICE: Cases = {
    "name": (but(FRAUD, name="abuse"), False),
    "version": (but(FRAUD, version=2), False),
    "features": (but(FRAUD, features=[SCORE, SPEND["paid_24h", "purchases_1h"]]), True),
    "owner": (but(FRAUD, owner="b"), False),
    "description": (but(FRAUD, description="b"), False),
    "tags": (but(FRAUD, tags={"b": "b"}), False),
}

CLASSIFIED: list[tuple[type, Any, Cases]] = [
    (WindowedView, SPEND, OF_A_WINDOWED_VIEW),
    (Entity, SPEND, OF_ITS_ENTITY),
    (EventSource, SPEND, OF_ITS_SOURCE),
    *((kind, *OF_ONE_WITH_ARGUMENTS.get(kind, (SPEND, OF_AN_AGGREGATION))) for kind in AGGREGATIONS),
    (Derived, SPEND, OF_A_DERIVED_COLUMN),
    (Sessionize, VISITS, OF_ITS_SESSIONS),
    (BatchView, SCORE, OF_A_BATCH_VIEW),
    (Feature, SCORE, OF_A_FEATURE),
    (
        TableSource,
        SCORE,
        {name: (but(SCORE, sources=[source, SHOP]), flips) for name, (source, flips) in OF_A_TABLE_SOURCE.items()},
    ),
    (OnDemandView, RATIO, OF_AN_ON_DEMAND_VIEW),
    (FeatureService, FRAUD, OF_A_SERVICE),
]
CHANGES = [
    pytest.param(original, changed, flips, id=f"{kind.__name__}.{field}")
    for kind, original, cases in CLASSIFIED
    for field, (changed, flips) in cases.items()
]


@pytest.mark.parametrize(("kind", "cases"), [(kind, cases) for kind, _, cases in CLASSIFIED])
def test_every_field_is_classified(kind: type[msgspec.Struct], cases: Cases) -> None:
    assert set(cases) == {field.name for field in msgspec.structs.fields(kind)}


@pytest.mark.parametrize(("original", "changed", "flips"), CHANGES)
def test_a_field_flips_the_fingerprint_iff_it_changes_values(original: Any, changed: Any, flips: bool) -> None:
    assert changed != original
    assert (fingerprint(changed) != fingerprint(original)) == flips


@pytest.mark.parametrize("of", ["amount", "pieces"])
def test_the_kind_of_an_aggregation_flips_it(of: str) -> None:
    views = [but(SPEND, features=[kind("f", of=of, windows=["1h"], default=0)]) for kind in (Sum, Max, Last)]
    assert len({fingerprint(view) for view in views}) == 3


def test_what_says_the_same_in_other_words_is_the_same() -> None:
    same = [
        with_paid(default=0.5),
        with_paid(hop="15m"),
        but(SPEND, ttl="720h"),
        but(SPEND, features=SPEND.features[::-1]),
        spend_on(but(SHOP, schema=dict(reversed(SCHEMA.items())))),
    ]
    assert {fingerprint(view) for view in same} == {fingerprint(SPEND)}


def test_only_columns_that_a_view_uses_are_in_it() -> None:
    assert used_columns(SPEND) == ["event_id", "user_id", "kind", "amount", "pieces", "ts"]
    assert fingerprint(spend_on(but(SHOP, schema={**SCHEMA, "note": Int64, "new": Int64}))) == fingerprint(SPEND)


@pytest.mark.parametrize(
    ("where", "used"),
    [
        ("note = 'x'", True),
        ("\"note\" = 'x'", True),
        ("NOTE IS NULL", True),
        ("lower(note)='x'", True),
        ("kind = 'note'", False),
        ("kind = 'a''note'", False),
        ("notes = 1", False),
        ('"a""note" = 1', False),
    ],
)
def test_a_column_is_used_where_an_expression_names_it(where: str, used: bool) -> None:
    view = but(SPEND, where=where, derived={}, features=[BUYS])
    assert ("note" in used_columns(view)) == used


def test_a_signature_reads_aloud() -> None:
    facts = signature(but(SPEND, features=[PAID]))
    assert facts == {
        "entity.keys": "user_id: String",
        "source": "shop",
        "source.timestamp": "ts",
        "source.event_id": "event_id",
        "source.schema.event_id": "String",
        "source.schema.user_id": "String",
        "source.schema.kind": "String",
        "source.schema.amount": "Decimal(2)",
        "source.schema.ts": "Timestamp",
        "where": "kind = 'purchase'",
        "derived.net": "amount * 0.8 AS Decimal(4)",
        "features.paid_24h.aggregation": "Sum",
        "features.paid_24h.of": "amount",
        "features.paid_24h.window": "1d",
        "features.paid_24h.hop": "15m",
        "features.paid_24h.default": "0.5",
        "ttl": "30d",
    }


@given(definitions(), st.sampled_from(["owner", "description"]), st.text(max_size=4))
def test_words_about_a_definition_never_flip_it(code: Definitions, field: str, text: str) -> None:
    for value in (*code.views.values(), *code.services.values(), *code.sources.values()):
        assert fingerprint(but(value, **{field: text})) == fingerprint(value)


def declared(compute: Any) -> str:
    fields = {"entity": USER, "version": 1, "sources": [PEOPLE], "features": SCORE.features, "partitions": "none"}
    view: BatchView = batch_view(**fields)(compute)
    return view.code


def test_the_code_of_a_function_is_its_tree_and_not_its_looks() -> None:
    def one(context: Any, people: Any) -> Any:
        """What it does."""
        return context.sql("SELECT 1")  # and why

    def other(context: Any, people: Any) -> Any:
        return context.sql(
            "SELECT 1",
        )

    def changed(context: Any, people: Any) -> Any:
        return context.sql("SELECT 2")

    def also_changed(context: Any, people: Any, *, more: int = 1) -> Any:
        return context.sql("SELECT 1")

    assert declared(one) == declared(other) == code_of(one)
    assert len({declared(one), declared(changed), code_of(also_changed)}) == 3


def test_the_code_of_a_function_is_the_same_in_every_python() -> None:
    def pinned(context: Any, people: Any, *more: int, scale: float = 1.5) -> Any:
        for row in [*more]:
            if row > 1 and not row % 2:
                return context.sql(f"SELECT {row:>3} AS x, {scale!r}")
        return {**people, "a": [x for x in people if x] if scale else ...}

    assert code_of(pinned) == "ae76c79fca63d6ec"
