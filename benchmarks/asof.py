"""Batch rows as of each row of a spine, beside a hand-written ASOF JOIN in DuckDB.

Both read the same Parquet files (Forebay as its Delta table, DuckDB as files) and the same spine, run in a process of
their own (`benchmarks.asof_run`) and end with an Arrow table in memory. The rows are such that a plain ASOF JOIN is
right: no partition was computed twice, so nothing has to be deduplicated. Forebay doesn't know that. Two shapes: many
entities with few rows each, and a thousand with very many. Every value of the last round is compared. Of the first
shape there are four more views, of a fifth of the rows and four features each, asked in one call with it; and Feast's
`duckdb` and `dask` stores (the last is its default) get one file of the same rows, where a Python has Feast
(`benchmarks.peer`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.deployment import Deployment, deployed
from benchmarks.flows import CHECKOUT
from benchmarks.peer import feast_python, run_feast
from benchmarks.purchases import INSTANT, names
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from forebay import BatchView, Entity, Feature, FeatureService, Float64, Int64, String, TableSource, Timestamp
from forebay.instants import DAY_US, day_us
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore

DUCKDB, KNOWN, FIVE = "DuckDB by hand", "forebay, as known", "forebay, five views"
FEASTS = ("duckdb", "dask")
DRAWN_ROWS = 500_000
SMALLER = 5
"""The other views have so many times fewer rows."""
START_US = day_us("2024-01-01")
DAYS = 40
PLANS = ("free", "basic", "pro", "enterprise")
FLOATS, INTS, TEXTS = 12, 6, 2


@dataclass(frozen=True)
class Size:
    """Stored rows and entities of both shapes, and how many rows are asked."""

    rows: int = 2_000_000
    users: int = 100_000
    few_rows: int = 500_000
    few_users: int = 1_000
    spine: int = 100_000
    rounds: int = 5


LARGE = Size(20_000_000, 1_000_000, 5_000_000, 1_000, 1_000_000, rounds=1)
TINY = Size(rows=4_000, users=200, few_rows=2_000, few_users=10, spine=500, rounds=1)


def view_of(name: str) -> BatchView:
    """A batch view of twenty features."""
    user = Entity("user", keys={"user_id": String})
    table = TableSource(
        "profiles", schema={"user_id": String, "at": Timestamp}, effective="at", path="profiles.parquet"
    )
    features = [
        *(Feature(f"rate_{i}", Float64, default=0.0) for i in range(FLOATS)),
        *(Feature(f"count_{i}", Int64, default=0) for i in range(INTS)),
        *(Feature(f"plan_{i}", String, default="none") for i in range(TEXTS)),
    ]
    return BatchView(
        name=name, version=1, entity=user, sources=[table], features=features, history_start="2024-01-01", ttl="90d"
    )


def view_beside(name: str) -> BatchView:
    """A batch view of the same entity with four features."""
    like = view_of(name)
    features = [Feature(f"{name}_{i}", Float64, default=0.0) for i in range(4)]
    return BatchView(
        name=name,
        version=1,
        entity=like.entity,
        sources=like.sources,
        features=features,
        history_start="2024-01-01",
        ttl="90d",
    )


MANY, FEW = view_of("many"), view_of("few")
BESIDE = [view_beside(f"beside_{i}") for i in range(4)]
SERVICES = [
    *(FeatureService(view.name, version=1, features=[view]) for view in (MANY, FEW)),
    FeatureService("five", version=1, features=[MANY, *BESIDE]),
]
DEFINITIONS = Definitions.of(*SERVICES)


def run(size: Size) -> Report:
    """Measure both shapes: Forebay by both clocks, and DuckDB."""
    comparisons = []
    with deployed(DEFINITIONS) as deployment:
        for view, rows, users in ((MANY, size.rows, size.users), (FEW, size.few_rows, size.few_users)):
            world = World.made(deployment, view, rows, users, size.spine)
            samples = interleaved(contenders_of(world, rows, users), size.rounds, warm_up=False)
            world.check()
            shape = f"{rows:,} rows of {users:,} users"
            pairs = [
                (OURS, "", DUCKDB),
                (KNOWN, "as known, ", DUCKDB),
                (FIVE, "five views, ", OURS),
                *((OURS, "", f"Feast, {store}") for store in FEASTS),
            ]
            comparisons += [
                Comparison.of(f"{shape}, {which}{what}", samples, other, metric, unit, ours=ours)
                for ours, which, other in pairs
                if ours in samples and other in samples
                for what, metric, unit in (
                    ("wall", "wall_s", "s"),
                    ("CPU", "cpu_s", "s"),
                    ("peak memory", "peak_mb", "MB"),
                )
            ]
    setting = f"{FLOATS + INTS + TEXTS} features of a batch view, {size.spine:,} rows asked"
    return Report("asof", setting, size.rounds, comparisons)


def contenders_of(world: World, rows: int, users: int) -> dict[str, Contender]:
    """Who takes turns on the rows of a view."""
    found: dict[str, Contender] = {
        name: partial(world.measured, contender)
        for name, contender in ((OURS, "as_of"), (DUCKDB, "duckdb"), (KNOWN, "as_known"))
    }
    if world.view == MANY:
        for view in BESIDE:
            write_rows(world.deployment, view, rows // SMALLER, users)
        found[FIVE] = partial(world.measured, "as_of", "five")
        if python := feast_python():
            file = world.one_file()
            found |= {f"Feast, {store}": partial(run_feast, python, store, file, str(world.spine)) for store in FEASTS}
    return found


@dataclass(frozen=True)
class World:
    """The rows of a view in a deployment's table, and a spine."""

    deployment: Deployment
    view: BatchView
    spine: Path

    @classmethod
    def made(cls, deployment: Deployment, view: BatchView, rows: int, users: int, asked: int) -> World:
        """Draw rows and a spine, and write both."""
        world = cls(deployment, view, deployment.settings.home / f"{view.name}.parquet")
        write_rows(deployment, view, rows, users)
        pq.write_table(spine_of(users, asked), world.spine)
        return world

    def one_file(self) -> str:
        """All rows of the view in one file, as Feast wants them."""
        file = self.spine.with_name(f"{self.view.name}-all.parquet")
        pq.write_table(pq.read_table(self._files(), partitioning=None), file)
        return str(file)

    def measured(self, contender: str, service: str = "") -> Measured:
        """One contender: a clock of Forebay's, for the view's service or another one, or `duckdb`."""
        service = service or self.view.name
        out = self._out(contender if service == self.view.name else service)
        arguments = [contender, service, str(self._files()), str(self.spine), str(out)]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.asof_run", *arguments],
            cwd=CHECKOUT,
            env=dict(self.deployment.environment),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(arguments)} failed: {done.stderr[-2000:]}")
        used: Measured = json.loads(done.stdout)
        return used

    def check(self) -> None:
        """All contenders gave the same values for every row. Raises `AssertionError`."""
        tables = [pq.read_table(self._out(name)).sort_by("spine_id") for name in ("duckdb", "as_of", "as_known")]
        for name in tables[0].column_names:
            for table in tables[1:]:
                assert table[name].cast(tables[0][name].type).equals(tables[0][name]), f"{name} differs"

    def _out(self, contender: str) -> Path:
        return self.spine.with_name(f"{self.view.name}-{contender}.parquet")

    def _files(self) -> Path:
        return Path(self.deployment.settings.offline_url) / "features" / self.view.key


def write_rows(deployment: Deployment, view: BatchView, rows: int, users: int) -> None:
    """Draw the rows of a view into its table, a file a day; a commit for as many days as are drawn together."""
    table, drawn, first = OfflineStore(deployment.settings).rows(view), [], 0
    for day, one in enumerate(_days(view, rows, users), 1):
        drawn.append(one)
        if sum(map(len, drawn)) >= DRAWN_ROWS or day == DAYS:
            table.overwrite(START_US + first * DAY_US, START_US + day * DAY_US, pa.concat_tables(drawn))
            drawn, first = [], day


def spine_of(users: int, asked: int) -> pa.Table:
    """Rows at any instant of the later three quarters of the time."""
    rng = np.random.default_rng(12)
    return pa.table(
        {
            "spine_id": pa.array(np.arange(asked)),
            "user_id": names("u", rng.integers(0, users, asked)),
            "event_timestamp": pa.array(START_US + rng.integers(DAYS * DAY_US // 4, DAYS * DAY_US, asked), INSTANT),
        }
    )


def _days(view: BatchView, rows: int, users: int) -> Iterator[pa.Table]:
    """The rows of each day, known as soon as they hold; no user has two at one instant."""
    rng = np.random.default_rng(13)
    size = rows // DAYS
    for day in range(DAYS):
        start_us = START_US + day * DAY_US
        instants = start_us + _distinct(rng, size)
        columns: dict[str, Any] = {"user_id": names("u", rng.integers(0, users, size))}
        for feature in view.features:
            columns[feature.name] = _drawn(rng, feature, size)
        for name in ("event_timestamp", "created_timestamp"):
            columns[name] = pa.array(instants, INSTANT)
        columns["partition_start"] = pa.array(np.full(size, start_us), INSTANT)
        yield pa.table(columns)


def _distinct(rng: np.random.Generator, size: int) -> np.ndarray[Any, Any]:
    step = DAY_US // size
    return np.arange(size) * step + rng.integers(0, step, size)


def _drawn(rng: np.random.Generator, feature: Feature, size: int) -> pa.Array:
    if feature.type == Float64:
        return pa.array(rng.random(size))
    if feature.type == Int64:
        return pa.array(rng.integers(0, 10_000, size))
    return pa.array(PLANS).take(pa.array(rng.integers(0, len(PLANS), size)))
