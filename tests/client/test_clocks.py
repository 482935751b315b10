"""The two clocks through the client: as of an instant, and as known then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from forebay import BatchView, Entity, Feature, FeatureService, String, TableSource, Timestamp
from forebay.client.feature_store import FeatureStore
from forebay.errors import RequestError
from forebay.instants import DAY_US, MINUTE_US, moment
from forebay.language.definitions import Definitions
from tests.client.deployed_world import PROFILE_SCHEMA, World, profile
from tests.client.test_historical import at, event
from tests.client.test_historical import profile as person
from tests.docs.pages import ROOT, blocks
from tests.laws.world import MIDNIGHT_US

account = BatchView(
    name="user_account",
    version=1,
    entity=Entity("user", keys={"user_id": String}),
    sources=[TableSource("people", schema={"user_id": String, "at": Timestamp}, effective="at", path="people.csv")],
    history_start="2013-12-15",
    features=[Feature("country", String, default=None)],
)
FEATURES = ["everything@1:Sum_whole_1h", "everything@1:Last_word_lifetime", "profile@1:age", "profile@1:city"]


@pytest.fixture
def world(offline_url: str, tmp_path: Path, online_url: str, namespace: str) -> World:
    return World(online_url, tmp_path, namespace, offline_url)


def minute(number: float) -> int:
    return MIDNIGHT_US + int(number * MINUTE_US)


def answered(world: World, minutes: list[float], clock: Any, *features: str) -> dict[str, list[Any]]:
    spine = {"user": ["ann"] * len(minutes), "event_timestamp": [at(m) for m in minutes]}
    table = world.store.get_historical_features(spine, features=list(features), clock=clock).to_arrow()
    return table.drop_columns(["user", "event_timestamp"]).to_pydict()


def test_an_event_is_known_when_it_has_arrived(world: World) -> None:
    #          10     20     30     40          minutes
    #  dated   1      2
    #  arrived        1              2
    world.archive([event("ann", 10, 1, "a")], minute(20))
    world.archive([event("ann", 20, 2, "b")], minute(40))
    asked = [15.0, 20.0, 30.0, 40.0, 75.0]
    want = {"Sum_whole_1h": [1, 1, 3, 3, 2], "Last_word_lifetime": ["a", "a", "b", "b", "b"]}
    assert answered(world, asked, "as_of", *FEATURES[:2]) == want
    want = {"Sum_whole_1h": [7, 1, 1, 3, 2], "Last_word_lifetime": ["none", "a", "a", "b", "b"]}
    assert answered(world, asked, "as_known", *FEATURES[:2]) == want


def test_history_that_was_loaded_later_was_not_known(world: World) -> None:
    world.archive([event("ann", m, 1, f"{m}") for m in range(50)], minute(100_000))
    assert answered(world, [49.5], "as_of", FEATURES[0]) == {"Sum_whole_1h": [50]}
    assert answered(world, [49.5], "as_known", FEATURES[0]) == {"Sum_whole_1h": [7]}


def rows(*found: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(found), PROFILE_SCHEMA)


def test_a_computation_that_was_replaced_was_known_until_then(world: World) -> None:
    table = world.offline.rows(profile)
    #  a day's partition, computed 10 µs, 20 µs and 30 µs after its start: Ede, then no row of ann, then Epe
    day = MIDNIGHT_US, MIDNIGHT_US + DAY_US
    table.overwrite(*day, rows(person("ann", 0, 31, "Ede", 10), person("bob", 0, 50, "Oss", 10)))
    table.overwrite(*day, rows(person("bob", 0, 51, "Oss", 20)), MIDNIGHT_US + 20)
    table.overwrite(*day, rows(person("ann", 0, 32, "Epe", 30)))
    minutes = [us / MINUTE_US for us in (5, 10, 19, 20, 29, 30)]
    assert answered(world, minutes, "as_of", "profile@1:age")["age"] == [32] * 6
    assert answered(world, minutes, "as_known", "profile@1:age")["age"] == [None, 31, 31, None, None, 32]


def test_a_backfill_counts_as_of_and_is_not_known_before_it_was_made(world: World) -> None:
    before = person("ann", -1, 30, "Ede", 5)
    later = person("ann", 0, 40, "Epe", 0) | {"created_timestamp": moment(minute(90))}
    world.publish_profile(rows(before, later))
    assert answered(world, [1.0, 89.0, 90.0], "as_of", "profile@1:age")["age"] == [40, 40, 40]
    assert answered(world, [1.0, 89.0, 90.0], "as_known", "profile@1:age")["age"] == [30, 30, 40]


def test_a_history_as_known_changes_when_something_arrives(world: World) -> None:
    world.archive([event("ann", 10, 1, "a")], minute(20))
    table = world.offline.rows(profile)
    table.overwrite(MIDNIGHT_US, MIDNIGHT_US + DAY_US, rows(person("ann", 0, 31, "Ede", 10)))
    table.overwrite(MIDNIGHT_US, MIDNIGHT_US + DAY_US, rows(person("ann", 0, 32, "Epe", 30)))
    ask = {"entity": {"user": "ann"}, "start": at(0), "end": at(60)}
    history = world.store.feature_history("everything@1", **ask, clock="as_known").to_arrow()
    assert history.select(["instant", "Sum_whole_1h"]).to_pydict() == {
        "instant": [at(0), at(20)],
        "Sum_whole_1h": [7, 1],
    }
    history = world.store.feature_history("profile@1", **ask, clock="as_known").to_arrow()
    assert history["instant"].cast(pa.int64()).to_pylist() == [MIDNIGHT_US, MIDNIGHT_US + 10, MIDNIGHT_US + 30]
    assert history["age"].to_pylist() == [None, 31, 32]
    history = world.store.feature_history("profile@1", **ask).to_arrow()
    assert history["age"].to_pylist() == [32]


def test_statuses_are_there_by_both_clocks(world: World) -> None:
    world.archive([event("ann", 10, 1, "a")], minute(20))
    world.publish_profile(rows(person("ann", 0, 31, None, 10)))
    spine = {"user": ["ann", "ann", None], "event_timestamp": [at(15), at(4000), at(15)]}
    for clock, first in (("as_of", "PRESENT"), ("as_known", "DEFAULT_MISSING")):
        table = world.store.get_historical_features(
            spine, features=FEATURES, clock=clock, with_statuses=True
        ).to_arrow()
        assert table["Last_word_lifetime__status"].to_pylist() == [first, "DEFAULT_EXPIRED", "DEFAULT_MISSING"]
        assert table["age__status"].to_pylist() == ["PRESENT", "DEFAULT_EXPIRED", "DEFAULT_MISSING"]
        assert table["city__status"].to_pylist() == ["DEFAULT_MISSING", "DEFAULT_EXPIRED", "DEFAULT_MISSING"]


def test_a_clock_that_is_none_is_refused(world: World) -> None:
    with pytest.raises(RequestError, match="Did you mean 'as_known'"):
        answered(world, [1.0], "as_know", FEATURES[0])


def accounts(*found: tuple[str, str | None, float, float]) -> pa.Table:
    """Rows of a day: whose, where, and the minutes of the event and of the computation."""
    return pa.table(
        {
            "user_id": [user for user, *_ in found],
            "country": [country for _, country, *_ in found],
            "event_timestamp": [at(dated) for *_, dated, _ in found],
            "created_timestamp": [at(computed) for *_, computed in found],
            "partition_start": [at(0)] * len(found),
        }
    )


def test_the_sql_of_the_page_says_of_a_batch_view_what_the_client_says(
    tmp_path: Path, online_url: str, namespace: str
) -> None:
    #  ann, computed at    10       20            30       39       40         minutes
    #  of minute 0         nl       (no row)      be                be
    #  of minute 5                                         de       fr         (the last run has both)
    world = World(online_url, tmp_path, namespace)
    table, day = world.offline.rows(account), (MIDNIGHT_US, MIDNIGHT_US + DAY_US)
    table.overwrite(*day, accounts(("ann", "nl", 0, 10), ("bob", "us", 0, 10)))
    table.overwrite(*day, accounts(("bob", "us", 0, 20)))
    table.overwrite(*day, accounts(("ann", "be", 0, 30), ("bob", None, 0, 30)))
    table.overwrite(*day, accounts(("ann", "be", 0, 40), ("ann", "de", 5, 39), ("ann", "fr", 5, 40)), minute(40))
    service = FeatureService("where", version=1, features=[account])
    store = FeatureStore(world.settings, Definitions.of(service))
    queries: dict[str, str] = {}
    (page,) = [b for b in blocks(ROOT / "docs/history.md") if b.text.startswith("country_as_of = ")]
    exec(page.text, queries)
    connection = duckdb.connect()
    for name in ("features", "superseded"):
        connection.register(name, DeltaTable(str(tmp_path / "offline" / name / account.key)).to_pyarrow_dataset())
    told = {}
    for clock in ("as_of", "as_known"):
        asked = [(user, m) for user in ("ann", "bob", "eve") for m in (-1, 0, 4, 5, 9, 10, 19, 20, 29, 30, 39, 40, 90)]
        spine = {"user_id": [user for user, _ in asked], "event_timestamp": [at(m) for _, m in asked]}
        answers = store.get_historical_features(spine, features="where@1", clock=clock).to_arrow()["country"]
        query = queries[f"country_{clock}"]
        found = [connection.execute(query, {"user_id": user, "instant": at(m)}).fetchone() for user, m in asked]
        assert [None if row is None else row[0] for row in found] == answers.to_pylist(), clock
        told[clock] = answers.to_pylist()[:13]
    store.close()
    assert told["as_of"] == [None, "be", "be", *["fr"] * 10]
    assert told["as_known"] == [None] * 5 + ["nl", "nl", None, None, "be", "de", "fr", "fr"]
