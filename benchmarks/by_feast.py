"""What Feast takes for the same rows; run by a Python that has it (`FOREBAY_FEAST_PYTHON`), which needs no Forebay.

    python -m venv feast && feast/bin/pip install 'feast[redis,duckdb]'
    FOREBAY_FEAST_PYTHON=feast/bin/python python -m benchmarks publish asof

`by_feast.py materialize ROWS REDIS` publishes a Parquet file of rows to a Redis; `by_feast.py duckdb|dask ROWS SPINE`
gets them as of the rows of a spine. Each prints JSON: seconds, CPU seconds, peak megabytes, rows. What comes before
(imports, the definitions) isn't counted.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import io
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = """project: bench
provider: local
registry: {folder}/registry.db
online_store: {{type: redis, connection_string: "{redis}"}}
offline_store: {{type: {offline}}}
entity_key_serialization_version: 3
"""


def repo(folder: str, rows: str, redis: str, offline: str) -> tuple[Any, list[str]]:
    """A feature store with one view of all columns of a Parquet file that are no key and no instant."""
    import pyarrow.parquet as pq

    feast, types = importlib.import_module("feast"), importlib.import_module("feast.types")  # of another Python
    value = feast.ValueType
    kinds = {"double": value.DOUBLE, "int64": value.INT64, "string": value.STRING}
    schema = pq.read_schema(rows)
    names = [name for name in schema.names if name.startswith(("score_", "rate_", "count_", "plan_"))]
    fields = [feast.Field(name=n, dtype=types.from_value_type(kinds[str(schema.field(n).type)])) for n in names]
    Path(folder, "feature_store.yaml").write_text(REPO.format(folder=folder, redis=redis, offline=offline))
    store = feast.FeatureStore(repo_path=folder)
    user = feast.Entity(name="user", join_keys=["user_id"], value_type=value.STRING)
    source = feast.FileSource(name="rows", path=rows, timestamp_field="event_timestamp")
    view = feast.FeatureView(
        name="view",
        entities=[user],
        ttl=datetime.timedelta(days=90),
        source=source,
        schema=[feast.Field(name="user_id", dtype=types.from_value_type(value.STRING)), *fields],
    )
    store.apply([user, view])
    return store, names


def materialize(store: Any, names: list[str], spine: Any) -> int:
    """All rows that there are."""
    day = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        store.materialize(day, day + datetime.timedelta(days=30))
    return 0


def history(store: Any, names: list[str], spine: Any) -> int:
    """The features as of each row of a spine."""
    asked = store.get_historical_features(entity_df=spine, features=[f"view:{name}" for name in names])
    return len(asked.to_arrow())


def main(mode: str, rows: str, other: str) -> None:
    """Measure one call."""
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        published = mode == "materialize"
        store, names = repo(folder, rows, other if published else "127.0.0.1:1", "duckdb" if published else mode)
        spine = None if published else pd.read_parquet(other)
        wall, cpu = time.perf_counter(), time.process_time()
        count = (materialize if published else history)(store, names, spine)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb, "rows": count}))


if __name__ == "__main__":
    main(*sys.argv[1:])
