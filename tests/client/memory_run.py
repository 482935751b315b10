"""A training set in a process of its own, which says what it held: `python -m tests.client.memory_run HOME MEGABYTES`.

The process is given `MEGABYTES` beyond what it holds with everything loaded. It prints, in bytes: what it was given in
all, the most that it held, and how much the columns behind the features are as an Arrow table.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forebay import Count, Entity, EventSource, FeatureService, Last, Sum, WindowedView
from forebay.client.feature_store import FeatureStore
from forebay.client.memory import MB, left_of, resident_bytes
from forebay.instants import DAY_US
from forebay.language.definitions import Definitions
from forebay.language.types import Int64, String, Timestamp
from forebay.offline.archive import archive_schema
from forebay.offline.data_files import DataFiles
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings

EVENTS, USERS, SPINE, DAYS = 4_200_000, 200_000, 40_000, 12
START_US = 1_704_067_200_000_000
INSTANT = pa.timestamp("us", "UTC")

SOURCE = EventSource(
    "letters",
    schema={"event_id": String, "user": String, "ts": Timestamp, "pages": Int64, "text": String(max_bytes=64)},
    timestamp="ts",
    event_id="event_id",
    history_start="2024-01-01",
)
VIEW = WindowedView(
    "letters_read",
    version=1,
    entity=Entity("user", keys={"user": String}),
    source=SOURCE,
    features=[
        Count("letters", windows=["24h", "7d"], default=0),
        Sum("pages", of="pages", windows=["24h", "7d"], default=0),
        Last("last_text", of="text", windows=[None], default="none"),
    ],
)
NEEDED = ["event_id", "user", "ts", "pages", "text"]


def days() -> Iterator[pa.Table]:
    """The events of each day, as they lie in the archive."""
    rng = np.random.default_rng(3)
    size = EVENTS // DAYS
    texts = pa.array(
        [f"{'a letter of sixty-four bytes, as long as the column allows':<60}{i:04}" for i in range(5_000)]
    )
    users = pa.array([f"u{i}" for i in range(USERS)])
    for day in range(DAYS):
        start_us, first = START_US + day * DAY_US, day * size
        own = {
            "event_id": pa.array(np.arange(first, first + size)).cast(pa.string()),
            "user": users.take(pa.array(rng.integers(0, USERS, size))),
            "ts": pa.array(start_us + np.sort(rng.integers(0, DAY_US, size)), INSTANT),
            "pages": pa.array(rng.integers(1, 90, size)),
            "text": texts.take(pa.array(rng.integers(0, 5_000, size))),
            "source_partition": pa.repeat(pa.scalar("0"), size),
            "source_offset": pa.array(np.arange(first, first + size)),
            "arrived_at": pa.array(np.full(size, start_us + DAY_US), INSTANT),
            "date": pa.repeat(pa.scalar(f"2024-01-{day + 1:02}"), size),
        }
        yield pa.table(own).select(archive_schema(SOURCE).names)


def archive(store: OfflineStore) -> int:
    """Archive the events; the bytes of the columns behind the features."""
    table, needed = store.archive(SOURCE).table, 0
    files: DataFiles = table.files("ts")
    for rows in days():
        files.write(rows)
        files.flush()
        needed += rows.select(NEEDED).nbytes
    table.append_files(files, {})
    return needed


def spine() -> pa.Table:
    """Rows of a few of the users."""
    rng = np.random.default_rng(4)
    return pa.table(
        {
            "user": pa.array([f"u{i}" for i in rng.integers(0, USERS, SPINE)]),
            "event_timestamp": pa.array(START_US + rng.integers(DAY_US, DAYS * DAY_US, SPINE), INSTANT),
        }
    )


def peak_bytes() -> int:
    """The most that this process has held since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Measure from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def main(home: str, megabytes: str) -> None:
    """Write the set and print what it took."""
    settings = Settings(Path(home), "redis://127.0.0.1:1/0", f"{home}/offline")
    definitions = Definitions.of(FeatureService("mail", version=1, features=[VIEW]))
    needed = archive(OfflineStore(settings))
    rows = spine()
    with FeatureStore(settings, definitions) as store:
        ask = {"features": "mail@1"}
        store.write_historical_features(rows.slice(0, 10), out=f"{home}/ten.parquet", memory="8GB", **ask)
        left_of("8GB")  # what the call loads is there
        pa.default_memory_pool().release_unused()
        given = resident_bytes() // MB + int(megabytes)
        forget_peak()
        written = store.write_historical_features(rows, out=f"{home}/set.parquet", memory=f"{given}MB", **ask)
        peak = peak_bytes()
        same = store.get_historical_features(rows, **ask).to_arrow().equals(pq.read_table(f"{home}/set.parquet"))
    found = {"given": given * MB, "peak": peak, "whole": peak_bytes(), "needed": needed, "same": same}
    print(json.dumps(found | {"buckets": written.buckets}))


if __name__ == "__main__":
    main(*sys.argv[1:])
