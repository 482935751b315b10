"""The flow that one writes first: one Python object per event, `stateful_map` per entity, a redis-py pipeline.

`python -m benchmarks.per_event LOG SOCKET PREFIX` streams a log of purchases (a file, or a topic by Bytewax's own
source) into hashes `<prefix><entity>`, one field
per tile. It keeps the same tiles as Forebay's two views (3 hops; count, sum, squares, min, max, last), so the same 36
features can be answered from them: `check_same` does that.
"""

from __future__ import annotations

import json
import math
import struct
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import redis

from benchmarks.logs import where
from forebay.client.feature_store import FeatureStore
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, instant_us

BATCH = 4096
HOPS_US = (MINUTE_US, 15 * MINUTE_US, HOUR_US)
WINDOWS_US = {"1h": (HOUR_US, 0), "24h": (DAY_US, 1), "7d": (7 * DAY_US, 2)}
TILE = struct.Struct("<7q")
Tile = list[int]
"""Count, sum, squares, least, most, last, and the instant of the last."""


class Purchase(msgspec.Struct):
    """One line of the log."""

    event_id: str
    ts: datetime
    user_id: str
    merchant_id: str
    amount: float
    items: int


decode = msgspec.json.Decoder(Purchase).decode


def by_entity(line: bytes) -> list[tuple[str, tuple[int, int]]]:
    """An event, once for each of its entities: instant and cents."""
    event = decode(line)
    what = (instant_us(event.ts), round(event.amount * 100))
    return [(event.user_id, what), (event.merchant_id, what)]


def updated(
    tiles: dict[bytes, Tile] | None, event: tuple[int, int]
) -> tuple[dict[bytes, Tile], list[tuple[bytes, bytes]]]:
    """The tiles of an entity after an event, and the fields that have changed."""
    tiles = {} if tiles is None else tiles
    ts, cents = event
    changed = []
    for ring, hop_us in enumerate(HOPS_US):
        name = b"%d:%d" % (ring, ts - ts % hop_us)
        tile = tiles.get(name)
        if tile is None:
            tile = tiles[name] = [1, cents, cents * cents, cents, cents, cents, ts]
        else:
            tile[0] += 1
            tile[1] += cents
            tile[2] += cents * cents
            tile[3] = min(tile[3], cents)
            tile[4] = max(tile[4], cents)
            if ts >= tile[6]:
                tile[5], tile[6] = cents, ts
        changed.append((name, TILE.pack(*tile)))
    return tiles, changed


def flow(log: str, socket: str, prefix: str) -> Any:
    """The dataflow."""
    import bytewax.operators as op
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
    from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

    class Lines(StatefulSourcePartition[bytes, None]):
        def __init__(self) -> None:
            self._lines = Path(log).read_bytes().splitlines()
            self._next = 0

        def next_batch(self) -> Iterable[bytes]:
            if self._next >= len(self._lines):
                raise StopIteration
            first, self._next = self._next, self._next + BATCH
            return self._lines[first : self._next]

        def snapshot(self) -> None:
            return None

    class Log(FixedPartitionedSource[bytes, None]):
        def list_parts(self) -> list[str]:
            return ["0"]

        def build_part(self, step_id: str, for_part: str, resume_state: None) -> Lines:
            return Lines()

    class Fields(StatefulSinkPartition[Any, None]):
        def __init__(self) -> None:
            self._redis = redis.Redis(unix_socket_path=socket)

        def write_batch(self, items: Sequence[Any]) -> None:
            pipeline = self._redis.pipeline(transaction=False)
            for entity, name, tile in items:
                pipeline.hset(prefix + entity, name, tile)
            pipeline.execute()

        def snapshot(self) -> None:
            return None

    class Online(FixedPartitionedSink[Any, None]):
        def list_parts(self) -> list[str]:
            return ["0"]

        def build_part(self, step_id: str, for_part: str, resume_state: None) -> Fields:
            return Fields()

    dataflow = Dataflow("per_event")
    topic = where(log)
    if topic is None:
        lines = op.input("read", dataflow, Log())
    else:
        messages = op.input("read", dataflow, KafkaSource([topic[0]], [topic[1]], tail=False, batch_size=BATCH))
        lines = op.map("value", messages, lambda message: message.value)
    tiles = op.stateful_map("tiles", op.flat_map("decode", lines, by_entity), updated)
    fields = op.flat_map("fields", tiles, lambda one: [("0", (one[0], name, tile)) for name, tile in one[1]])
    op.output("write", fields, Online())
    return dataflow


def check_same(store: FeatureStore, client: redis.Redis, prefix: str, users: Sequence[int], at_us: int) -> None:
    """Every feature of these users is the same in both. Raises `AssertionError`."""
    rows = [{"user_id": f"u{user}"} for user in users]
    ours = store.get_online_features("spend@1", entity_rows=rows, at=at_us).to_dict()
    for row, user in enumerate(ours["user_id"]):
        for window, expected in answers(client.hgetall(prefix + user), at_us).items():
            for name, value in expected.items():
                found = ours[f"user_{name}_{window}"][row]
                same = (
                    math.isclose(found, value, rel_tol=1e-9)
                    if name == "stddev"
                    else round(found * (1 if name == "count" else 100)) == value
                )
                assert same, f"user_{name}_{window} of {user} is {found} online and {value} in the per-event flow"


def answers(fields: dict[bytes, bytes], at_us: int) -> dict[str, dict[str, float]]:
    """The features of an entity from the tiles of the per-event flow: cents by window and name."""
    tiles = [(*map(int, name.split(b":")), TILE.unpack(tile)) for name, tile in fields.items()]
    found: dict[str, dict[str, float]] = {}
    for window, (length_us, ring) in WINDOWS_US.items():
        edge_us = (at_us - length_us) // HOPS_US[ring] * HOPS_US[ring]
        mine = [tile for of, start_us, tile in tiles if of == ring and start_us >= edge_us]
        if mine:
            count, total, squares = (sum(column) for column in list(zip(*mine, strict=True))[:3])
            found[window] = {
                "count": count,
                "sum": total,
                "stddev": math.sqrt(count * squares - total * total) / count / 100,
                "min": min(tile[3] for tile in mine),
                "max": max(tile[4] for tile in mine),
                "last": max(mine, key=lambda tile: tile[6])[5],
            }
    return found


if __name__ == "__main__":
    from bytewax._bytewax import cli_main

    log = sys.argv[1]
    cli_main(flow(log, sys.argv[2], sys.argv[3]), workers_per_process=1, epoch_interval=timedelta(seconds=1))
    print(json.dumps({"log": log}))
