"""The plan: what applying would change, and every refusal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from forebay import (
    BatchView,
    Count,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    Int64,
    OnDemandView,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
)
from forebay.deploy.footprint import ArchiveSize, Reused
from forebay.deploy.plan import Plan, make_plan, retired_after
from forebay.errors import DefinitionError, PlanRefusedError
from forebay.instants import instant_us
from forebay.language.definitions import AnyDefinition, Definitions
from forebay.language.manifest import from_manifest, to_manifest

USER = Entity("user", keys={"user_id": String})
SCHEMA = {"event_id": String, "user_id": String, "kind": String, "amount": Decimal(2), "note": String, "ts": Timestamp}
SHOP = EventSource(
    "shop", schema=SCHEMA, timestamp="ts", event_id="event_id", stream=FileStream("x"), history_start="2024-01-01"
)
SPEND = WindowedView(
    "spend",
    version=1,
    entity=USER,
    source=SHOP,
    where="kind = 'note'",
    features=[Count("buys", windows=["1h", "24h"], default=0), Sum("paid", of="amount", windows=["24h"], default=0)],
    ttl="30d",
)
TABLE = TableSource(
    "people", schema={"user_id": String, "at": Timestamp, "age": Int64}, effective="at", path="people.parquet"
)
AGE = BatchView(
    "age",
    1,
    USER,
    sources=[TABLE],
    features=[Feature("age", Int64, default=0)],
    partitions="hourly",
    history_start="2024-01-01",
    code="c0de",
)
FRAUD = FeatureService("fraud", version=1, features=[SPEND, AGE])
RISK = OnDemandView(
    "age_per_buy",
    1,
    inputs=[SPEND["buys_24h"], AGE["age"]],
    request={"n": Int64},
    features=[Feature("age_per_buy", Int64, default=0)],
    code="c0de",
)


def but(value: Any, **fields: Any) -> Any:
    """The same definition with other fields."""
    return msgspec.structs.replace(value, **fields)


def deployed(*objects: AnyDefinition) -> Definitions:
    """What is read back after objects were deployed."""
    return from_manifest(to_manifest(Definitions.of(*objects)))


def plan_of(before: Sequence[AnyDefinition], after: Sequence[AnyDefinition], **more: Any) -> Plan:
    return make_plan(Definitions.of(*after), deployed(*before), **more)


def keys(changes: Sequence[Any]) -> list[str]:
    return [f"{change.kind} {change.key}" for change in changes]


def test_nothing_deployed_everything_is_added() -> None:
    plan = make_plan(Definitions.of(FRAUD), None)
    assert keys(plan.added) == [
        "entity user",
        "source people",
        "source shop",
        "view age@1",
        "view spend@1",
        "service fraud@1",
    ]
    assert not (plan.removed)
    assert not (plan.changed)
    assert not (plan.refused)


def test_what_is_deployed_needs_no_plan() -> None:
    assert plan_of([FRAUD], [FRAUD]).empty


def test_everything_may_be_removed_once_no_service_pins_it() -> None:
    plan = plan_of([SPEND, AGE], [])
    assert keys(plan.removed) == ["entity user", "source people", "source shop", "view age@1", "view spend@1"]
    assert not plan.refused


def test_an_added_view_says_which_partitions_and_bytes_its_backfill_touches() -> None:
    plan = make_plan(
        Definitions.of(FRAUD),
        None,
        now_us=instant_us("2024-01-03T05:59:59Z"),
        archives=lambda source: ArchiveSize(3_000_000, 900),
        reusable=lambda view: Reused("spend@0", 1),
    )
    backfills = {change.key: change.footprint.to_dict() for change in plan.added if change.footprint}
    #   2024-01-01      2024-01-02      2024-01-03 05:59
    #   |───────────────|───────────────|─────┤
    #   two whole days, 2 · 24 + 5 whole hours
    assert backfills == {
        "spend@1": {
            "partitions": "daily",
            "count": 2,
            "first": "2024-01-01",
            "last": "2024-01-02",
            "rows": 3_000_000,
            "bytes": 900,
            "seconds": 5.0,
            "reused": {"view": "spend@0", "days": 1, "lacking": ()},
        },
        "age@1": {
            "partitions": "hourly",
            "count": 53,
            "first": "2024-01-01-00:00",
            "last": "2024-01-03-04:00",
            "rows": None,
            "bytes": None,
            "seconds": None,
            "reused": None,
        },
    }


def test_a_view_whose_history_begins_later_touches_nothing() -> None:
    plan = make_plan(Definitions.of(SPEND), None, now_us=instant_us("2023-01-01T00:00:00Z"))
    touched = plan.added[-1].footprint
    assert touched is not None
    assert (touched.count, touched.first, touched.last) == (0, None, None)


NEUTRAL: list[tuple[str, AnyDefinition, AnyDefinition, str]] = [
    ("owner", SPEND, but(SPEND, owner="me"), "owner: nothing → 'me'"),
    ("description", USER, but(USER, description="One."), "description: nothing → 'One.'"),
    ("freshness", SPEND, but(SPEND, freshness="1s"), "freshness: nothing → '1s'"),
    ("tags", AGE, but(AGE, tags={"domain": "shop"}), "tags.domain: nothing → 'shop'"),
    ("stream", SHOP, but(SHOP, stream=FileStream("y")), "stream.path: 'x' → 'y'"),
    ("added column", SHOP, but(SHOP, schema={**SCHEMA, "new": Int64}), "schema.new.type: nothing → 'Int64'"),
    (
        "added to a table",
        TABLE,
        but(TABLE, schema={**TABLE.schema, "new": Int64}),
        "schema.new.type: nothing → 'Int64'",
    ),
    ("order", SPEND, but(SPEND, features=SPEND.features[::-1]), "order: 'as deployed' → 'another'"),
    ("entity of a name", SPEND, but(SPEND, entity=but(USER, name="person")), "entity: 'user' → 'person'"),
]


@pytest.mark.parametrize(("before", "after", "difference"), [case[1:] for case in NEUTRAL], ids=[c[0] for c in NEUTRAL])
def test_what_decides_no_value_may_change(before: AnyDefinition, after: AnyDefinition, difference: str) -> None:
    plan = plan_of([before], [after])
    assert not plan.refused
    assert [str(one) for change in plan.changed for one in change.differences] == [difference]


def source_on(view: WindowedView, **fields: Any) -> WindowedView:
    return but(view, source=but(view.source, **fields))


def without(schema: dict[str, Any], column: str) -> dict[str, Any]:
    return {name: kind for name, kind in schema.items() if name != column}


NEXT = "leave spend@1 as it is deployed and declare version=2 beside it"
REFUSED: list[tuple[str, AnyDefinition, AnyDefinition, str]] = [
    (
        "where",
        SPEND,
        but(SPEND, where=None),
        (
            "view spend@1: its computation changed under an unchanged version 1\n"
            f"    where: \"kind = 'note'\" → nothing\n    {NEXT}"
        ),
    ),
    (
        "default",
        SPEND,
        but(SPEND, features=[SPEND.features[0], but(SPEND.features[1], default=1)]),
        (
            "view spend@1: its computation changed under an unchanged version 1\n"
            f"    features.paid_24h.default: '0' → '1'\n    {NEXT}"
        ),
    ),
    (
        "a feature more",
        SPEND,
        but(SPEND, features=[*SPEND.features, Count("n", windows=[None], default=None)]),
        (
            "view spend@1: it got features under an unchanged version 1; the tiles of a version are packed by its "
            "features, so stream, publisher and readers would have to change in one instant\n"
            f"    features.n_lifetime: nothing → 'aggregation=Count, hop=1d'\n    {NEXT}: its backfill takes over the "
            "tiles of spend@1, and folds only what these lack"
        ),
    ),
    (
        "derived",
        SPEND,
        but(SPEND, derived={"double": Derived("amount * 2", Decimal(2))}),
        (
            "view spend@1: its computation changed under an unchanged version 1\n"
            f"    derived.double: nothing → 'amount * 2 AS Decimal(2)'\n    {NEXT}"
        ),
    ),
    (
        "kind of view",
        SPEND,
        but(AGE, name="spend"),
        (
            "view spend@1: its computation changed under an unchanged version 1\n"
            "    kind: 'windowed view' → 'batch view'\n"
        ),
    ),
    (
        "code",
        AGE,
        but(AGE, code="beef"),
        (
            "view age@1: its computation changed under an unchanged version 1\n"
            "    code: 'c0de' → 'beef'\n    leave age@1 as it is deployed and declare version=2 beside it"
        ),
    ),
    (
        "keys",
        SPEND,
        but(SPEND, entity=but(USER, keys={"user_id": String, "kind": String})),
        (
            "entity user: its keys changed, and everything stored of spend@1 is found by them\n"
            "    keys: 'user_id: String' → 'user_id: String, kind: String'\n"
            "    declare a new entity beside it, and new versions of the views on it"
        ),
    ),
    (
        "used column gone",
        SPEND,
        source_on(but(SPEND, where=None, features=SPEND.features[:1]), schema=without(SCHEMA, "kind")),
        "source shop: column 'kind' is used by spend@1\n    schema.kind: 'String' → nothing\n",
    ),
    (
        "column retyped",
        SHOP,
        but(SHOP, schema={**SCHEMA, "note": Int64}),
        "source shop: its archive holds 'note' as String\n    schema.note: 'String' → 'Int64'\n",
    ),
    (
        "used column rebounded",
        SPEND,
        source_on(SPEND, schema={**SCHEMA, "kind": String(max_bytes=8)}),
        "source shop: column 'kind' is used by spend@1\n    schema.kind: 'String' → 'String(max_bytes=8)'\n",
    ),
    (
        "timestamp",
        SHOP,
        but(SHOP, schema={**SCHEMA, "at": Timestamp}, timestamp="at"),
        "source shop: its archive is kept by timestamp\n    timestamp: 'ts' → 'at'\n",
    ),
    (
        "dedupe",
        SHOP,
        but(SHOP, dedupe="10m"),
        "source shop: its archive is kept by dedupe\n    dedupe: nothing → '10m'\n",
    ),
    (
        "column of a batch view gone",
        AGE,
        but(AGE, sources=[but(TABLE, schema=without(dict(TABLE.schema), "age"))]),
        "source people: column 'age' is used by age@1\n    schema.age: 'Int64' → nothing\n",
    ),
    (
        "sql of a table",
        AGE,
        but(AGE, sources=[but(TABLE, sql="SELECT * FROM {path}")]),
        "source people: sql decides what age@1 reads\n    sql: nothing → 'SELECT * FROM {path}'\n",
    ),
    (
        "service",
        FRAUD,
        but(FRAUD, features=[SPEND["buys_1h"], AGE]),
        (
            "service fraud@1: its list of features changed under an unchanged version 1, which models rely on\n"
            "    features: 'spend@1:buys_24h' → nothing\n    features: 'spend@1:paid_24h' → nothing\n"
            "    leave fraud@1 as it is deployed and declare version=2 beside it"
        ),
    ),
    (
        "order of a service",
        FRAUD,
        but(FRAUD, features=[AGE, SPEND]),
        (
            "service fraud@1: its list of features changed under an unchanged version 1, which models rely on\n"
            "    order of features: ["
        ),
    ),
]


@pytest.mark.parametrize(("before", "after", "sentence"), [case[1:] for case in REFUSED], ids=[c[0] for c in REFUSED])
def test_what_decides_values_is_refused(before: AnyDefinition, after: AnyDefinition, sentence: str) -> None:
    plan = plan_of([before], [after])
    with pytest.raises(PlanRefusedError) as caught:
        plan.check()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "advice"),
    [
        (
            {**SCHEMA, "amount": Decimal(4)},
            (
                "keep 'amount' as Decimal(2), add the new one beside it, such as 'amount_2', and let the next version "
                'of the views read both: Derived("coalesce(amount_2, amount)", Decimal(4))'
            ),
        ),
        (
            {**without(SCHEMA, "kind"), "category": String},
            (
                "keep 'kind' until no view uses it; if it goes by another name now, declare both and "
                'renamed={"category": "kind"}: then either name reads what events and the archive have under the other'
            ),
        ),
        ({**SCHEMA, "note": Int64}, "declare the new shape beside it under another name"),
    ],
)
def test_a_column_that_cannot_be_as_declared_comes_with_the_way(schema: dict[str, Any], advice: str) -> None:
    refused = plan_of([SPEND], [source_on(but(SPEND, where=None), schema=schema)]).refused[0]
    assert (refused.kind, advice in refused.advice) == ("source", True), refused.advice


def test_what_an_upstream_change_refuses_is_told_once() -> None:
    plan = plan_of([SPEND], [source_on(SPEND, schema={**SCHEMA, "amount": Decimal(3)})])
    assert keys(plan.refused) == ["source shop"]


def test_an_unused_column_may_go() -> None:
    plan = plan_of([SPEND], [source_on(SPEND, schema=without(SCHEMA, "note"))])
    assert not plan.refused
    assert keys(plan.changed) == ["source shop"]


def test_a_text_in_an_expression_is_no_column() -> None:
    """`note` stands in quotes in the view's where, and the column of that name is not used."""
    assert "note" in (SPEND.where or "")
    test_an_unused_column_may_go()


def test_a_column_may_go_with_the_last_view_that_used_it() -> None:
    second = but(SPEND, version=2, where=None)
    after = source_on(second, schema=without(SCHEMA, "kind"))
    plan = plan_of([SPEND], [after])
    assert not plan.refused
    assert keys(plan.removed) == ["view spend@1"]


def test_a_view_that_a_deployed_service_pins_stays() -> None:
    plan = plan_of([FRAUD], [AGE])
    assert [str(change) for change in plan.refused] == [
        (
            "view spend@1: it cannot be removed while fraud@1 is deployed, which pins it\n"
            "    first remove fraud@1 alone and apply, once no model asks for it any more; then remove the view"
        )
    ]
    assert not plan_of([FRAUD], [AGE, SPEND]).refused


def test_an_on_demand_view_is_added_behind_its_inputs_and_removed_alone() -> None:
    assert keys(plan_of([SPEND, AGE], [RISK]).added) == ["on-demand view age_per_buy@1"]
    assert keys(plan_of([RISK], [SPEND, AGE]).removed) == ["on-demand view age_per_buy@1"]
    assert plan_of([RISK], [RISK]).empty


@pytest.mark.parametrize(
    ("after", "difference"),
    [
        (but(RISK, code="changed"), "code: 'c0de' → 'changed'"),
        (but(RISK, request={"n": String}), "request.n: 'Int64' → 'String'"),
        (but(RISK, inputs=[SPEND["buys_24h"]]), "inputs.age: 'age@1' → nothing"),
        (but(RISK, features=[Feature("age_per_buy", Int64, default=1)]), "features.age_per_buy.default: 0 → 1"),
    ],
)
def test_another_computation_on_demand_is_refused(after: OnDemandView, difference: str) -> None:
    (refused,) = plan_of([RISK], [after, AGE]).refused
    assert str(refused) == (
        "on-demand view age_per_buy@1: its computation changed under an unchanged version 1, which models were trained "
        f"with\n    {difference}\n    leave age_per_buy@1 as it is deployed and declare version=2 beside it"
    )


def test_what_a_service_computes_on_demand_stays_with_its_inputs() -> None:
    service = FeatureService("risk", version=1, features=[RISK])
    plan = plan_of([service], [AGE])
    assert keys(plan.refused) == ["view spend@1", "on-demand view age_per_buy@1"]
    assert {change.reason for change in plan.refused} == {
        "it cannot be removed while risk@1 is deployed, which pins it"
    }


def test_an_on_demand_view_never_comes_back_as_something_else() -> None:
    before = replace(deployed(SPEND, AGE), retired=retired_after(Definitions.of(SPEND, AGE), deployed(RISK)), number=2)
    assert keys(make_plan(Definitions.of(RISK), before).added) == ["on-demand view age_per_buy@1"]
    assert keys(make_plan(Definitions.of(but(RISK, code="changed")), before).refused) == [
        "on-demand view age_per_buy@1"
    ]


def test_a_new_version_beside_the_old_is_added() -> None:
    plan = plan_of([SPEND], [SPEND, but(SPEND, version=2, where=None)])
    assert keys(plan.added) == ["view spend@2"]
    assert not plan.refused


def test_the_advice_names_the_next_free_version() -> None:
    second = but(SPEND, version=2, where=None)
    plan = plan_of([SPEND, second], [but(SPEND, ttl=None), second])
    assert plan.refused[0].advice == "leave spend@1 as it is deployed and declare version=3 beside it"


def test_a_version_never_comes_back_as_something_else() -> None:
    retired = retired_after(Definitions.of(AGE), deployed(SPEND, AGE))
    before = from_manifest(to_manifest(Definitions(retired=retired, number=2)))
    assert not make_plan(Definitions.of(SPEND), before).refused
    plan = make_plan(Definitions.of(but(SPEND, ttl="1d")), before)
    assert [change.reason for change in plan.refused] == [
        "this version was deployed before with another computation, whose data may still be stored"
    ]
    assert retired_after(Definitions.of(SPEND), before) == {}


def test_a_broken_expression_is_refused_and_not_added() -> None:
    def check(view: WindowedView) -> None:
        raise DefinitionError(f"View {view.name!r}: where: no column 'knd'. Did you mean 'kind'?")

    plan = make_plan(Definitions.of(SPEND, AGE), None, check=check)
    assert [change.reason for change in plan.refused] == ["View 'spend': where: no column 'knd'. Did you mean 'kind'?"]
    assert "view spend@1" not in keys(plan.added)
    assert not plan_of([SPEND], [SPEND], check=check).refused


def test_a_plan_is_plain_data() -> None:
    plan = plan_of([FRAUD], [but(SPEND, where=None, features=[Count("n", windows=["1h"], default=0)]), AGE], now_us=0)
    assert msgspec.json.decode(msgspec.json.encode(plan.to_dict())) == plan.to_dict()
    assert set(plan.to_dict()) == {"added", "removed", "changed", "refused"}
