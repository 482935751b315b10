"""A training set on Spark is the one in memory, by both clocks, of windowed and of batch views."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forebay.client.feature_store import FeatureStore
from forebay.errors import ConfigError
from forebay.history import bucketed, spark
from forebay.instants import DAY_US
from tests.client.deployed_world import World
from tests.client.test_bucketed import events, profiles, put_in_order, spine
from tests.laws.world import MIDNIGHT_US

JAVA = shutil.which("java") or os.environ.get("JAVA_HOME")
needs_java = pytest.mark.skipif(not JAVA, reason="Spark runs on Java, and there is none on this machine")
NAMES = [
    *(f"everything@1:{name}" for name in ("Sum_wide_24h", "Last_word_lifetime", "Max_money_1h", "Mean_real_24h")),
    *("profile@1:city", "profile@1:age", "profile@1:balance"),
]


@pytest.fixture(scope="module")
def stopped() -> Iterator[None]:
    """The session of these tests ends with them."""
    yield
    spark.spark_session("local[2]").stop()


@pytest.fixture
def store(tmp_path: Path, online_url: str, namespace: str) -> FeatureStore:
    """The world of `test_bucketed`, in a folder."""
    world, drawn = World(online_url, tmp_path, namespace), events(300)
    world.archive(drawn[:200], arrived_at_us=MIDNIGHT_US)
    world.archive(drawn[200:], arrived_at_us=MIDNIGHT_US + DAY_US)
    for _ in range(2):
        world.publish_profile(profiles())
    return world.store


@needs_java
@pytest.mark.usefixtures("stopped")
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


def same_but_for_float_sums(found: pa.Table, expected: pa.Table, floats: str) -> None:
    """Equal tables, but that one column may differ by what the law leaves to float sums."""
    assert found.drop_columns(floats).equals(expected.drop_columns(floats))
    pairs = zip(found[floats].to_pylist(), expected[floats].to_pylist(), strict=True)
    assert all(math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-3) for one, other in pairs)


def test_without_java_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(ConfigError, match="needs Java 17"):
        spark.spark_session("local[2]")
