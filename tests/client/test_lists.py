"""Lists and vectors of a batch view and of a stream through the whole client: online, training set, history, SQL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from forebay import Feature, FeatureService, FeatureStore, Float64, Int64, List, String, Vector, batch_view
from forebay.backfill.batch_view import compute_batch_view
from forebay.backfill.publication import publish_view
from forebay.cli.printing import print_json, text
from forebay.core.identity import SLOTS
from forebay.history.finished import write_history
from forebay.ingest.arrow import conform
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, moment
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.offline.training_table import TrainingTable
from forebay.online.connection import connect_online
from forebay.online.lane import Lane, Stretch
from forebay.settings import Settings
from tests.client.deployed_world import FAR_FUTURE_US, as_table
from tests.laws.world import EDGES, MIDNIGHT_US, VIEW, Event, events_source, user

LISTED = ["LastK_word_24h", "TopK_money_24h", "Histogram_real_24h", "CountDistinct_word_24h", "Quantile_whole_24h"]
NOTHING: dict[str, Any] = dict.fromkeys(("whole", "wide", "money", "real", "flag", "moment", "word"))


@batch_view(
    entity=user,
    version=1,
    sources=[events_source],
    history="6h",
    history_start="2013-12-15",
    features=[
        Feature("words", List(String), default=["none"]),
        Feature("sizes", List(Int64), default=[]),
        Feature("embedding", Vector(3), default=[0, 0, 0]),
        Feature("length", Float64, default=0),
    ],
)
def profile(context: Any, events: Any) -> Any:
    return context.sql(
        "SELECT user, list(word ORDER BY ts) AS words, list(whole ORDER BY ts) AS sizes, 1.5 AS length, "
        "CASE WHEN user = 'bob' THEN NULL ELSE [0.25, 1, -2]::FLOAT[3] END AS embedding, {end} AS event_timestamp "
        "FROM events GROUP BY user"
    )


service = FeatureService("lists", version=1, features=[VIEW[tuple(LISTED)], profile])
EVENING_US = MIDNIGHT_US + 20 * HOUR_US
EVENTS = [
    Event("ann", EVENING_US + 10, "a", NOTHING | {"word": "é", "money": 5, "real": 0.1, "whole": 7}),
    Event("ann", EVENING_US + 20, "b", NOTHING | {"word": "b", "money": 5, "real": -2e6, "whole": 9}),
    Event("bob", EVENING_US + 30, "c", NOTHING | {"word": "b", "whole": 0, "money": -1}),
]
AT_US = MIDNIGHT_US + DAY_US
NAMES = [*LISTED, "words", "sizes", "embedding", "length"]


@pytest.fixture
def settings(online_url: str, offline_url: str, namespace: str, tmp_path: Path) -> Settings:
    return Settings(tmp_path, online_url, offline_url, namespace=namespace)


@pytest.fixture
def store(settings: Settings) -> FeatureStore:
    """All of it deployed: events archived and streamed, rows computed and published."""
    offline, client = OfflineStore(settings), connect_online(settings)
    batch, dead = conform(events_source, "0", 0, as_table(EVENTS), FAR_FUTURE_US)
    assert not dead
    offline.archive(events_source).append([batch], arrived_at_us=FAR_FUTURE_US)
    lane = Lane(client, settings.namespace, [VIEW], range(SLOTS))
    lane.take_over()
    lane.commit([Stretch("0", batch.next_offset, None, {VIEW.key: Selector(VIEW).select(batch.table)})])
    compute_batch_view(offline, profile, MIDNIGHT_US, AT_US, home=settings.home, now_us=FAR_FUTURE_US)
    publish_view(client, settings.namespace, offline, profile)
    return FeatureStore(settings, Definitions.of(service))


def test_online_values_are_those_of_the_training_set(store: FeatureStore, settings: Settings) -> None:
    rows = [{"user": "ann"}, {"user": "bob"}, {"user": "eve"}]
    online = store.get_online_features("lists@1", entity_rows=rows, at=moment(AT_US))
    values = online.to_dict()
    assert {name: values[name] for name in ("LastK_word_24h", "Histogram_real_24h", "words", "sizes", "embedding")} == {
        "LastK_word_24h": [["é", "b"], ["b"], []],
        "Histogram_real_24h": [[1, 0, 1, 0], [], []],
        "words": [["é", "b"], ["b"], ["none"]],
        "sizes": [[7, 9], [0], []],
        "embedding": [[0.25, 1.0, -2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    }
    assert values["CountDistinct_word_24h"] == [2, 1, -1]
    assert len(EDGES["real"]) == 3
    assert online.statuses["embedding"] == ["PRESENT", "DEFAULT_MISSING", "DEFAULT_MISSING"]
    assert online.to_numpy()["embedding"].shape == (3, 3)
    assert online.to_df()["words"].tolist() == values["words"]
    instants = pa.array([AT_US] * 3, pa.timestamp("us", "UTC"))
    spine = pa.table({"user": ["ann", "bob", "eve"], "event_timestamp": instants})
    training = store.get_historical_features(spine, features="lists@1")
    assert training.to_arrow().select(NAMES) == online.to_arrow().select(NAMES)
    table = TrainingTable(OfflineStore(settings).location, service)
    store.write_historical_features(spine, features="lists@1", out=table.claimed(), memory="10GB")
    kept = table.read()
    assert [kept[name].to_pylist() for name in NAMES] == [training.to_arrow()[name].to_pylist() for name in NAMES]


@pytest.mark.parametrize("name", ["set.parquet", "set.csv", "set"])
def test_they_are_written_bucket_by_bucket_as_they_are_in_memory(
    store: FeatureStore, tmp_path: Path, name: str
) -> None:
    instants = pa.array([AT_US] * 3, pa.timestamp("us", "UTC"))
    spine = pa.table({"user": ["ann", "bob", "eve"], "event_timestamp": instants})
    whole = store.get_historical_features(spine, features="lists@1").to_arrow()
    out = tmp_path / "out" / name
    store.write_historical_features(spine, features="lists@1", out=out, memory="2GB")
    if name.endswith("csv"):
        assert out.read_text().splitlines()[1].count('["é","b"]'.replace('"', '""')) == 2
        return
    table = pq.read_table(out) if name.endswith("parquet") else DeltaTable(out).to_pyarrow_table()
    assert [table[column].to_pylist() for column in NAMES] == [whole[column].to_pylist() for column in NAMES]


def test_what_was_known_of_them(store: FeatureStore) -> None:
    spine = pa.table({"user": ["ann"], "event_timestamp": pa.array([AT_US], pa.timestamp("us", "UTC"))})
    known = store.get_historical_features(spine, features="lists@1", clock="as_known").to_arrow()
    assert known["LastK_word_24h"].to_pylist() == [[]]
    assert known["words"].to_pylist() == [["none"]]


def test_their_history_is_json_for_sql(store: FeatureStore, settings: Settings) -> None:
    offline = OfflineStore(settings)
    view = msgspec.structs.replace(VIEW, history="6h")
    for one in (view, profile):
        write_history(offline, one, MIDNIGHT_US, MIDNIGHT_US + 2 * DAY_US, now_us=FAR_FUTURE_US)
    history = offline.history(view).scan()
    assert len(history) > 0
    (first,) = duckdb.sql(
        "SELECT value, value_text, status FROM history WHERE entity = 'ann' AND feature = 'LastK_word_24h' "
        "ORDER BY computed_at LIMIT 1"
    ).fetchall()
    assert first == (None, '["é","b"]', "PRESENT")
    history = offline.history(profile).scan()
    assert set(history["status"].to_pylist()) <= {"PRESENT", "DEFAULT_MISSING"}
    told = duckdb.sql("SELECT value_text FROM history WHERE entity = 'ann' AND feature = 'embedding'").fetchall()
    assert told[0] == ("[0.25,1.0,-2.0]",)
    assert len(told) == 1  # it holds from a midnight on, and nothing is said of the next


def test_one_entity_over_time_and_how_people_see_it(store: FeatureStore, capsys: pytest.CaptureFixture[str]) -> None:
    start, end = moment(EVENING_US), moment(EVENING_US + 50)
    told = store.feature_history("everything@1", {"user": "ann"}, start=start, end=end).to_arrow()
    assert told["LastK_word_24h"].to_pylist() == [[], ["é"], ["é", "b"]]
    print_json(told["LastK_word_24h"].to_pylist())
    assert json.loads(capsys.readouterr().out) == [[], ["é"], ["é", "b"]]
    assert (text(["é", 1.5]), text([])) == ("[é, 1.5]", "[]")
