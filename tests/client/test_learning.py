"""Statistical defaults: learned from history by a deliberate act, one value in serving, training and history.

day          0        1        2        3   now
u1           ● 10.00  ●  4.00                       spent_24h at midnight of days 1 and 2: 10.00, 4.00
u2           ●  2.00                                                       of day 1: 2.00
nobody                                              the default: otherwise, then the median of 10, 4 and 2
"""

from __future__ import annotations

from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from forebay import (
    Average,
    BatchView,
    Bool,
    Decimal,
    Feature,
    FeatureService,
    Float64,
    Int64,
    Last,
    Mean,
    Median,
    MostCommon,
    Percentile,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
)
from forebay.backfill.publication import publish_view
from forebay.client import deployed
from forebay.client.feature_store import FeatureStore
from forebay.deploy.plan import make_plan
from forebay.errors import DefinitionError, PlanRefusedError, RequestError, UnknownNameError
from forebay.history import learning
from forebay.history.learning import Learned, learn, sampled, values_of
from forebay.instants import DAY_US
from forebay.language.definitions import Definitions
from forebay.language.fingerprint import fingerprint, signature
from forebay.language.learned import learned_of, statistics_of, with_learned
from forebay.language.manifest import from_manifest, to_manifest
from forebay.language.statistics import Statistic
from tests.backfill.shop import sales, user
from tests.backfill.world import START, day, sale
from tests.client.deployed_world import PROFILE_SCHEMA
from tests.client.two_versions import Shop
from tests.places import everywhere

SPENT = WindowedView(
    "spent",
    version=1,
    entity=user,
    source=sales,
    features=[
        Sum("spent", of="amount", windows=["24h", "7d"], default=Median(over="3d", otherwise=0)),
        Mean("weight", of="weight", windows=["24h"], default=Average(over="3d", otherwise=None)),
        Last("last", of="amount", windows=["24h"], default=Percentile(percent=100, over="1d", otherwise="0.50")),
        Sum("plain", of="amount", windows=["24h"], default=7),
    ],
)
PEOPLE = TableSource("people", schema={"user_id": String, "at": Timestamp}, effective="at", path="people.csv")
PROFILE = BatchView(
    name="profile",
    version=1,
    entity=user,
    sources=[PEOPLE],
    partitions="none",
    features=[
        Feature("age", Int64, default=Median(over="2d", otherwise=30)),
        Feature("city", String, default=MostCommon(over="2d", otherwise="nowhere")),
        Feature("balance", Decimal(2), default=Average(over="2d", otherwise=None)),
    ],
)
EVERYTHING = FeatureService("everything", version=1, features=[SPENT, PROFILE])
SALES = [sale(0, day(0, 1), "u1", "10.00"), sale(1, day(0, 2), "u2", "2.00", 2.0), sale(2, day(1, 3), "u1", "4.00")]
USERS = ["u1", "u2", "nobody", "x" * 600]
NOW = day(3, 5)
AT = day(3, 6)


def people(rows: dict[str, tuple[int, str, str]]) -> pa.Table:
    """Rows of the batch view, which hold from the first day on."""
    stamps = {"event_timestamp": day(1), "created_timestamp": day(1), "partition_start": START}
    found = [
        {"user": name, "age": age, "city": city, "balance": Number(balance), **stamps}
        for name, (age, city, balance) in rows.items()
    ]
    return pa.Table.from_pylist(found, PROFILE_SCHEMA).rename_columns({"user": "user_id"})


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, place: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Both views deployed and filled; clients look at each call whether something newer is deployed."""
    monkeypatch.setattr(deployed, "REREAD_AFTER_S", 0.0)
    made = Shop.at(home, online_url, namespace, place)
    made.apply(EVERYTHING)
    made.stream(SALES, SPENT)
    made.offline.rows(PROFILE).overwrite(
        START,
        START + DAY_US,
        people({"u1": (20, "Rome", "1.00"), "u2": (41, "Oslo", "0.05"), "u3": (31, "Rome", "0.00")}),
    )
    publish_view(made.redis, namespace, made.offline, PROFILE)
    return made


def same(shop: Shop) -> dict[str, list[Any]]:
    """What serving says, which is what training and history say."""
    online = shop.online("everything@1", USERS, AT)
    assert online == shop.training("everything@1", USERS, AT) == shop.training(EVERYTHING, USERS, AT)
    assert online == shop.online(EVERYTHING, USERS, AT)
    for view in (SPENT, PROFILE):
        for row, name in enumerate(USERS):
            found = shop.store.feature_history(view.key, {"user_id": name}, start=AT, end=AT + 1).to_arrow()
            assert all(found[feature].to_pylist() == [online[feature][row]] for feature in view.outputs())
    return online


@everywhere
def test_a_default_is_otherwise_until_it_is_learned_and_then_the_statistic_in_every_path(shop: Shop) -> None:
    before = same(shop)
    assert before["spent_24h"] == [Number("0.00")] * 4
    assert (before["weight_24h"], before["last_24h"]) == ([None] * 4, [Number("0.50")] * 4)
    assert (before["age"], before["city"][2:]) == ([20, 41, 30, 30], ["nowhere"] * 2)
    for view in (SPENT, PROFILE):
        shop.registry.learn(view.key, values_of(learn(shop.offline, view, now_us=NOW)))
    after = same(shop)
    assert after["spent_24h"] == [Number("4.00")] * 4, "the median of 10, 4 and 2"
    assert after["weight_24h"] == [(1.0 + 2.0 + 1.0) / 3] * 4
    assert after["last_24h"] == [Number("0.50")] * 4, "within one day there was no value: otherwise stays"
    assert (after["age"][2:], after["city"][2:]) == ([31] * 2, ["Rome"] * 2)
    assert after["balance"][2:] == [Number("0.35")] * 2
    assert after["plain_24h"] == before["plain_24h"] == [Number("7.00")] * 4
    assert after["statuses"] == before["statuses"], "a default is a default still"


@everywhere
def test_what_is_learned_again_changes_every_path_at_once(shop: Shop) -> None:
    shop.registry.learn(PROFILE.key, values_of(learn(shop.offline, PROFILE, now_us=NOW)))
    client = FeatureStore(shop.settings)
    asked = {"features": ["profile@1:age"], "entity_rows": {"user_id": ["nobody"]}}
    assert client.get_online_features(**asked).to_dict()["age"] == [31]
    shop.offline.rows(PROFILE).overwrite(START, START + DAY_US, people({"u1": (50, "Oslo", "2.00")}))
    assert client.get_online_features(**asked).to_dict()["age"] == [31], "new rows change no default by themselves"
    assert shop.registry.learn(PROFILE.key, values_of(learn(shop.offline, PROFILE, now_us=NOW))) == 3
    assert client.get_online_features(**asked).to_dict()["age"] == [50], "a client that runs follows"
    client.close()


def test_what_is_learned_says_of_how_many_values(shop: Shop) -> None:
    assert learn(shop.offline, PROFILE, now_us=NOW) == [
        Learned("age", "Median over 2d", 31, 6),
        Learned("city", "MostCommon over 2d", "Rome", 6),
        Learned("balance", "Average over 2d", Number("0.35"), 6),
    ]
    spent = {one.feature: one for one in learn(shop.offline, SPENT, now_us=NOW)}
    assert (spent["spent_24h"].values, spent["spent_7d"].values, spent["last_24h"].values) == (3, 6, 0)
    assert spent["spent_7d"].value == np.median([10, 2, 14, 2, 14, 2])


def test_only_a_hash_chooses_the_entities_of_a_sample(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"u{number}" for number in range(1_000)]
    assert sampled(keys, 10) == sampled(keys[::-1], 10) != keys[:10]
    assert sampled(keys, 2_000) == sorted(keys)
    monkeypatch.setattr(learning, "VALUES_MAX", 2)
    assert {one.values for one in learn(shop.offline, PROFILE, now_us=NOW)} == {2}
    monkeypatch.setattr(learning, "ROWS_AT_ONCE", 1)
    monkeypatch.setattr(learning, "VALUES_MAX", 100)
    assert {one.values for one in learn(shop.offline, PROFILE, now_us=NOW)} == {6}


def test_a_refresh_is_a_deployment_and_no_change_of_the_computation(shop: Shop) -> None:
    values = values_of(learn(shop.offline, SPENT, now_us=NOW))
    assert shop.registry.learn(SPENT.key, values) == 2
    assert shop.registry.learn(SPENT.key, values) == 2, "nothing is new"
    current = shop.registry.current()
    assert current is not None
    assert learned_of(current.view("spent@1")) == values
    assert fingerprint(current.view("spent@1")) == fingerprint(SPENT)
    assert signature(SPENT)["features.spent_24h.default"] == "Median over 3d, otherwise 0"
    assert make_plan(Definitions.of(EVERYTHING), current).empty
    assert to_manifest(from_manifest(to_manifest(current))) == to_manifest(current)
    second = FeatureService("everything", version=2, features=[SPENT])
    assert shop.apply(EVERYTHING, second) == 3
    kept = shop.registry.current()
    assert kept is not None
    assert learned_of(kept.view("spent@1")) == values, "an apply keeps what was learned"
    other = WindowedView(
        "spent",
        version=1,
        entity=user,
        source=sales,
        features=[
            *SPENT.features[1:],
            Sum("spent", of="amount", windows=["24h", "7d"], default=Median(over="9d", otherwise=0)),
        ],
    )
    with pytest.raises(PlanRefusedError, match="'Median over 3d, otherwise 0' → 'Median over 9d, otherwise 0'"):
        shop.apply(FeatureService("everything", version=1, features=[other, PROFILE]))


def test_what_cannot_be_learned_is_refused(shop: Shop) -> None:
    with pytest.raises(UnknownNameError, match="spent@2"):
        shop.registry.learn("spent@2", {})
    with pytest.raises(DefinitionError, match="learns no default of 'plain_24h'"):
        shop.registry.learn(SPENT.key, {"plain_24h": 1})
    with pytest.raises(DefinitionError, match="is not a Decimal"):
        shop.registry.learn(SPENT.key, {"spent_24h": "much"})
    plain = WindowedView("plain", version=1, entity=user, source=sales, features=[SPENT.features[-1]])
    with pytest.raises(RequestError, match="declares no statistical default"):
        learn(shop.offline, plain, now_us=NOW)
    assert statistics_of(plain) == {} == learned_of(with_learned(plain, {}))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Median(over="30d"), "Median names no otherwise"),
        (lambda: Median(over="36h", otherwise=0), "expected whole days such as '30d'"),
        (lambda: Median(over="month", otherwise=0), "Median: over: 'month' is not a duration"),
        (lambda: Percentile(percent=101, over="1d", otherwise=0), "percent=101; expected 0 to 100"),
        (
            lambda: Feature("x", String, default=Median(over="1d", otherwise="a")),
            "Median cannot be taken of String; it needs numbers",
        ),
        (
            lambda: Feature("x", Float64, default=MostCommon(over="1d", otherwise=0)),
            "needs texts, truth values or whole numbers",
        ),
        (
            lambda: Feature("x", Int64, default=Median(over="1d", otherwise="a")),
            "otherwise of Median: default 'a' is not an Int64",
        ),
        (lambda: Feature("x", Decimal(2), default=Median(over="1d", otherwise=0.005)), "which would make 0.00 of it"),
    ],
)
def test_a_statistic_that_cannot_be_is_refused(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make()


@pytest.mark.parametrize(
    ("statistic", "kind", "stored", "expected"),
    [
        (Median(over="1d", otherwise=0), Int64, [1, 2, 4, 5], 3),
        (Median(over="1d", otherwise=0), Int64, [2, 3], 2),  # half-even
        (Average(over="1d", otherwise=0), Decimal(2), [100, 101], Number("1.00")),
        (Average(over="1d", otherwise=0), Float64, [0.5, 1.0], 0.75),
        (Percentile(percent=90, over="1d", otherwise=0), Int64, list(range(101)), 90),
        (MostCommon(over="1d", otherwise=None), Int64, [3, 1, 3, 1, 2], 1),
        (MostCommon(over="1d", otherwise=None), Bool, [True, True, False], True),
        (MostCommon(over="1d", otherwise=None), String(max_bytes=4), [b"b", b"a", b"b"], "b"),
        (MostCommon(over="1d", otherwise=None), String, np.array(["b", "a", "b"], object), "b"),
    ],
)
def test_a_statistic_is_a_value_of_the_type(statistic: Statistic, kind: Any, stored: Any, expected: Any) -> None:
    value = statistic.of(np.asarray(stored), kind)
    assert (value, type(value)) == (expected, type(expected))
