"""Training sets and histories through the client, on a folder and on S3."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from forebay.client.feature_store import FeatureStore
from forebay.core import ranges
from forebay.core import threads as core_threads
from forebay.errors import RequestError, StoreError, UnknownNameError
from forebay.history import archived, historical
from forebay.instants import DAY_US, MINUTE_US, moment
from forebay.offline.reading import RowGroup
from forebay.settings import Settings
from tests.client.deployed_world import DEFINITIONS, PROFILE_SCHEMA, World
from tests.laws.world import COLUMNS, MIDNIGHT_US, Event

FEATURES = ["everything@1:Sum_whole_1h", "everything@1:Last_word_lifetime", "profile@1:age", "profile@1:city"]


def at(minute: float) -> datetime:
    """A minute of the day."""
    return moment(MIDNIGHT_US + int(minute * MINUTE_US))


def event(user: str, minute: int, whole: int | None, name: str) -> Event:
    values: dict[str, Any] = dict.fromkeys(COLUMNS) | {"whole": whole, "word": name}
    return Event(user, MIDNIGHT_US + minute * MINUTE_US, name, values)


#                 minute  10      20      30              100
# ann   whole     ────────1───────2───────────────────────4─
# bob   whole     ────────────────────────8─────────────────
EVENTS = [event("ann", 10, 1, "a"), event("ann", 20, 2, "b"), event("bob", 30, 8, "c"), event("ann", 100, 4, "d")]


def profile(user: str, day: int, age: int | None, city: str | None, created: int) -> dict[str, Any]:
    start_us = MIDNIGHT_US + day * DAY_US
    return {
        "user": user,
        "age": age,
        "city": city,
        "event_timestamp": start_us,
        "created_timestamp": start_us + created,
        "partition_start": start_us,
    }


@pytest.fixture
def store(offline_url: str, tmp_path: Path, online_url: str, namespace: str) -> FeatureStore:
    world = World(online_url, tmp_path, namespace, offline_url)
    world.archive(EVENTS)
    rows = [profile("ann", -1, 30, "Ede", 5), profile("ann", 0, 31, None, 5), profile("ann", 0, 32, "Epe", 9)]
    world.publish_profile(pa.Table.from_pylist(rows, PROFILE_SCHEMA))
    return world.store


def test_each_row_of_the_spine_is_answered_in_its_place(store: FeatureStore) -> None:
    spine = pd.DataFrame(
        {
            "label": [1.5, 2.5, 3.5, 4.5, 5.5],
            "user": ["bob", "ann", None, "ann", "nobody"],
            "event_timestamp": [at(31), at(20.5), at(20), at(20.5), at(20)],
        },
        index=[9, 8, 7, 6, 5],
    )
    table = store.get_historical_features(spine, features=FEATURES, with_statuses=True).to_arrow()
    assert table.select(["label", "user", "event_timestamp"]).to_pydict() == {
        "label": [1.5, 2.5, 3.5, 4.5, 5.5],
        "user": ["bob", "ann", None, "ann", "nobody"],
        "event_timestamp": [at(31), at(20.5), at(20), at(20.5), at(20)],
    }
    assert table["Sum_whole_1h"].to_pylist() == [8, 3, 7, 3, 7]
    assert table["Last_word_lifetime"].to_pylist() == ["c", "b", "none", "b", "none"]
    assert table["age"].to_pylist() == [None, 32, None, 32, None]
    assert table["city"].to_pylist() == ["nowhere", "Epe", "nowhere", "Epe", "nowhere"]
    missing, present = "DEFAULT_MISSING", "PRESENT"
    assert table["Sum_whole_1h__status"].to_pylist() == [present, present, missing, present, missing]
    assert table["age__status"].to_pylist() == [missing, present, missing, present, missing]


def test_whole_numbers_with_nulls_stay_whole(store: FeatureStore) -> None:
    frame = store.get_historical_features(
        {"user": ["ann", "bob"], "event_timestamp": [at(1), at(1)]}, features=["profile@1:age"]
    ).to_df()
    assert str(frame["age"].dtype) == "Int64"
    assert frame["age"].tolist() == [32, pd.NA]
    assert list(frame.columns) == ["user", "event_timestamp", "age"]


def test_an_event_at_the_instant_is_the_future_and_a_ttl_ends_values(store: FeatureStore) -> None:
    #          10        20            620       (ttl 12h = 720 minutes after the newest event, at 100)
    instants = [at(10), at(10.001), at(820), at(820.001)]
    spine = {"user": ["ann"] * 4, "event_timestamp": instants}
    table = store.get_historical_features(spine, features=FEATURES[1:2], with_statuses=True).to_arrow()
    assert table["Last_word_lifetime"].to_pylist() == ["none", "a", "d", "none"]
    assert table["Last_word_lifetime__status"].to_pylist() == [
        "DEFAULT_MISSING",
        "PRESENT",
        "PRESENT",
        "DEFAULT_EXPIRED",
    ]


def test_an_archive_that_does_not_fit_in_memory_is_read_by_groups_of_entities(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = ["nobody", "ann", "bob", None, "ann", "eve", "bob"]
    spine = {"user": users, "event_timestamp": [at(31)] * 7}
    whole = store.get_historical_features(spine, features="everything@1").to_arrow()
    monkeypatch.setattr(historical, "EVENTS_AT_ONCE", 1)
    assert store.get_historical_features(spine, features="everything@1").to_arrow().equals(whole)
    monkeypatch.setattr(historical, "EVENTS_AT_ONCE", 3)
    monkeypatch.setattr(archived, "LOOKED_UP_MAX", 0)
    assert store.get_historical_features(spine, features="everything@1").to_arrow().equals(whole)


def test_swept_with_others_among_them_events_give_the_same(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large archive takes other ways: whole files, events of entities that nobody asks about, compiled code."""
    spine = {"user": ["nobody", "bob", None, "bob"], "event_timestamp": [at(31), at(31), at(31), at(20)]}
    whole = store.get_historical_features(spine, features="everything@1").to_arrow()
    monkeypatch.setattr(ranges, "SWEPT_EVENTS", 1)
    monkeypatch.setattr(archived, "LOOKED_UP_MAX", 0)
    monkeypatch.setattr(archived, "PIECE_ROWS", 1)
    for others in (0.0, 1.0):
        monkeypatch.setattr(archived, "OTHERS_MAX", others)
        assert store.get_historical_features(spine, features="everything@1").to_arrow().equals(whole)


#   ann        ─────a──────b─c────     b and c at one instant: c has the greater id, whichever came first
#   eve        ─────────────d─────     archived alone
TIED = [event("ann", 10, 1, "a"), event("ann", 20, 3, "c"), event("ann", 20, 2, "b"), event("eve", 20, 9, "d")]


@pytest.mark.parametrize("swept", [1, 3, 10**9])  # from the first event on, from the third on, never
@pytest.mark.parametrize("threads", ["1", "2"])
def test_ids_that_were_not_read_at_first_decide_between_events_of_one_instant(
    tmp_path: Path, online_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch, swept: int, threads: str
) -> None:
    world = World(online_url, tmp_path, namespace)
    for some in (TIED[:1], TIED[1:2], TIED[2:]):
        world.archive(some)
    read: list[tuple[str, ...]] = []
    group = RowGroup.read
    monkeypatch.setattr(RowGroup, "read", lambda one, columns=None: read.append(columns) or group(one, columns))
    monkeypatch.setattr(ranges, "SWEPT_EVENTS", swept)
    monkeypatch.setattr(archived, "PIECE_ROWS", 1)
    monkeypatch.setattr(archived, "LARGE_PIECE_ROWS", 1)
    monkeypatch.setattr(world.store._deployed.offline, "threads", int(threads))
    if threads == "1":
        monkeypatch.setattr(core_threads, "ThreadPoolExecutor", None)
    names = ["everything@1:Last_word_lifetime", "everything@1:First_whole_lifetime", "everything@1:Count_all_lifetime"]
    spine = {"user": ["ann", "eve", "ann"], "event_timestamp": [at(21), at(21), at(11)]}
    table = world.store.get_historical_features(spine, features=names).to_arrow()
    assert table["Last_word_lifetime"].to_pylist() == ["c", "d", "a"]
    assert table["First_whole_lifetime"].to_pylist() == [1, 9, 1]
    assert table["Count_all_lifetime"].to_pylist() == [3, 1, 1]
    later = [columns for columns in read if columns is not None]
    assert later == [["event_id"]] * (2 if swept <= 3 else 3), "ids are read where two events are tied"
    read.clear()
    world.store.get_historical_features(spine, features=names[2:])
    assert read == [None] * 3


def test_an_empty_spine_and_empty_stores_give_defaults(tmp_path: Path, online_url: str, namespace: str) -> None:
    world = World(online_url, tmp_path, namespace)
    schema = pa.schema([("user", pa.string()), ("event_timestamp", pa.timestamp("us", "UTC"))])
    assert len(world.store.get_historical_features(schema.empty_table(), features="everything@1")) == 0
    table = world.store.get_historical_features(
        pa.table([["ann"], [at(0)]], schema=schema), features=FEATURES
    ).to_arrow()
    assert table.select(["Sum_whole_1h", "age", "city"]).to_pylist() == [
        {"Sum_whole_1h": 7, "age": None, "city": "nowhere"}
    ]
    history = world.store.feature_history("profile@1", {"user": "ann"}, start=at(0), end=at(1)).to_arrow()
    assert history["city"].to_pylist() == ["nowhere"]


def test_a_history_has_a_row_at_the_start_and_after_each_event(store: FeatureStore) -> None:
    history = store.feature_history("everything@1", {"user": "ann"}, start=at(15), end=at(100), with_statuses=True)
    frame = history.to_df()
    assert frame["instant"].tolist() == [at(15), moment(MIDNIGHT_US + 20 * MINUTE_US + 1)]
    assert frame["Sum_whole_1h"].tolist() == [1, 3]
    assert frame["user"].tolist() == ["ann", "ann"]
    assert frame["Sum_whole_1h__status"].tolist() == ["PRESENT", "PRESENT"]
    assert history.feature_names[0] in frame.columns


def test_a_history_on_a_grid_shows_what_leaves_the_windows(store: FeatureStore) -> None:
    history = store.feature_history("everything@1", {"user": "ann"}, start=at(0), end=at(120), every="30m").to_arrow()
    assert history["instant"].to_pylist() == [at(0), at(30), at(60), at(90)]
    assert history["Sum_whole_1h"].to_pylist() == [7, 3, 3, 7]


def test_the_history_of_a_batch_view_is_its_rows_as_they_would_have_been_served(store: FeatureStore) -> None:
    start, end = moment(MIDNIGHT_US - 2 * DAY_US), moment(MIDNIGHT_US + DAY_US)
    history = store.feature_history("profile@1", {"user": "ann"}, start=start, end=end).to_arrow()
    assert history.select(["instant", "age", "city"]).to_pylist() == [
        {"instant": start, "age": None, "city": "nowhere"},
        {"instant": moment(MIDNIGHT_US - DAY_US), "age": 30, "city": "Ede"},
        {"instant": moment(MIDNIGHT_US), "age": 32, "city": "Epe"},
    ]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: s.feature_history("everything@1", {"usr": "ann"}, start=at(0), end=at(1)), RequestError, "'user'"),
        (lambda s: s.feature_history("everything@1", {"user": None}, start=at(0), end=at(1)), RequestError, "is null"),
        (
            lambda s: s.feature_history("everything@1", {"user": 7}, start=at(0), end=at(1)),
            RequestError,
            "not a String",
        ),
        (
            lambda s: s.feature_history("every@1", {"user": "a"}, start=at(0), end=at(1)),
            UnknownNameError,
            "everything@1",
        ),
        (
            lambda s: s.feature_history("everything@1", {"user": "a"}, start=at(1), end=at(1)),
            RequestError,
            "start before",
        ),
        (
            lambda s: s.feature_history("everything@1", {"user": "a"}, start=at(1).replace(tzinfo=None)),
            RequestError,
            "no time zone",
        ),
        (lambda s: s.get_historical_features(EVENTS, features=FEATURES), RequestError, "entity_df"),
        (lambda s: s.get_historical_features([], features=[]), RequestError, "expected a service"),
        (lambda s: s.get_historical_features([], features=["profile@1:cty"]), UnknownNameError, "Did you mean 'city'"),
    ],
)
def test_bad_requests_are_refused(
    tmp_path: Path, online_url: str, call: Any, error: type[Exception], message: str
) -> None:
    store = FeatureStore(Settings(tmp_path, online_url, str(tmp_path)), DEFINITIONS)
    with pytest.raises(error, match=message):
        call(store)


def test_a_dead_s3_is_one_error(online_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    store = FeatureStore(Settings(tmp_path, online_url, "s3://nowhere/x"), DEFINITIONS)
    with pytest.raises(StoreError):
        store.get_historical_features({"user": ["ann"], "event_timestamp": [datetime.now(UTC)]}, features=FEATURES)


def test_an_inference_service_without_the_offline_packages_is_told_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "for name in ('deltalake', 'duckdb', 'pandas', 's3fs'): sys.modules[name] = None\n"
        "from datetime import UTC, datetime\n"
        "from forebay import FeatureStore\n"
        "from forebay.errors import ConfigError\n"
        "store = FeatureStore.connect('redis://127.0.0.1:1/0', definitions='feature_defs')\n"
        "spine = {'origin': ['JFK'], 'event_timestamp': [datetime.now(UTC)]}\n"
        "try: store.get_historical_features(spine, features=['origin_delays@1:origin_departures_1h'])\n"
        "except ConfigError as error: print(error)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], check=True
    )
    assert "pip install 'forebay[offline]'" in ended.stdout
