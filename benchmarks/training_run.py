"""One contender of the training benchmark, in a process of its own so that its peak memory is its own.

`python -m benchmarks.training_run CONTENDER EVENTS SPINE OUT` computes the training set once over ten rows (imports,
caches of files), then over the whole spine under the clock, prints seconds, CPU seconds and peak megabytes, and writes
the result. Forebay sweeps as many events, too: ten rows would not have numba loaded, nor what it compiled before.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.by_hand import training_set_by_hand
from benchmarks.purchases import Purchases
from benchmarks.shop import HISTORY_START, all_spend
from forebay.instants import DAY_US, day_us

WARM_UP_ROWS = 10


def main(contender: str, events: str, spine: str, out: str) -> None:
    """Run one contender and print what it used."""
    by_hand = {"duckdb": by_duckdb, "polars": by_polars}
    compute = by_hand[contender](events) if contender in by_hand else by_forebay(contender)
    rows = pq.read_table(spine)
    compute(rows.slice(0, WARM_UP_ROWS))
    wall, cpu = time.perf_counter(), time.process_time()
    table = compute(rows)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert table.num_rows == rows.num_rows
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb()}))
    pq.write_table(table, out)


def by_forebay(service: str) -> Callable[[pa.Table], pa.Table]:
    """A service's features through the client."""
    from forebay.client.feature_store import FeatureStore

    store = FeatureStore.connect()
    load_compiled()
    return lambda rows: store.get_historical_features(rows, features=service).to_arrow()


def load_compiled() -> None:
    """Have loaded what a first call of many rows would load in its midst."""
    from forebay.core.hash_table import HashTable
    from forebay.core.layout import Layout
    from forebay.core.sweep import answer_sweep

    start_us = day_us(HISTORY_START)
    events = Purchases.drawn(WARM_UP_ROWS, WARM_UP_ROWS, start_us, start_us + DAY_US).events(all_spend)
    answer_sweep(Layout.of(all_spend), events, events.code, events.ts + 1, threads=1, bare=True)
    keys = pa.array(["short", "longer than a word"])
    HashTable(keys).find(keys)


def by_duckdb(events: str) -> Callable[[pa.Table], pa.Table]:
    """The same by hand."""
    return lambda rows: training_set_by_hand(events, rows)


def by_polars(events: str) -> Callable[[pa.Table], pa.Table]:
    """The same by hand in Polars, which is loaded by nobody else."""
    from benchmarks.by_polars import training_set_by_polars

    return lambda rows: training_set_by_polars(events, rows)


def peak_mb() -> float:
    """The most memory that this process has held; `getrusage` would count its parent's too."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main(*sys.argv[1:])
