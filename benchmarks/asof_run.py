"""One contender of the as-of benchmark, in a process of its own so that its peak memory is its own.

`python -m benchmarks.asof_run CONTENDER SERVICE FILES SPINE OUT` answers ten rows first (imports, caches of files),
then the whole spine under the clock, prints seconds, CPU seconds and peak megabytes, and writes the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.by_hand import THREADS
from benchmarks.training_run import WARM_UP_ROWS, peak_mb


def main(contender: str, service: str, files: str, spine: str, out: str) -> None:
    """Run one contender and print what it used."""
    compute = by_duckdb(files) if contender == "duckdb" else by_forebay(service, contender)
    rows = pq.read_table(spine)
    compute(rows.slice(0, WARM_UP_ROWS))
    wall, cpu = time.perf_counter(), time.process_time()
    table = compute(rows)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    assert table.num_rows == rows.num_rows
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb()}))
    pq.write_table(table, out)


def by_forebay(service: str, clock: Any) -> Callable[[pa.Table], pa.Table]:
    """A service's features through the client."""
    from forebay.client.feature_store import FeatureStore

    store = FeatureStore.connect()
    return lambda rows: store.get_historical_features(rows, features=f"{service}@1", clock=clock).to_arrow()


def by_duckdb(files: str) -> Callable[[pa.Table], pa.Table]:
    """The same as one would write it, with the defaults of an entity without a row."""
    connection = duckdb.connect()
    connection.execute(f"SET threads = {THREADS}; SET enable_progress_bar = false; SET TimeZone = 'UTC'")
    connection.execute("SET preserve_insertion_order = false")
    source = f"read_parquet('{files}/**/*.parquet', hive_partitioning = false)"
    own = {"user_id", "event_timestamp", "created_timestamp", "partition_start"}
    found = connection.sql(f"DESCRIBE SELECT * FROM {source}").fetchall()
    features = {name: kind for name, kind, *_ in found if name not in own}
    columns = ", ".join(
        f"coalesce(r.{name}, {repr('none') if kind == 'VARCHAR' else 0}) AS {name}" for name, kind in features.items()
    )
    query = (
        f"SELECT s.spine_id, s.user_id, s.event_timestamp, {columns} FROM given AS s ASOF LEFT JOIN {source} AS r "
        "ON s.user_id = r.user_id AND s.event_timestamp >= r.event_timestamp"
    )

    def compute(rows: pa.Table) -> pa.Table:
        connection.register("given", rows)
        return connection.sql(query).to_arrow_table()

    return compute


if __name__ == "__main__":
    main(*sys.argv[1:])
