"""The law, through the client: what is read online at an instant is what the training set says for it.

events      ·  · ·    ·   ·  ·      ·
archive   ├────────────────────────────┤   all of them
batch     ├───────────┤                    published up to the cut
stream    ├──────────────────────┤  T      applied; T is after the newest
"""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from forebay.core.rows import stored
from forebay.core.values import FeatureColumn, Status
from forebay.instants import DAY_US
from tests.client.deployed_world import PROFILE_SCHEMA, World
from tests.client.test_bucketed import events as some_events
from tests.client.test_bucketed import profiles as some_profiles
from tests.infra.valkey import Valkey
from tests.laws.world import EVENTS, INSTANTS, MIDNIGHT_US, VIEW, Event, check
from tests.places import everywhere

ENTITIES = ["eve", None, "ann", "nobody", "bob", "ann"]
NUMBER = st.none() | st.integers(-(10**6), 10**6)
PROFILES = st.lists(
    st.fixed_dictionaries(
        {
            "user": st.sampled_from(["ann", "bob"]),
            "age": NUMBER,
            "city": st.none() | st.text("abé", max_size=3),
            "balance": st.none() | st.decimals(-1000, 1000, places=2),
            "event_timestamp": st.integers(-3, 2).map(lambda days: MIDNIGHT_US + days * DAY_US),
        }
    ),
    min_size=1,
    max_size=6,
)


def in_order(profiles: list[dict[str, Any]]) -> pa.Table:
    """Profiles as rows of a batch view, each created later than the one before."""
    rows = [row | {"created_timestamp": at, "partition_start": 0} for at, row in enumerate(profiles)]
    return pa.Table.from_pylist(rows, PROFILE_SCHEMA)


@settings(max_examples=20)
@given(events=EVENTS, profiles=PROFILES, cut=st.sampled_from([None, -1, 0, 1]), after=st.integers(1, 3 * DAY_US))
def test_online_is_training(
    valkey: Valkey, events: list[Event], profiles: list[dict[str, Any]], cut: int | None, after: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(valkey.url, Path(folder), f"law-{uuid.uuid4().hex[:8]}")
        world.stream(world.archive(events))
        if cut is not None:
            world.publish(events, MIDNIGHT_US + cut * DAY_US)
        world.publish_profile(in_order(profiles))
        newest = max([MIDNIGHT_US + 2 * DAY_US, *(event.ts for event in events)])
        compare(world, newest + after)
        world.close()


@everywhere
def test_online_is_training_wherever_the_offline_store_is(
    place: str, tmp_path: Path, online_url: str, namespace: str
) -> None:
    """
    day       -1        0        1
    batch     ├─────────┤
    stream    ├───────────────────┤  T
    """
    world, drawn = World(online_url, tmp_path, namespace, place), some_events(80)
    world.stream(world.archive(drawn))
    world.publish(drawn, MIDNIGHT_US)
    world.publish_profile(some_profiles())
    compare(world, max(MIDNIGHT_US + 2 * DAY_US, *(event.ts for event in drawn)) + 1)
    asked = [(user, MIDNIGHT_US + at * DAY_US // 2) for user in ("ann", "eve", "nobody") for at in range(-1, 5)]
    names = [f"{VIEW.key}:{name}" for name in VIEW.outputs()]
    spine = {
        "user": [user for user, _ in asked],
        "event_timestamp": pa.array([at for _, at in asked], pa.timestamp("us", "UTC")),
    }
    training = world.store.get_historical_features(spine, features=names, with_statuses=True).to_arrow()
    world.close()
    check(as_columns(training), drawn, asked)


def compare(world: World, at_us: int) -> None:
    """Every value and status of every entity, online at an instant and in a training set of that instant."""
    online = world.store.get_online_features("everything@1", entity_rows={"user": ENTITIES}, at=at_us)
    spine = {"user": ENTITIES, "event_timestamp": pa.array([at_us] * len(ENTITIES), pa.timestamp("us", "UTC"))}
    training = world.store.get_historical_features(spine, features="everything@1", with_statuses=True)
    table = training.to_arrow()
    assert online.instant_us == at_us
    for name, values in online.to_dict().items():
        if "real" in name or name.startswith("Decayed"):
            continue  # sums of floats differ by their order, as the law allows; tests/laws bounds by how much
        assert table[name].to_pylist() == values, name
    for name in training.feature_names:
        assert table[f"{name}__status"].to_pylist() == online.statuses[name], name


@settings(max_examples=10)
@given(events=EVENTS, asked=st.lists(st.tuples(st.sampled_from(ENTITIES), INSTANTS), min_size=1, max_size=8))
def test_a_training_set_is_the_oracle_row_by_row(
    valkey: Valkey, events: list[Event], asked: list[tuple[str | None, int]]
) -> None:
    spine = {
        "row": list(range(len(asked))),
        "user": pa.array([user for user, _ in asked], pa.string()),
        "event_timestamp": pa.array([at for _, at in asked], pa.timestamp("us", "UTC")),
    }
    names = [f"{VIEW.key}:{name}" for name in VIEW.outputs()]
    with tempfile.TemporaryDirectory() as folder:
        world = World(valkey.url, Path(folder), f"law-{uuid.uuid4().hex[:8]}")
        world.archive(events[: len(events) // 2])
        world.archive(events[len(events) // 2 :])
        training = world.store.get_historical_features(spine, features=names, with_statuses=True).to_arrow()
        world.close()
    assert training["row"].to_pylist() == spine["row"]
    check(as_columns(training), events, [(user or "", at) for user, at in asked])


def as_columns(table: pa.Table) -> list[FeatureColumn]:
    """The columns of a training set as the core had them."""
    columns = []
    for name, feature in VIEW.outputs().items():
        column = stored(table[name], feature.type)
        status = np.array([Status[text] for text in table[f"{name}__status"].to_pylist()], np.uint8)
        columns.append(FeatureColumn(feature, column.values, column.valid, status, np.zeros(len(status), np.int64)))
    return columns
