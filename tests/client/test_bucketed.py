"""A training set bucket by bucket is the one in memory: the same rows, values, columns, errors, whatever is asked."""

from __future__ import annotations

import random
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from forebay.client.feature_store import FeatureStore
from forebay.core import ranges
from forebay.errors import RequestError
from forebay.history import bucketed, buckets, stored_buckets
from forebay.instants import DAY_US, MINUTE_US, moment
from forebay.offline import upkeep
from forebay.offline.archive import RETAINED
from forebay.offline.location import Location
from forebay.offline.reading import Reading
from forebay.offline.tables import OfflineStore
from tests.client.deployed_world import DEFINITIONS, PROFILE_SCHEMA, World
from tests.laws.world import COLUMNS, MIDNIGHT_US, Event, events_source

USERS = ["ann", "bob", "eve", "a|b %", "nobody", "sue"]


def events(count: int) -> list[Event]:
    """Events of a few users, tied and with nulls; `nobody` has none."""
    chance = random.Random(5)
    return [
        Event(
            chance.choice(USERS[:4]),
            MIDNIGHT_US + chance.randrange(0, 3_000) * MINUTE_US // 7,
            f"{chance.randrange(40)}",
            dict.fromkeys(COLUMNS)
            | {
                "whole": chance.choice([None, chance.randint(-9, 9)]),
                "wide": chance.randint(-(2**62), 2**62),
                "money": chance.randint(-500, 500),
                "real": chance.uniform(-1e6, 1e6),
                "flag": chance.choice([None, True, False]),
                "word": chance.choice(["a", "bé", None]),
            },
        )
        for _ in range(count)
    ]


def profiles() -> pa.Table:
    """Rows of a batch view, some equal in all but what they hold."""
    chance = random.Random(6)
    rows = [
        {
            "user": chance.choice(USERS),
            "age": chance.choice([None, n]),
            "city": chance.choice([None, f"city {n}"]),
            "event_timestamp": MIDNIGHT_US + day * DAY_US + chance.randrange(3),
            "created_timestamp": MIDNIGHT_US + day * DAY_US + chance.randrange(3),
            "partition_start": MIDNIGHT_US + day * DAY_US,
        }
        for n in range(120)
        for day in (-1, 0)
    ]
    return pa.Table.from_pylist(rows, PROFILE_SCHEMA)


def spine(count: int) -> pa.Table:
    """Rows in no order, many of them twice, some of nobody, with columns of other kinds."""
    chance = random.Random(7)
    return pa.table(
        {
            "label": pa.array([chance.random() for _ in range(count)]),
            "user": pa.array([chance.choice([*USERS, None]) for _ in range(count)]),
            "kind": pa.array([chance.choice(["x", "y", None]) for _ in range(count)]).dictionary_encode(),
            "event_timestamp": pa.array(
                [MIDNIGHT_US + chance.randrange(60) * 50 * MINUTE_US for _ in range(count)], pa.timestamp("us", "UTC")
            ),
            "pair": pa.array([{"a": n} for n in range(count)]),
        }
    )


@pytest.fixture
def store(offline_url: str, tmp_path: Path, online_url: str, namespace: str) -> FeatureStore:
    """The world of the laws with events, a third of which arrived late, and profiles, some of them computed again."""
    world, drawn = World(online_url, tmp_path, namespace, offline_url), events(300)
    world.archive(drawn[:200], arrived_at_us=MIDNIGHT_US)
    world.archive(drawn[200:], arrived_at_us=MIDNIGHT_US + DAY_US)
    for _ in range(2):
        world.publish_profile(profiles())
    return world.store


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Five buckets, ranges of seven rows, pieces of a few, compiled code; and nothing stays in the temporary folder."""
    spilled = tmp_path / "spilled"
    spilled.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(spilled))
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 5)
    monkeypatch.setattr(bucketed, "piece_rows", lambda *_: 7)
    monkeypatch.setattr(buckets, "HASH_BITS", 3)
    monkeypatch.setattr(ranges, "SWEPT_EVENTS", 1)
    yield
    assert not list(spilled.glob("forebay-spill-*"))


@pytest.mark.parametrize("with_statuses", [False, True])
def test_it_is_the_training_set_in_memory(store: FeatureStore, tmp_path: Path, with_statuses: bool) -> None:
    asked: dict[str, Any] = {"features": "everything@1", "with_statuses": with_statuses}
    expected = store.get_historical_features(spine(200), **asked).to_arrow()
    out = tmp_path / "new" / "set.parquet"
    written = store.write_historical_features(spine(200), out=out, memory="10GB", **asked)
    assert pq.read_table(out).equals(expected)
    assert (written.rows, written.buckets) == (200, 5)
    assert written.feature_names == store.get_historical_features(spine(1), **asked).feature_names


@pytest.mark.parametrize("clock", ["as_of", "as_known"])
def test_what_is_in_order_is_read_where_it_lies(
    store: FeatureStore, tmp_path: Path, offline_url: str, monkeypatch: pytest.MonkeyPatch, clock: Any
) -> None:
    names = ["everything@1:Sum_wide_24h", "everything@1:Last_word_lifetime"]
    if clock == "as_of":  # as known, float sums differ by what the law leaves to them
        names.append("everything@1:Mean_real_24h")
    asked: dict[str, Any] = {"features": names, "with_statuses": True, "clock": clock}
    expected = store.get_historical_features(spine(200), **asked).to_arrow()
    before = store.write_historical_features(spine(200), out=tmp_path / "before.parquet", memory="10GB", **asked)
    put_in_order(offline_url, monkeypatch)
    after = store.write_historical_features(spine(200), out=tmp_path / "after.parquet", memory="10GB", **asked)
    assert before.buckets == after.buckets == 5
    for name in ("before", "after"):
        assert pq.read_table(tmp_path / f"{name}.parquet").equals(expected)
    monkeypatch.setattr(stored_buckets, "TIMES_READ_MAX", 0.0)
    copied = store.write_historical_features(spine(200), out=tmp_path / "copied.parquet", memory="10GB", **asked)
    assert after.spilled_bytes < copied.spilled_bytes == before.spilled_bytes, "no event was copied"


def test_what_is_in_no_order_is_not_read_once_for_each_bucket(store: FeatureStore, tmp_path: Path) -> None:
    read: Counter[str] = Counter()
    groups = Reading.row_groups

    def counted(reading: Reading) -> Iterator[pa.Table]:
        read[reading.of.path] += 1
        return groups(reading)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "row_groups", counted)
        out = tmp_path / "set.parquet"
        store.write_historical_features(spine(20), out=out, memory="10GB", features="everything@1")
    assert read["events/events"] == 1


def test_what_needs_events_that_were_removed_is_refused_as_in_memory(
    store: FeatureStore, tmp_path: Path, offline_url: str
) -> None:
    table = OfflineStore(offline_url).archive(events_source).table
    table.remove("date < '1970-01-01'", {RETAINED: MIDNIGHT_US})
    asked: dict[str, Any] = {"features": ["everything@1:Sum_wide_24h"]}
    with pytest.raises(RequestError, match="View 'everything@1' needs all events of source 'events'") as expected:
        store.get_historical_features(spine(20), **asked)
    with pytest.raises(RequestError, match=re.escape(str(expected.value))):
        store.write_historical_features(spine(20), out=tmp_path / "set.parquet", memory="10GB", **asked)
    assert not (tmp_path / "set.parquet").exists()


def put_in_order(offline_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do the upkeep of all tables, and take them for large ones."""
    offline = OfflineStore(offline_url)
    for table, by in upkeep.tables(offline, DEFINITIONS):
        upkeep.keep_up(table, by)
    monkeypatch.setattr(stored_buckets, "TIMES_READ_MAX", 100.0)


def test_it_is_what_was_known_then(store: FeatureStore, tmp_path: Path) -> None:
    names = [
        *(f"everything@1:{name}" for name in ("Sum_wide_24h", "Last_word_lifetime", "Max_money_1h", "Count_all_24h")),
        *("profile@1:city", "profile@1:age"),
    ]
    asked: dict[str, Any] = {"features": names, "clock": "as_known", "with_statuses": True, "full_feature_names": True}
    expected = store.get_historical_features(spine(150), **asked).to_arrow()
    store.write_historical_features(spine(150), out=tmp_path / "set.parquet", memory="10GB", **asked)
    assert pq.read_table(tmp_path / "set.parquet").equals(expected)
    as_of = store.get_historical_features(spine(150), **asked | {"clock": "as_of"}).to_arrow()
    assert not as_of.equals(expected)


def test_a_spine_may_be_a_long_file(store: FeatureStore, tmp_path: Path) -> None:
    pq.write_table(spine(100), tmp_path / "spine.parquet", row_group_size=9)
    expected = store.get_historical_features(tmp_path / "spine.parquet", features="everything@1").to_arrow()
    store.write_historical_features(
        tmp_path / "spine.parquet", features="everything@1", out=tmp_path / "set.parquet", memory="10GB"
    )
    assert pq.read_table(tmp_path / "set.parquet").equals(expected)


@pytest.mark.parametrize("users", [[], [None, None], ["nobody", "who"]])
def test_nobody_is_asked_about(store: FeatureStore, tmp_path: Path, users: list[str | None]) -> None:
    table = pa.table(
        {
            "user": pa.array(users, pa.string()),
            "event_timestamp": pa.array([MIDNIGHT_US] * len(users), pa.timestamp("us", "UTC")),
        }
    )
    expected = store.get_historical_features(table, features="everything@1", with_statuses=True).to_arrow()
    out = tmp_path / "set.parquet"
    store.write_historical_features(table, features="everything@1", with_statuses=True, out=out, memory="10GB")
    assert pq.read_table(out).equals(expected)


def test_a_folder_becomes_a_delta_table_that_is_replaced(store: FeatureStore, tmp_path: Path, offline_url: str) -> None:
    names, out = ["everything@1:Count_all_24h", "profile@1:city"], f"{offline_url}/sets/fraud"
    for rows in (spine(30), spine(60)):
        rows = rows.append_column("number", pa.array(range(len(rows))))
        store.write_historical_features(rows, features=names, out=out, memory="10GB", with_statuses=True)
    location = Location.of(out)
    table = DeltaTable(location.url, storage_options=dict(location.options)).to_pyarrow_table().sort_by("number")
    expected = store.get_historical_features(rows, features=names, with_statuses=True).to_arrow()
    assert table.to_pylist() == expected.to_pylist()


@pytest.mark.parametrize(("suffix", "read"), [(".csv", pa.csv.read_csv), (".ndjson", pa.json.read_json)])
def test_a_file_of_text_is_the_one_that_is_written_from_memory(
    store: FeatureStore, tmp_path: Path, suffix: str, read: Any
) -> None:
    rows = spine(40).drop_columns(["pair", "kind"])
    store.write_historical_features(rows, features=["profile@1:city"], out=tmp_path / f"set{suffix}", memory="10GB")
    expected = store.get_historical_features(rows, features=["profile@1:city"]).to_arrow()
    assert read(tmp_path / f"set{suffix}")["city"].to_pylist() == expected["city"].to_pylist()


def at(minute: int) -> datetime:
    return moment(MIDNIGHT_US + minute * MINUTE_US)


BAD: list[Any] = [
    {"event_timestamp": [at(0)]},
    {"user": ["ann"] * 9, "event_timestamp": [at(0)] * 8 + [None]},
    {"user": ["ann"] * 9, "event_timestamp": ["2013-12-15T00:00:00Z"] * 8 + ["2013-12-15T00:00:00"]},
    {"user": [7], "event_timestamp": [at(0)]},
    {"user": ["ann"], "event_timestamp": [at(0).replace(tzinfo=None)]},
    {"user": ["ann"], "event_timestamp": pa.array([2**60], pa.timestamp("s", "UTC"))},
    {"user": ["ann"], "event_timestamp": [at(0)], "city__status": [1]},
    pd.DataFrame([["a", "b"]], columns=["user", "user"]),
    "nowhere.parquet",
]


@pytest.mark.parametrize("rows", BAD)
def test_a_bad_spine_is_refused_in_the_same_words(tmp_path: Path, online_url: str, namespace: str, rows: Any) -> None:
    store = World(online_url, tmp_path, namespace).store
    asked: dict[str, Any] = {"features": ["profile@1:city"], "with_statuses": True}
    with pytest.raises(RequestError) as expected:
        store.get_historical_features(rows, **asked)
    with pytest.raises(RequestError) as found:
        store.write_historical_features(rows, out=tmp_path / "set.parquet", memory="10GB", **asked)
    assert str(found.value) == str(expected.value)
    assert not (tmp_path / "set.parquet").exists()


GOOD: list[Any] = [
    {"user": pd.Categorical(["ann", None]), "event_timestamp": [at(9), at(4_000_000)]},
    {"user": pd.array(["ann", "nobody"], "string"), "event_timestamp": ["2013-12-15T10:00:00+01:00"] * 2},
    {"user": ["ann"] * 9, "event_timestamp": [at(9)] * 9},
    {"user": ["ann", "bob", "nobody"], "event_timestamp": [at(9), datetime(2200, 1, 1, tzinfo=UTC), at(9)]},
    {"user": ["ann", "bob"], "event_timestamp": pd.Series([at(9)] * 2).dt.tz_convert("Asia/Tokyo")},
]


@pytest.mark.parametrize("rows", GOOD)
def test_an_odd_spine_is_kept_as_in_memory(store: FeatureStore, tmp_path: Path, rows: Any) -> None:
    names = ["everything@1:Sum_whole_24h", "profile@1:age"]
    expected = store.get_historical_features(rows, features=names).to_df()
    store.write_historical_features(rows, features=names, out=tmp_path / "set.parquet", memory="10GB")
    found = pd.read_parquet(tmp_path / "set.parquet", dtype_backend="numpy_nullable")
    assert len(found) == len(expected)
    assert found["age"].astype("Int64").equals(expected["age"].astype("Int64"))


@pytest.mark.parametrize(
    ("memory", "out", "message"),
    [
        ("two", "set.parquet", "memory='two' is not a size"),
        ("1MB", "set.parquet", "memory='1MB' leaves nothing to work with: .* give at least"),
        ("2GB", "set.xlsx", "ends in '.xlsx'; expected a file that ends in one of"),
        ("2GB", "s3://bucket/set.parquet", "is a file on S3"),
        ("2GB", "full", "is a folder of something else"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_read(
    tmp_path: Path, online_url: str, namespace: str, memory: str, out: str, message: str
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").touch()
    place = out if out.startswith("s3://") else str(tmp_path / out)
    with pytest.raises(RequestError, match=message):
        World(online_url, tmp_path, namespace).store.write_historical_features(
            spine(3), features="everything@1", out=place, memory=memory
        )
