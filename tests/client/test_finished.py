"""The history table: finished values by day, and the query that it is made for, run by DuckDB alone."""

from __future__ import annotations

import decimal
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from deltalake import DeltaTable

from forebay.errors import DefinitionError, RequestError
from forebay.history import finished
from forebay.history.finished import write_history
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from tests.client.deployed_world import FAR_FUTURE_US, World, profile
from tests.client.test_clocks import rows
from tests.client.test_historical import at, event
from tests.client.test_historical import profile as person
from tests.laws.world import MIDNIGHT_US, VIEW
from tests.places import everywhere

HOURLY = msgspec.structs.replace(VIEW, history="1h")
PROFILES = msgspec.structs.replace(profile, history="6h")
DAY = MIDNIGHT_US, MIDNIGHT_US + DAY_US
TWO_DAYS = MIDNIGHT_US, MIDNIGHT_US + 2 * DAY_US
QUERY = """
    SELECT value FROM history
    WHERE entity = $entity AND feature = $feature AND computed_at <= $instant
    ORDER BY computed_at DESC
    LIMIT 1
"""


@pytest.fixture
def world(offline_url: str, tmp_path: Path, online_url: str, namespace: str) -> World:
    return World(online_url, tmp_path, namespace, offline_url)


def told(world: World, view: Any, feature: str) -> list[tuple[int, Any, str]]:
    """When, what and why, of one feature of ann."""
    table = world.offline.history(view).scan().sort_by("computed_at")
    found = [row for row in table.to_pylist() if row["feature"] == feature and row["entity"] == "ann"]
    hours = [(round((row["computed_at"] - at(0)).total_seconds() / 3600), row) for row in found]
    return [(hour, row["value_text"], row["status"]) for hour, row in hours]


def test_a_day_holds_each_change_and_what_is_at_midnight(world: World) -> None:
    #   minute   -30        70                    (Sum_whole_1h; default 7)
    #   whole      1        2
    world.archive([event("ann", -30, 1, "a"), event("ann", 70, 2, "b"), event("bob", 70, 5, "c")])
    done = write_history(world.offline, HOURLY, *DAY, now_us=FAR_FUTURE_US)
    assert (done.dates, done.entities) == (1, 2)
    present, missing = "PRESENT", "DEFAULT_MISSING"
    assert told(world, HOURLY, "Sum_whole_1h") == [
        (0, "1", present),
        (1, "7", missing),
        (2, "2", present),
        (3, "7", missing),
    ]
    lifetime = told(world, HOURLY, "Last_word_lifetime")
    assert lifetime == [(0, "a", present), (2, "b", present), (14, "none", "DEFAULT_EXPIRED")]


def test_a_day_is_replaced_as_a_whole_and_says_the_same_again(world: World) -> None:
    world.archive([event("ann", 70, 2, "b")])
    write_history(world.offline, HOURLY, *TWO_DAYS, now_us=FAR_FUTURE_US)
    columns = [name for name in world.offline.history(HOURLY).table.schema.names if name != "created_timestamp"]
    order = [(name, "ascending") for name in ("entity", "feature", "computed_at")]
    before = world.offline.history(HOURLY).scan(columns).sort_by(order)
    write_history(world.offline, HOURLY, *TWO_DAYS, now_us=FAR_FUTURE_US + 1)
    assert world.offline.history(HOURLY).scan(columns).sort_by(order).equals(before)
    world.archive([event("ann", 10, 40, "a")])
    write_history(world.offline, HOURLY, *DAY, now_us=FAR_FUTURE_US)
    assert told(world, HOURLY, "Sum_whole_1h")[0] == (1, "40", "PRESENT")
    assert world.offline.history(HOURLY).scan(["date"]).sort_by("date")["date"].unique().to_pylist() == [
        "2013-12-15",
        "2013-12-16",
    ]


def test_groups_of_entities_and_days_decide_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.archive([event(f"u{n % 7}", 300 * n, n, f"{n}") for n in range(20)])
    order = [(name, "ascending") for name in ("entity", "feature", "computed_at")]
    write_history(world.offline, HOURLY, *TWO_DAYS, now_us=FAR_FUTURE_US)
    whole = world.offline.history(HOURLY).scan().sort_by(order)
    monkeypatch.setattr(finished, "ROWS_AT_ONCE", 60)
    write_history(world.offline, HOURLY, *TWO_DAYS, now_us=FAR_FUTURE_US)
    assert world.offline.history(HOURLY).scan().sort_by(order).equals(whole)


def test_batch_views_have_a_history_too(world: World) -> None:
    world.publish_profile(rows(person("ann", -1, 30, "Ede", 5), person("ann", 0, 31, None, 5)))
    write_history(world.offline, PROFILES, *TWO_DAYS, now_us=FAR_FUTURE_US)
    assert told(world, PROFILES, "age") == [(0, "31", "PRESENT"), (24, "31", "PRESENT")]
    assert told(world, PROFILES, "city") == [(0, "nowhere", "DEFAULT_MISSING")]


def test_nothing_is_said_of_what_has_not_come(world: World) -> None:
    world.archive([event("ann", 10, 1, "a")])
    write_history(world.offline, HOURLY, *DAY, now_us=MIDNIGHT_US + HOUR_US + MINUTE_US)
    assert told(world, HOURLY, "Sum_whole_1h") == [(1, "1", "PRESENT")]


def test_an_empty_store_has_an_empty_history(world: World) -> None:
    done = write_history(world.offline, HOURLY, *DAY, now_us=FAR_FUTURE_US)
    assert (done.entities, done.rows) == (0, 0)
    assert world.offline.history(HOURLY).scan().num_rows == 0


@everywhere
def test_duckdb_alone_answers_the_query_as_it_is_written(
    place: str, tmp_path: Path, online_url: str, namespace: str
) -> None:
    """The table is read as a plain Delta table; DuckDB knows nothing of Forebay, and of S3 as much as deltalake."""
    world = World(online_url, tmp_path, namespace, place)
    world.archive([event("ann", 70, 2, "b"), event("ann", 90, 3, "c"), event("bob", 70, 5, "c")])
    write_history(world.offline, HOURLY, *TWO_DAYS, now_us=FAR_FUTURE_US)
    connection = duckdb.connect()
    options = {"AWS_ALLOW_HTTP": "true"}  # of a folder it says nothing
    history = DeltaTable(f"{place}/history/{HOURLY.key}", storage_options=options).to_pyarrow_dataset()
    connection.register("history", history)

    def value(minute: float, feature: str = "Sum_whole_1h", user: str = "ann") -> Any:
        found = connection.execute(QUERY, {"entity": user, "feature": feature, "instant": at(minute)}).fetchone()
        return None if found is None else found[0]

    assert [value(m) for m in (119.0, 120.0, 150.0, 180.0)] == [None, 5.0, 5.0, 7.0]
    assert value(2000.0, user="bob") == 7.0
    for hour in range(2, 48, 9 if place.startswith("s3:") else 1):
        spine = {"user": ["ann"], "event_timestamp": [at(60 * hour)]}
        features = ["everything@1:Sum_whole_1h", "everything@1:Mean_whole_24h", "everything@1:Count_all_lifetime"]
        table = world.store.get_historical_features(spine, features=features).to_arrow()
        for feature in (name.partition(":")[2] for name in features):
            expected = table[feature][0].as_py()
            assert value(60 * hour + 59, feature) == (None if expected is None else float(expected)), (hour, feature)


def test_every_type_has_a_number_or_a_text(world: World) -> None:
    values = {"whole": 2**47, "money": 1250, "real": 0.1, "flag": True, "moment": 1_500_000, "word": "é"}
    found = event("ann", 10, 1, "a")
    found.values.update(values)
    world.archive([found])
    write_history(world.offline, HOURLY, *DAY, now_us=FAR_FUTURE_US)
    table = world.offline.history(HOURLY).scan(["feature", "value", "value_text", "computed_at"])
    told_of = {
        row["feature"]: (row["value"], row["value_text"]) for row in table.to_pylist() if row["computed_at"] == at(60)
    }
    assert told_of["Last_money_24h"] == (12.5, str(decimal.Decimal("12.50")))
    assert told_of["Last_flag_24h"] == (1.0, "true")
    assert told_of["Last_moment_24h"][0] == 1.5
    assert told_of["Last_word_24h"] == (None, "é")
    assert told_of["Last_whole_24h"] == (float(2**47), str(2**47))
    assert told_of["Mean_real_24h"] == (0.1, "0.1")


def test_what_is_no_day_or_has_no_grid_is_refused(world: World) -> None:
    with pytest.raises(RequestError, match="declares no history"):
        write_history(world.offline, VIEW, *DAY, now_us=FAR_FUTURE_US)
    with pytest.raises(RequestError, match="no range of UTC days"):
        write_history(world.offline, HOURLY, MIDNIGHT_US, MIDNIGHT_US + HOUR_US, now_us=FAR_FUTURE_US)
    with pytest.raises(DefinitionError, match="doesn't divide a day"):
        msgspec.structs.replace(VIEW, history="7h")
