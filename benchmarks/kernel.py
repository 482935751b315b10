"""The training kernel alone: from the core's columns of events to those of features, nothing read and nothing written.

What the compiled sweep costs beside its NumPy twin (both on one thread), what a second thread brings, what ten times
the events cost, and what a backfill's fold costs beside sorting. Every value of the twins is compared.

All of them take turns in one process of their own, which keeps the memory that it is given. Else glibc decides what is
compared: the first thread finds memory of before where others get fresh pages, or the other way round, and fresh pages
cost a quarter to half of a sweep. What they cost a caller is in `training`, where each contender has a process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.deployment import CHECKOUT
from benchmarks.purchases import Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Samples, interleaved, per_unit
from benchmarks.shop import TRAINING_WINDOWS, all_spend
from benchmarks.training import DAYS, FIRST_SPINE_DAY, START_US
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.ranges import answer_ranges
from forebay.core.sweep import answer_sweep
from forebay.core.tiles import fold
from forebay.core.values import FeatureColumn
from forebay.instants import DAY_US

TWIN, ONE_THREAD, TENTH = "NumPy, one thread", "one thread", "a tenth of them"
FOLD, SORT = "fold", "sorting their entities and instants alone"
FOLDED = 1_000_000
"""Events that are folded together: a batch of a backfill."""
KEEPS_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
}
"""What glibc is told: all threads share what one has freed, and nothing goes back to the system. Others ignore it."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Size:
    """How many events the larger history has, and how many rows are asked."""

    events: int = 5_000_000
    users: int = 100_000
    rows: int = 250_000
    rounds: int = 5


TINY = Size(events=5_000, users=100, rows=500, rounds=1)


def run(size: Size) -> Report:
    """Measure the sweep on two threads beside all others, per row."""
    measured = subprocess.run(
        [sys.executable, "-m", "benchmarks.kernel", json.dumps(asdict(size))],
        cwd=CHECKOUT,
        env={**os.environ, **KEEPS_MEMORY},
        stdout=subprocess.PIPE,
        check=True,
    )
    samples = json.loads(measured.stdout)
    comparisons = [
        Comparison.of("sweep, two threads", samples, ONE_THREAD, "wall_us", "µs/row wall"),
        Comparison.of("sweep, one thread", samples, TWIN, "cpu_us", "µs/row CPU", ours=ONE_THREAD),
        Comparison.of("sweep, ten times the events", samples, TENTH, "cpu_us", "µs/row CPU"),
        Comparison.of("fold for a backfill, CPU", samples, SORT, "cpu_us", "µs/event", ours=FOLD),
    ]
    features = len(Layout.of(all_spend).outputs)
    setting = f"{size.events:,} events, {size.rows:,} rows, {len(TRAINING_WINDOWS)} windows, {features} features"
    return Report("kernel", setting, size.rounds, comparisons)


def in_turns(size: Size) -> Samples:
    """All contenders, in this process."""
    large, small = Asked.drawn(size.events, size), Asked.drawn(size.events // 10, size)
    large.check()
    contenders: dict[str, Contender] = {
        OURS: per_unit(lambda: large.swept(2)),
        ONE_THREAD: per_unit(lambda: large.swept(1)),
        TWIN: per_unit(large.in_numpy),
        TENTH: per_unit(lambda: small.swept(2)),
        FOLD: per_unit(large.folded),
        SORT: per_unit(large.sorted),
    }
    return interleaved(contenders, size.rounds)


@dataclass(frozen=True)
class Asked:
    """Events, and rows that ask about their users at any instant."""

    events: Events
    code: Ints
    us: Ints

    @classmethod
    def drawn(cls, count: int, size: Size) -> Asked:
        """Rows whose users are drawn as events are."""
        events = Purchases.drawn(count, size.users, START_US, START_US + DAYS * DAY_US).events(all_spend)
        rng = np.random.default_rng(5)
        instants = START_US + rng.integers(FIRST_SPINE_DAY * DAY_US, DAYS * DAY_US, size.rows)
        return cls(events, events.code[rng.integers(0, count, size.rows)], instants)

    def swept(self, threads: int) -> int:
        """By the compiled kernel; how many rows."""
        self._sweep(threads)
        return len(self.code)

    def folded(self) -> int:
        """The first events as tiles of the finest hop; how many events."""
        first = self.events.take(np.arange(min(len(self.events), FOLDED)))
        fold(Layout.of(all_spend), first)
        return len(first)

    def sorted(self) -> int:
        """What no fold does without: the first events in order; how many."""
        count = min(len(self.events), FOLDED)
        np.lexsort((self.events.ts[:count], self.events.code[:count]))
        return count

    def in_numpy(self) -> int:
        """By its twin; how many rows."""
        answer_ranges(Layout.of(all_spend), self.events, self.code, self.us)
        return len(self.code)

    def check(self) -> None:
        """Both give the same bits. Raises `AssertionError`."""
        twins = answer_ranges(Layout.of(all_spend), self.events, self.code, self.us)
        for mine, twin in zip(self._sweep(2), twins, strict=True):
            for name in ("values", "status", "event_us"):
                assert (getattr(mine, name) == getattr(twin, name)).all(), f"{mine.feature.name}: {name} differ"

    def _sweep(self, threads: int) -> list[FeatureColumn]:
        return answer_sweep(Layout.of(all_spend), self.events, self.code, self.us, threads=threads)


if __name__ == "__main__":
    print(json.dumps(in_turns(Size(**json.loads(sys.argv[1])))))
