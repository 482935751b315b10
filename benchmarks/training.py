"""A training set beside the same values by hand in DuckDB and in Polars: cumulative sums and ASOF JOINs.

All are given the same events (Forebay from its archive, the others from the Parquet file that was loaded into it) and
the same spine, run in a process of their own (`benchmarks.training_run`) and end with an Arrow table in memory.
Cumulative sums can give nine aggregates (a count; sums, means and deviations of two columns; a first and a last
value), so these are what all compute. What they can't, the least and the largest, Forebay computes on top in one more
contender, beside the same two. Every value of the last round is compared.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.by_hand import THREADS
from benchmarks.deployment import Deployment, deployed
from benchmarks.flows import CHECKOUT
from benchmarks.purchases import INSTANT, Purchases, names
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from benchmarks.shop import HISTORY_START, PAST, TRAINING_WINDOWS
from forebay.instants import DAY_US, day_us

DUCKDB, POLARS = "DuckDB by hand", "Polars by hand"
ALL = "forebay, with min and max"
ONE_THREAD = "forebay, on one thread"
START_US = day_us(HISTORY_START)
DAYS, FIRST_SPINE_DAY = 90, 20
AT_AN_EVENT = 20
"""One spine row in so many asks at the very instant of an event, which must not count."""
RELATIVE_ERROR = 1e-9
READ_BYTES = 2**24


@dataclass(frozen=True)
class Size:
    """How much history, and how many rows are asked."""

    events: int = 1_000_000
    users: int = 50_000
    spine: int = 100_000
    rounds: int = 5


LARGE = Size(events=20_000_000, users=1_000_000, spine=1_000_000, rounds=1)
TINY = Size(events=5_000, users=100, spine=500, rounds=1)


def run(size: Size) -> Report:
    """Measure both, and Forebay with all aggregates."""
    with deployed(PAST) as deployment:
        world = World.made(deployment, size)
        contenders: dict[str, Contender] = {
            OURS: lambda: world.measured("past@1"),
            DUCKDB: lambda: world.measured("duckdb"),
            POLARS: lambda: world.measured("polars"),
            ALL: lambda: world.measured("everything@1"),
            ONE_THREAD: lambda: world.measured("past@1", threads=1),
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
        world.check()
    comparisons = [
        Comparison.of(what, samples, by_hand, metric, unit, ours=ours)
        for ours, features in ((OURS, "9 aggregates"), (ALL, "11 aggregates (by hand: 9)"))
        for by_hand in (DUCKDB, POLARS)
        for what, metric, unit in (
            (f"training set, {features}, wall", "wall_s", "s"),
            (f"training set, {features}, CPU", "cpu_s", "s"),
            (f"training set, {features}, peak memory", "peak_mb", "MB"),
        )
    ]
    comparisons += [
        Comparison.of(f"training set, 9 aggregates, two threads, {what}", samples, ONE_THREAD, metric, "s")
        for what, metric in (("wall", "wall_s"), ("CPU", "cpu_s"))
    ]
    setting = f"{size.events:,} events of {size.users:,} users, {size.spine:,} rows, {len(TRAINING_WINDOWS)} windows"
    return Report("training", setting, size.rounds, comparisons)


@dataclass(frozen=True)
class World:
    """The same history in a deployment's archive and in a Parquet file, and a spine."""

    deployment: Deployment
    events: Path
    spine: Path

    @classmethod
    def made(cls, deployment: Deployment, size: Size) -> World:
        """Draw events and a spine, and load the events as a user does."""
        home = deployment.settings.home
        world = cls(deployment, home / "events.parquet", home / "spine.parquet")
        events = Purchases.drawn(size.events, size.users, START_US, START_US + DAYS * DAY_US)
        pq.write_table(events.to_arrow(), world.events)
        pq.write_table(spine_of(events, size), world.spine)
        loaded = world._process("forebay.cli", "load", "purchases", str(world.events), "--json")
        assert loaded["files"][0]["rows"] == size.events, loaded
        os.sync()  # what is still to be written would be, while the first contender runs
        return world

    def measured(self, contender: str, threads: int = THREADS) -> Measured:
        """One contender: a service of Forebay's, or `duckdb`, on so many threads; one of Forebay's is one processor."""
        self._read_all()
        places = [str(place) for place in (self.events, self.spine, self._out(contender))]
        used: Measured = self._process("benchmarks.training_run", contender, *places, threads=threads)
        return used

    def check(self) -> None:
        """All contenders gave the same values for every row. Raises `AssertionError`."""
        by_hand, *others = (
            pq.read_table(self._out(contender)).sort_by("spine_id")
            for contender in ("duckdb", "polars", "past@1", "everything@1")
        )
        for name in by_hand.column_names:
            for table in others:
                check_same(name, table[name], by_hand[name])

    def _read_all(self) -> None:
        """Have all files in the machine's memory, whatever the contender before has driven out of it."""
        for path in self.deployment.settings.home.rglob("*.parquet"):
            with path.open("rb") as file:
                while file.read(READ_BYTES):
                    pass

    def _out(self, contender: str) -> Path:
        return self.spine.with_name(f"{contender}.parquet")

    def _process(self, *arguments: str, threads: int = THREADS) -> Any:
        limits = dict.fromkeys(("FOREBAY_THREADS", "OMP_NUM_THREADS", "POLARS_MAX_THREADS"), str(threads))
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=CHECKOUT,
            env=dict(self.deployment.environment) | limits,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"python -m {' '.join(arguments)} failed: {done.stderr[-2000:]}")
        return json.loads(done.stdout)


def spine_of(events: Purchases, size: Size) -> pa.Table:
    """Rows whose users are drawn as events are, most at any instant, some at the very instant of an event."""
    rng = np.random.default_rng(11)
    rows = rng.integers(0, len(events), size.spine)
    instants = START_US + rng.integers(FIRST_SPINE_DAY * DAY_US, DAYS * DAY_US, size.spine)
    exact = np.arange(size.spine) % AT_AN_EVENT == 0
    instants[exact] = events.ts[rows[exact]]
    return pa.table(
        {
            "spine_id": pa.array(np.arange(size.spine)),
            "user_id": names("u", events.users[rows]),
            "event_timestamp": pa.array(instants, INSTANT),
        }
    )


def check_same(name: str, ours: pa.ChunkedArray, by_hand: pa.ChunkedArray) -> None:
    """Equal, but for the rounding of a deviation that was computed in floats. Raises `AssertionError`."""
    if not pa.types.is_floating(by_hand.type):
        assert ours.cast(by_hand.type).equals(by_hand), f"{name} differs"
        return
    for row, (mine, theirs) in enumerate(zip(ours.to_pylist(), by_hand.to_pylist(), strict=True)):
        same = math.isclose(mine, theirs, rel_tol=RELATIVE_ERROR, abs_tol=RELATIVE_ERROR)
        assert same, f"{name} in row {row} is {mine} by Forebay and {theirs} by hand"
