"""Online reads through the client: order, defaults, the instant, and one round trip."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from forebay.client.feature_store import FeatureStore
from forebay.core.identity import KEY_BYTES_MAX
from forebay.errors import InstantTooEarlyError, NotDeployedError, RequestError, StoreUnavailableError, UnknownNameError
from forebay.instants import MINUTE_US, moment
from forebay.language.definitions import Definitions
from forebay.language.manifest import to_manifest
from forebay.online.keys import Keys
from forebay.settings import Settings
from tests.client.deployed_world import DEFINITIONS, World
from tests.infra.valkey import Valkey
from tests.laws.world import COLUMNS, MIDNIGHT_US, Event

FEATURES = ["everything@1:Sum_whole_1h", "everything@1:Count_all_lifetime", "profile@1:city"]
#         11:50   12:00
# ann   ────·───────·────    whole: 1, 2
# bob   ────────────·────    whole: 5


def event(user: str, minute: int, whole: int, name: str) -> Event:
    return Event(user, MIDNIGHT_US + minute * MINUTE_US, name, dict.fromkeys(COLUMNS) | {"whole": whole})


EVENTS = [event("ann", 710, 1, "a"), event("ann", 720, 2, "b"), event("bob", 720, 5, "c")]
NOON = moment(MIDNIGHT_US + 720 * MINUTE_US)
LATER = moment(MIDNIGHT_US + 721 * MINUTE_US)


@pytest.fixture
def world(valkey: Valkey, tmp_path: Path, namespace: str) -> World:
    made = World(valkey.url, tmp_path, namespace)
    made.stream(made.archive(EVENTS))
    return made


def test_a_key_that_is_too_long_gets_defaults_in_every_path(world: World) -> None:
    long = "x" * (KEY_BYTES_MAX + 1)
    world.archive([event(long, 715, 3, "d")])
    online = world.store.get_online_features(FEATURES, entity_rows=[{"user": long}], at=LATER)
    spine = {"user": [long], "event_timestamp": [LATER]}
    training = world.store.get_historical_features(spine, features=FEATURES, with_statuses=True).to_arrow()
    history = world.store.feature_history("everything@1", {"user": long}, start=NOON, end=LATER).to_arrow()
    for name, values in list(online.to_dict().items())[1:]:
        assert (values, online.statuses[name]) == (training[name].to_pylist(), ["DEFAULT_MISSING"])
        assert training[f"{name}__status"].to_pylist() == ["DEFAULT_MISSING"]
        assert name not in history.column_names or set(history[name].to_pylist()) == set(values)


def test_rows_come_back_in_order_with_defaults_for_who_is_unknown_or_null(world: World) -> None:
    rows = [{"user": name} for name in ("bob", "nobody", "ann", None, "bob")]
    answer = world.store.get_online_features(FEATURES, entity_rows=rows, at=LATER)
    assert answer.to_dict() == {
        "user": ["bob", "nobody", "ann", None, "bob"],
        "Sum_whole_1h": [5, 7, 3, 7, 5],
        "Count_all_lifetime": [1, -1, 2, -1, 1],
        "city": ["nowhere"] * 5,
    }
    missing, present = "DEFAULT_MISSING", "PRESENT"
    assert answer.statuses["Sum_whole_1h"] == [present, missing, present, missing, present]
    assert answer.event_timestamps["Sum_whole_1h"] == [NOON, None, NOON, None, NOON]
    assert answer.ages["Sum_whole_1h"] == [60.0, None, 60.0, None, 60.0]
    assert answer.instant == LATER
    behind = answer.metadata["views"]["everything@1"]
    assert behind["commits"] == [1, behind["commits"][1], 1, None, 1]
    assert behind["cuts"] == [None] * 5
    assert behind["overdue"] == [False] * 5


def test_no_rows_are_no_values(world: World) -> None:
    answer = world.store.get_online_features(FEATURES, entity_rows=[])
    assert answer.to_dict() == {"user": [], "Sum_whole_1h": [], "Count_all_lifetime": [], "city": []}
    assert len(answer.to_df()) == len(answer) == 0


def test_all_null_keys_ask_the_store_for_nothing(world: World) -> None:
    answer = world.store.get_online_features(FEATURES, entity_rows=[{"user": None}])
    assert answer.to_dict()["Sum_whole_1h"] == [7]


def test_features_may_be_renamed_in_full(world: World) -> None:
    answer = world.store.get_online_features(FEATURES, entity_rows=[{"user": "ann"}], full_feature_names=True)
    assert list(answer.to_dict()) == [
        "user",
        "everything__Sum_whole_1h",
        "everything__Count_all_lifetime",
        "profile__city",
    ]


def test_an_instant_that_lies_before_what_is_applied_is_historys(world: World) -> None:
    with pytest.raises(InstantTooEarlyError, match="feature_history"):
        world.store.get_online_features(FEATURES, entity_rows=[{"user": "ann"}], at=NOON)
    with pytest.raises(RequestError, match="no time zone"):
        world.store.get_online_features(FEATURES, entity_rows=[{"user": "ann"}], at="2013-01-01T00:00:00")


def test_a_live_read_is_of_now(world: World) -> None:
    before = datetime.now(UTC)
    answer = world.store.get_online_features(FEATURES, entity_rows=[{"user": "ann"}])
    assert before <= answer.instant <= datetime.now(UTC)


def test_a_read_is_one_round_trip(world: World) -> None:
    rows = [{"user": f"user{i}"} for i in range(50)]
    world.store.get_online_features(FEATURES, entity_rows=rows)
    before = world.redis.info("stats")["total_commands_processed"]
    world.store.get_online_features(FEATURES, entity_rows=rows)
    assert world.redis.info("stats")["total_commands_processed"] - before == 2  # the MGET, and this INFO


def test_the_deployed_manifest_is_read_and_read_again_for_a_new_name(
    valkey: Valkey, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.client.deployed.REREAD_AFTER_S", 0.0)
    settings = Settings(tmp_path, valkey.url, str(tmp_path), definitions="feature_defs", namespace=namespace)
    with FeatureStore(settings) as store, valkey.connect() as client:
        with pytest.raises(NotDeployedError, match="forebay apply"):
            store.get_online_features("arrival_delay@1", entity_rows=[])
        client.set(Keys(namespace).manifest(), to_manifest(Definitions.load("feature_defs")))
        assert "arrival_delay@1" in store.definitions.services
        with pytest.raises(UnknownNameError):
            store.get_online_features("everything@1", entity_rows=[{"user": "ann"}])
        client.set(Keys(namespace).manifest(), to_manifest(DEFINITIONS))
        view = next(iter(DEFINITIONS.views))
        assert store.find(lambda known: known.view(view)).key == view
        answer = store.get_online_features("everything@1", entity_rows=[{"user": "ann"}])
        assert answer.statuses["city"] == ["DEFAULT_MISSING"]
        with pytest.raises(UnknownNameError):
            store.get_online_features("arrival_delay@1", entity_rows=[])


def test_arguments_come_before_the_environment(valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_ONLINE_URL", "redis://127.0.0.1:1/0")
    dead = FeatureStore.connect(definitions=DEFINITIONS)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:1 cannot be reached"):
        dead.get_online_features(FEATURES, entity_rows=[{"user": "ann"}])
    with FeatureStore.connect(valkey.url, namespace=namespace, definitions=DEFINITIONS) as store:
        assert len(store.get_online_features(FEATURES, entity_rows=[{"user": "ann"}])) == 1
