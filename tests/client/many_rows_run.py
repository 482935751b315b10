"""An as-of join of few entities with very many rows each, in a process of its own, which says what it held:
`python -m tests.client.many_rows_run HOME`.

    user       0  1  2  …  0  1  2  …            each day the users take turns, one row every few milliseconds
    age        0  0  0  …  1  1  1  …            how many rows of the day its user had before

It prints how many rows are stored, how many of those asked were answered rightly, and by either clock the bytes that
the process held at most beyond what it held before.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from forebay import BatchView, Entity, Feature, FeatureService, Int64, String, TableSource, Timestamp
from forebay.client.feature_store import FeatureStore
from forebay.client.memory import resident_bytes
from forebay.instants import DAY_US
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from tests.client.memory_run import START_US, forget_peak, instants, peak_bytes

ENTITIES, ROWS_EACH, DAYS, SPINE = 100, 150_000, 10, 1_000
DAILY = ENTITIES * ROWS_EACH // DAYS
STEP_US = DAY_US // DAILY
NARROW_BYTES, BOUND_MB = 24, 110
"""What a key and two instants take, and what a join may take, whatever is stored."""
VIEW = BatchView(
    name="person",
    version=1,
    entity=Entity("user", keys={"user": String}),
    sources=[TableSource("people", schema={"user": String, "at": Timestamp}, effective="at", path="people.csv")],
    partitions="daily",
    history_start="2024-01-01",
    features=[Feature("age", Int64, default=-1)],
)


def store_rows(store: OfflineStore) -> None:
    """Write the rows of each day, which were created as they came to hold."""
    table = store.rows(VIEW).table
    files = table.files("event_timestamp")
    places = np.arange(DAILY)
    users = pa.array([f"user {i:02}" for i in range(ENTITIES)])
    for day in range(DAYS):
        start_us = START_US + day * DAY_US
        us = instants(start_us + places * STEP_US)
        own = {
            "user": users.take(pa.array(places % ENTITIES)),
            "age": pa.array(places // ENTITIES),
            "event_timestamp": us,
            "created_timestamp": us,
            "partition_start": instants(np.full(DAILY, start_us)),
            "date": pa.repeat(pa.scalar(f"2024-01-{day + 1:02}"), DAILY),
        }
        files.write(pa.table(own))
        files.flush()
    table.append_files(files, {})


def asked() -> tuple[pa.Table, Any]:
    """Rows that ask, and the age that each is to get: that of the user's newest row."""
    rng = np.random.default_rng(1)
    user, past_us = rng.integers(0, ENTITIES, SPINE), rng.integers(ENTITIES * STEP_US, DAY_US, SPINE)
    newest = np.minimum(past_us // STEP_US, DAILY - 1)
    names = pa.array([f"user {i:02}" for i in user.tolist()])
    us = instants(START_US + rng.integers(0, DAYS, SPINE) * DAY_US + past_us)
    return pa.table({"user": names, "event_timestamp": us}), (newest - user) // ENTITIES


def main(home: str) -> None:
    """Store the rows, ask, and print what it took."""
    settings = Settings(Path(home), "redis://127.0.0.1:1/0", f"{home}/offline")
    stored = OfflineStore(settings)
    store_rows(stored)
    spine, ages = asked()
    found: dict[str, int] = {"rows": (stored.rows(VIEW).size() or (0, 0))[0], "right": SPINE}
    with FeatureStore(settings, Definitions.of(FeatureService("people", version=1, features=[VIEW]))) as store:
        store.get_historical_features(spine.slice(0, 1), features="people@1")
        for clock in ("as_of", "as_known"):
            pa.default_memory_pool().release_unused()
            held = resident_bytes()
            forget_peak()
            table = store.get_historical_features(spine, features="people@1", clock=clock).to_arrow()
            found[clock] = peak_bytes() - held
            found["right"] = min(found["right"], int((np.asarray(table["age"]) == ages).sum()))
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
