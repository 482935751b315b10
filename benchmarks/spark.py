"""A training set in buckets, answered by Spark's tasks beside this process: the same table, in the same order.

Both write the same Parquet file from one archive and one spine, with one bound on memory. Spark is a local master of as
many tasks as one node has threads. Its session is made before, and a first round of both is not counted, so what is
compared is the work and not a start of some ten seconds. Java 17 or 21 is needed (JAVA_HOME).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks import training
from benchmarks.by_hand import THREADS
from benchmarks.deployment import deployed
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, interleaved, per_unit
from benchmarks.shop import PAST, TRAINING_WINDOWS
from benchmarks.training import World
from forebay.client.feature_store import FeatureStore

ONE_NODE = "one node"
MASTER = f"local[{THREADS}]"
MEMORY = "2GB"
SERVICE = "past@1"


@dataclass(frozen=True)
class Size:
    """How much history, and how many rows are asked."""

    events: int = 4_000_000
    users: int = 200_000
    spine: int = 400_000
    rounds: int = 3


TINY = Size(events=2_000, users=50, spine=200, rounds=1)


def run(size: Size) -> Report:
    """Measure Spark beside one node."""
    from forebay.history.spark import spark_session

    with deployed(PAST) as deployment:
        world = World.made(deployment, training.Size(size.events, size.users, size.spine))
        store, home = deployment.store(), deployment.settings.home
        outs = {OURS: home / "spark.parquet", ONE_NODE: home / "node.parquet"}
        session = spark_session(MASTER)
        try:
            samples = interleaved(
                {OURS: written(store, world, outs[OURS], MASTER), ONE_NODE: written(store, world, outs[ONE_NODE])},
                size.rounds,
            )
        finally:
            session.stop()
        assert pq.read_table(outs[OURS]).equals(pq.read_table(outs[ONE_NODE])), "Spark wrote another table"
    setting = f"{size.events:,} events of {size.users:,} users, {size.spine:,} rows, {len(TRAINING_WINDOWS)} windows"
    comparison = Comparison.of(f"training set on {MASTER}", samples, ONE_NODE, "wall_us", "µs/row wall", ours=OURS)
    return Report("spark", f"{setting}, memory {MEMORY}", size.rounds, [comparison])


def written(store: FeatureStore, world: World, out: Path, master: str | None = None) -> Contender:
    """The training set, on Spark where there is a master."""

    def write() -> int:
        spine = pq.read_table(world.spine)
        store.write_historical_features(spine, features=SERVICE, out=out, memory=MEMORY, spark=master)
        return spine.num_rows

    return per_unit(write)
