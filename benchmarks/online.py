"""Online reads beside a bare MGET of the very same keys, which is the least that any client of this layout could do.

The store holds a week: six days published by batch, the rest applied by a lane in micro-batches, so every read joins
rolled-up, pending and batch tiles. The keys that a read fetches are not computed here but seen: MONITOR tells what the
server was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import redis

from benchmarks.deployment import Deployment, deployed
from benchmarks.purchases import MERCHANTS, PARTITION, Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Samples, interleaved, per_unit
from benchmarks.shop import HISTORY_START, LIVE, merchant_sales, purchases, user_spend
from forebay.client.feature_store import FeatureStore
from forebay.core.identity import SLOTS
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.ingest.arrow import conform
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.online.lane import Lane, Stretch
from forebay.online.publish import publish_tiles

VIEWS = (user_spend, merchant_sales)
START_US = day_us(HISTORY_START)
CUT_US = START_US + 6 * DAY_US
END_US = CUT_US + 20 * HOUR_US
MICRO_BATCH = 4096
MGET = "MGET of the same keys"
END_OF_READ = "forebay-bench-end-of-read"


@dataclass(frozen=True)
class Size:
    """How much is stored, and how often each request is made in a round."""

    users: int = 2_000
    events: int = 300_000
    requests: int = 20
    reads_of_1: int = 600
    reads_of_100: int = 60
    rounds: int = 5


TINY = Size(users=200, events=4_000, requests=3, reads_of_1=6, reads_of_100=3, rounds=1)


@dataclass(frozen=True)
class Case:
    """A kind of read: so many rows of a service, so many reads a round."""

    what: str
    service: str
    rows: int
    reads: int


def run(size: Size) -> Report:
    """Measure reads of 1 and of 100 entities."""
    cases = [
        Case("1 entity × 18 features", "spend@1", 1, size.reads_of_1),
        Case("100 entities × 18 features", "spend@1", 100, size.reads_of_100),
        Case("100 rows × 36 features of 2 entities", "checkout@1", 100, size.reads_of_100),
    ]
    comparisons: list[Comparison] = []
    with deployed(LIVE) as deployment:
        fill(deployment, Purchases.drawn(size.events, size.users, START_US, END_US, zipf=0.0))
        with deployment.store() as store:
            for case in cases:
                samples = measure(store, deployment.redis, case, size)
                comparisons += [
                    Comparison.of(f"read {case.what}, wall", samples, MGET, "wall_us", "µs"),
                    Comparison.of(f"read {case.what}, client CPU", samples, MGET, "cpu_us", "µs"),
                ]
    tiles = size.events // size.users
    setting = f"{size.users:,} users with {tiles} purchases a week, 3 windows × 6 aggregates"
    return Report("online", setting, size.rounds, comparisons)


def fill(deployment: Deployment, events: Purchases) -> None:
    """Publish what is before the cut, and apply the rest as a stream does."""
    batch, _ = conform(purchases, PARTITION, 0, events.to_arrow(), END_US)
    first = int(np.searchsorted(events.ts, CUT_US))
    namespace = deployment.settings.namespace
    for view in VIEWS:
        before = Selector(view).select(batch.table.slice(0, first))
        layout = Layout.of(view)
        tiles = roll_up(layout, fold(layout, before))
        publish_tiles(deployment.redis, namespace, view, before.keys.to_pylist(), tiles, CUT_US)
    lane = Lane(deployment.redis, namespace, VIEWS, range(SLOTS))
    lane.take_over()
    for low in range(first, len(events), MICRO_BATCH):
        stretch = batch.table.slice(low, MICRO_BATCH)
        high = low + stretch.num_rows
        selected = {view.key: Selector(view).select(stretch) for view in VIEWS}
        lane.commit([Stretch(PARTITION, high, int(events.ts[high - 1]), selected)])
    lane.close()


def measure(store: FeatureStore, client: redis.Redis, case: Case, size: Size) -> Samples:
    """Forebay and MGET in turns, over the same requests."""
    rng = np.random.default_rng(case.rows)
    requests = [
        [{"user_id": f"u{user}", "merchant_id": f"m{user % MERCHANTS}"} for user in drawn.tolist()]
        for drawn in (rng.choice(size.users, case.rows, replace=False) for _ in range(size.requests))
    ]

    def read(n: int) -> None:
        rows = requests[n % len(requests)]
        store.get_online_features(case.service, entity_rows=rows, at=END_US).to_dict()

    keys = [keys_of(client, lambda n=n: read(n)) for n in range(len(requests))]
    return interleaved(
        {
            OURS: per_unit(lambda: _times(case.reads, read)),
            MGET: per_unit(lambda: _times(case.reads, lambda n: client.mget(keys[n % len(keys)]))),
        },
        size.rounds,
    )


def keys_of(client: redis.Redis, read: Callable[[], None]) -> list[str]:
    """The keys that a read asks the server for."""
    read()
    keys: list[str] = []
    with client.monitor() as monitor:
        read()
        client.echo(END_OF_READ)
        while True:
            name, *arguments = monitor.next_command()["command"].split()
            if name.upper() == "ECHO" and arguments == [END_OF_READ]:
                break
            if name.upper() in {"MGET", "GET"}:
                keys += arguments
    assert keys, "the read fetched no key with MGET or GET"
    return keys


def _times(count: int, work: Callable[[int], object]) -> int:
    for n in range(count):
        work(n)
    return count
