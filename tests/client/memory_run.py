"""Training sets in a process of its own, which says what it held:
`python -m tests.client.memory_run HOME MEGABYTES [S3]`, with half of the events where the offline store is on S3.

Each call is given `MEGABYTES` beyond what the process holds with everything loaded. It prints, in bytes: what each call
was given in all and the most that was held meanwhile, how much is stored behind the features and asked about as Arrow
tables, and what a call takes that keeps no bound.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forebay import BatchView, Count, Entity, EventSource, Feature, FeatureService, Last, Sum, TableSource, WindowedView
from forebay.client.feature_store import FeatureStore
from forebay.client.memory import MB, left_of, resident_bytes
from forebay.instants import DAY_US
from forebay.language.definitions import Definitions
from forebay.language.types import Int64, String, Timestamp
from forebay.offline.archive import archive_schema
from forebay.offline.data_files import DataFiles
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings

EVENTS, ROWS, USERS, DAYS = 4_200_000, 2_520_000, 200_000, 12
SPINE, LONG_SPINE, LABEL_BYTES = 40_000, 160_000, 1_200
START_US = 1_704_067_200_000_000
INSTANT = pa.timestamp("us", "UTC")

SOURCE = EventSource(
    "letters",
    schema={"event_id": String, "user": String, "ts": Timestamp, "pages": Int64, "text": String(max_bytes=64)},
    timestamp="ts",
    event_id="event_id",
    history_start="2024-01-01",
)
USER = Entity("user", keys={"user": String})
VIEW = WindowedView(
    "letters_read",
    version=1,
    entity=USER,
    source=SOURCE,
    features=[
        Count("letters", windows=["24h", "7d"], default=0),
        Sum("pages", of="pages", windows=["24h", "7d"], default=0),
        Last("last_text", of="text", windows=[None], default="none"),
    ],
)
ADDRESSES = BatchView(
    name="addresses",
    version=1,
    entity=USER,
    sources=[TableSource("towns", schema={"user": String, "at": Timestamp}, effective="at", path="towns.csv")],
    partitions="daily",
    history_start="2024-01-01",
    features=[
        Feature("rooms", Int64, default=0),
        Feature("street", String(max_bytes=64), default="none"),
        Feature("town", String(max_bytes=64), default="none"),
    ],
)
DEFINITIONS = Definitions.of(
    FeatureService("mail", version=1, features=[VIEW]), FeatureService("post", version=1, features=[ADDRESSES])
)
NEEDED = ["event_id", "user", "ts", "pages", "text"]
CALLS: dict[str, tuple[str, str, str, Any]] = {
    "events": ("mail@1", "short", "set.parquet", "as_of"),
    "events as known, to Delta": ("mail@1", "short", "mail", "as_known"),
    "rows of a long spine": ("post@1", "long", "long.parquet", "as_of"),
    "rows of a long spine as known, to Delta": ("post@1", "long", "post", "as_known"),
}
"""What is asked of which spine, where it is written to, and by which clock."""
ON_S3 = ["events as known, to Delta"]


def texts_of(count: int, rng: np.random.Generator) -> pa.Array:
    """Texts as long as their column allows."""
    texts = [f"{'a letter of sixty-four bytes, as long as the column allows':<60}{i:04}" for i in range(5_000)]
    return pa.array(texts).take(pa.array(rng.integers(0, 5_000, count)))


def users_of(count: int, rng: np.random.Generator) -> pa.Array:
    """Some of the users."""
    return pa.array([f"u{i}" for i in range(USERS)]).take(pa.array(rng.integers(0, USERS, count)))


def instants(us: Any) -> pa.Array:
    """Instants as they are stored."""
    return pa.array(us, INSTANT)


def days(events: int) -> Iterator[pa.Table]:
    """The events of each day, as they lie in the archive."""
    rng = np.random.default_rng(3)
    size = events // DAYS
    for day in range(DAYS):
        start_us, first = START_US + day * DAY_US, day * size
        own = {
            "event_id": pa.array(np.arange(first, first + size)).cast(pa.string()),
            "user": users_of(size, rng),
            "ts": instants(start_us + np.sort(rng.integers(0, DAY_US, size))),
            "pages": pa.array(rng.integers(1, 90, size)),
            "text": texts_of(size, rng),
            "source_partition": pa.repeat(pa.scalar("0"), size),
            "source_offset": pa.array(np.arange(first, first + size)),
            "arrived_at": instants(np.full(size, start_us + DAY_US)),
            "date": pa.repeat(pa.scalar(f"2024-01-{day + 1:02}"), size),
        }
        yield pa.table(own).select(archive_schema(SOURCE).names)


def archive(store: OfflineStore, events: int) -> int:
    """Archive the events; the bytes of the columns behind the features."""
    table, needed = store.archive(SOURCE).table, 0
    files: DataFiles = table.files("ts")
    for rows in days(events):
        files.write(rows)
        files.flush()
        needed += rows.select(NEEDED).nbytes
    table.append_files(files, {})
    return needed


def compute(store: OfflineStore) -> int:
    """Write the rows of a batch view day by day, and two days once more; the bytes of what holds now."""
    table, rng, needed = store.rows(ADDRESSES), np.random.default_rng(5), 0
    size = ROWS // DAYS
    for day, again in [*((day, 0) for day in range(DAYS)), (1, 1), (4, 1)]:
        start_us = START_US + day * DAY_US
        created_us = start_us + (1 + again) * DAY_US
        rows = {
            "user": users_of(size, rng),
            "rooms": pa.array(rng.integers(1, 9, size)),
            "street": texts_of(size, rng),
            "town": texts_of(size, rng),
            "event_timestamp": instants(start_us + np.sort(rng.integers(0, DAY_US, size))),
            "created_timestamp": instants(np.full(size, created_us)),
            "partition_start": instants(np.full(size, start_us)),
        }
        table.overwrite(start_us, start_us + DAY_US, pa.table(rows), created_us)
        needed += 0 if again else pa.table(rows).nbytes
    return needed


def spine(count: int, rng: np.random.Generator) -> pa.Table:
    """Rows of a few of the users."""
    us = START_US + rng.integers(DAY_US, DAYS * DAY_US, count)
    return pa.table({"user": users_of(count, rng), "event_timestamp": instants(us)})


def long_spine(path: Path) -> int:
    """A file of rows with a label each, which no file makes smaller than half; their bytes."""
    rng, held, size = np.random.default_rng(6), 0, 20_000
    empty = spine(0, rng).append_column("label", pa.array([], pa.string()))
    with pq.ParquetWriter(path, empty.schema) as file:
        for _ in range(LONG_SPINE // size):
            text = rng.bytes(size * LABEL_BYTES // 2).hex().encode()
            edges = pa.py_buffer(np.arange(0, len(text) + 1, LABEL_BYTES, np.int32).tobytes())
            labels = pa.Array.from_buffers(pa.string(), size, [None, edges, pa.py_buffer(text)])
            rows = spine(size, rng).append_column("label", labels)
            file.write_table(rows)
            held += rows.nbytes
    return held


def peak_bytes() -> int:
    """The most that this process has held since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Measure from now on."""
    Path("/proc/self/clear_refs").write_text("5")


def bounded(store: FeatureStore, name: str, megabytes: int, spines: dict[str, Any], place: str) -> dict[str, int]:
    """What a call was given, and what it took."""
    features, asked, out, clock = CALLS[name]
    pa.default_memory_pool().release_unused()
    given = resident_bytes() // MB + megabytes
    ask = {"out": f"{place}/{out}", "memory": f"{given}MB", "features": features, "clock": clock}
    forget_peak()
    done = store.write_historical_features(spines[asked], **ask)
    return {"given": given * MB, "peak": peak_bytes(), "buckets": done.buckets, "rows": done.rows}


def main(home: str, megabytes: str, url: str = "") -> None:
    """Write the sets and print what they took."""
    settings = Settings(Path(home), "redis://127.0.0.1:1/0", url or f"{home}/offline")
    stored, held = OfflineStore(settings), dict[str, int]()
    held["events"] = archive(stored, EVENTS // 2 if url else EVENTS)
    if not url:
        held |= {"rows": compute(stored), "spine": long_spine(Path(f"{home}/spine.parquet"))}
    spines = {"short": spine(SPINE, np.random.default_rng(4)), "long": f"{home}/spine.parquet"}
    with FeatureStore(settings, DEFINITIONS) as store:
        for place in ("ten.parquet", "ten"):
            few = spines["short"].slice(0, 10)
            store.write_historical_features(few, features="mail@1", out=f"{home}/{place}", memory="8GB")
        left_of("8GB")  # what the calls load is there
        found: dict[str, Any] = {"held": held}
        names = [name for name in CALLS if (name in ON_S3) == bool(url)]
        found["calls"] = {name: bounded(store, name, int(megabytes), spines, url or home) for name in names}
        if not url:
            forget_peak()
            whole = store.get_historical_features(spines["short"], features="mail@1").to_arrow()
            found |= {"same": whole.equals(pq.read_table(f"{home}/set.parquet")), "whole": peak_bytes()}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
