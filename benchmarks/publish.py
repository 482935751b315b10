"""Publishing beside a redis-py pipeline and beside replaying ready-made bytes, which is what the server can take.

`publish_tiles` and `publish_rows` check, pack and fence, and list what is published; the other two are given the very
blobs that they wrote, names and all, and only send them. All three write the same keys, which expire. Feast's
`materialize` of the same rows joins them where a Python has it (`benchmarks.peer`). The last two lines are what is out
of reach: how much faster than the pipeline the server takes bytes that cost nobody anything.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import hiredis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks.deployment import Deployment, deployed
from benchmarks.peer import address_of, feast_python, run_feast
from benchmarks.purchases import INSTANT, Purchases, names
from benchmarks.report import MORE, OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, Samples, interleaved, per_unit
from benchmarks.shop import HISTORY_START, PUBLISHED, profiles, user_spend
from forebay import BatchView, Float64, Int64
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.instants import DAY_US, day_us
from forebay.online.keys import BATCH, ROW
from forebay.online.publish import publish_rows, publish_tiles

START_US = day_us(HISTORY_START)
CUT_US = START_US + 7 * DAY_US
PIPELINE = "redis-py pipeline of SET"
REPLAY = "replay of ready-made bytes"
FEAST = "Feast's materialize"
PIPELINE_COMMANDS = 2_000
LIFETIME_S = 365 * 86_400
RECEIVE_BYTES = 1 << 18
OK = b"+OK\r\n"


@dataclass(frozen=True)
class Size:
    """How much is published."""

    entities: int = 20_000
    events: int = 300_000
    rows: int = 100_000
    rounds: int = 5


TINY = Size(entities=200, events=1_000, rows=500, rounds=1)


def run(size: Size) -> Report:
    """Measure the publication of tiles and of batch rows."""
    others = (PIPELINE, REPLAY, *([FEAST] if feast_python() else []))
    with deployed(PUBLISHED) as deployment:
        tiles, blob_bytes = measure_tiles(deployment, size)
    published = [(f"publish tiles ({blob_bytes:,} B each)", tiles)]
    for view in profiles:
        with deployed(PUBLISHED) as deployment:  # a server each: none holds what another view left
            rows, row_bytes = measure_rows(deployment, size, view)
        published.append((f"publish batch rows of {len(view.features)} features ({row_bytes} B each)", rows))
    comparisons = [
        comparison
        for what, samples in published
        for other in others
        if other in samples
        for comparison in (
            Comparison.of(what, samples, other, "per_s", "entities/s", better=MORE),
            Comparison.of(f"{what}, client CPU", samples, other, "cpu_us", "µs/entity"),
            Comparison.of(f"{what}, CPU of both sides", samples, other, "both_us", "µs/entity"),
        )
    ]
    comparisons += [
        Comparison.of(f"{what}: {REPLAY}", samples, PIPELINE, "per_s", "entities/s", better=MORE, ours=REPLAY)
        for what, samples in published
    ]
    setting = (
        f"{size.entities:,} users with {size.events // size.entities} purchases a week; {size.rows:,} rows of each view"
    )
    return Report("publish", setting, size.rounds, comparisons)


def measure_tiles(deployment: Deployment, size: Size) -> tuple[Samples, int]:
    """Tiles of all rings of one view; also the mean bytes of a blob."""
    client, namespace = deployment.redis, deployment.settings.namespace
    events = Purchases.drawn(size.events, size.entities, START_US, CUT_US).events(user_spend)
    layout = Layout.of(user_spend)
    tiles = roll_up(layout, fold(layout, events))

    def publish() -> int:
        return publish_tiles(client, namespace, user_spend, events.keys.to_pylist(), tiles, CUT_US, rate=0).rows

    return _beside(deployment, publish, BATCH, size)


def measure_rows(deployment: Deployment, size: Size, view: BatchView) -> tuple[Samples, int]:
    """Rows of a batch view; also the mean bytes of a row."""
    client, namespace = deployment.redis, deployment.settings.namespace
    rng = np.random.default_rng(7)
    instants = pa.array(np.full(size.rows, CUT_US), INSTANT)
    drawn = {Float64: lambda: rng.normal(size=size.rows), Int64: lambda: rng.integers(0, 1_000_000, size.rows)}
    scores = {feature.name: pa.array(drawn[feature.type]()) for feature in view.features}
    keys = {"user_id": names("u", np.arange(size.rows)), "event_timestamp": instants, "created_timestamp": instants}
    table = pa.table(keys | scores)
    file = deployment.settings.home / "rows.parquet"
    pq.write_table(table, file)
    more = {FEAST: partial(by_feast, deployment, python, file, size.rows)} if (python := feast_python()) else {}
    return _beside(deployment, lambda: publish_rows(client, namespace, view, table, rate=0).rows, ROW, size, more)


def by_feast(deployment: Deployment, python: str, rows: Path, count: int) -> Measured:
    """Feast's `materialize` of the same rows to the same server."""
    server_s = deployment.redis_cpu_s()
    with address_of(deployment.redis, free_port()) as address:
        used = run_feast(python, "materialize", str(rows), address)
    assert deployment.redis.dbsize() >= 2 * count, "Feast's rows are not beside Forebay's"
    cpu_us, server_us = used["cpu_s"] / count * 1e6, (deployment.redis_cpu_s() - server_s) / count * 1e6
    return {"per_s": count / used["wall_s"], "cpu_us": cpu_us, "both_us": cpu_us + server_us}


def free_port() -> int:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def _beside(
    deployment: Deployment,
    publish: Callable[[], int],
    kind: str,
    size: Size,
    more: Mapping[str, Contender] = MappingProxyType({}),
) -> tuple[Samples, int]:
    client, count = deployment.redis, publish()
    written = sorted(client.scan_iter(f"*:{kind}", 5_000))  # by slot, as they were published: where values lie counts
    assert len(written) == count, f"{count} entities were published, {len(written)} are there"
    blobs = [client.get(name) for name in written]
    ready = [
        hiredis.pack_command(("SET", name, blob, "EX", LIFETIME_S)) for name, blob in zip(written, blobs, strict=True)
    ]
    stream = b"".join(ready)
    samples = interleaved(
        {
            OURS: _both(deployment, publish),
            PIPELINE: _both(deployment, lambda: pipeline(client, written, blobs)),
            REPLAY: _both(deployment, lambda: replay(client, stream, count)),
            **more,
        },
        size.rounds,
    )
    return samples, sum(map(len, blobs)) // count


def _both(deployment: Deployment, work: Callable[[], int]) -> Contender:
    """What `per_unit` measures, and the CPU of client and server together."""

    def measured() -> Measured:
        server_s = deployment.redis_cpu_s()
        found, count = per_unit(counted)(), units[-1]
        return {**found, "both_us": found["cpu_us"] + (deployment.redis_cpu_s() - server_s) / count * 1e6}

    units: list[int] = []

    def counted() -> int:
        units.append(work())
        return units[-1]

    return measured


def pipeline(client: redis.Redis, written: Sequence[bytes], blobs: Sequence[bytes]) -> int:
    """SET everything through pipelines, as a careful user of redis-py does."""
    for low in range(0, len(written), PIPELINE_COMMANDS):
        commands = client.pipeline(transaction=False)
        for name, blob in zip(
            written[low : low + PIPELINE_COMMANDS], blobs[low : low + PIPELINE_COMMANDS], strict=True
        ):
            commands.set(name, blob, ex=LIFETIME_S)
        commands.execute()
    return len(written)


def replay(client: redis.Redis, stream: bytes, count: int) -> int:
    """Send ready-made bytes while another thread reads the replies."""
    connection = client.connection_pool.get_connection()
    try:
        connection.connect()
        opened = connection._sock  # the socket that redis-py has opened, by its own rules
        sender = threading.Thread(target=opened.sendall, args=(stream,))
        sender.start()
        received = 0
        while received < count * len(OK):
            chunk = opened.recv(RECEIVE_BYTES)
            assert chunk.startswith((b"+", b"O", b"K", b"\r", b"\n")), chunk[:80]
            received += len(chunk)
        sender.join()
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)
    return count
