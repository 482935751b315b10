"""A cluster of three nodes beside one server of the same kind: what it costs that each slot is a transaction.

Both keep everything in memory and listen on 127.0.0.1; the same lane, publisher and reader use them in turns. On one
machine a cluster has nothing to win: the ratios are its price, not its worth.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import redis

from benchmarks.online import CUT_US, END_US, MICRO_BATCH, START_US
from benchmarks.purchases import PARTITION, Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved, per_unit
from benchmarks.shop import user_spend
from forebay.core.events import Events
from forebay.core.identity import SLOTS
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, roll_up
from forebay.online.cluster import Cluster
from forebay.online.connection import connect_online
from forebay.online.lane import Lane, Stretch
from forebay.online.publish import publish_tiles
from forebay.online.read import OnlineReader
from forebay.settings import Settings
from tests.infra.valkey import Valkey
from tests.infra.valkey_cluster import ValkeyCluster

ONE = "one server"
NAMESPACE = "bench"


@dataclass(frozen=True)
class Size:
    """How much is written and read in a round."""

    users: int = 20_000
    events: int = 100_000
    commits_of_1: int = 200
    reads: int = 200
    rounds: int = 5


TINY = Size(users=100, events=6_000, commits_of_1=3, reads=3, rounds=1)


class Store:
    """One of the two, its lane and its reader."""

    def __init__(self, client: redis.Redis, size: Size) -> None:
        self.client, self.size, self.offset = client, size, 0
        self._events = Purchases.drawn(size.events, size.users, START_US, END_US).events(user_spend)
        self.lane = Lane(client, NAMESPACE, [user_spend], range(SLOTS))
        self.lane.take_over()
        self.reader = OnlineReader(client, NAMESPACE)

    def commit(self, count: int) -> int:
        """Apply some events in one transaction (of each slot)."""
        first = self.offset % (self.size.events - MICRO_BATCH)
        some = self._events.take(np.arange(first, first + count))
        offset = np.arange(self.offset, self.offset + count)
        self.offset += count
        events = Events(some.keys, some.code, some.ts, some.ids, offset, some.columns)
        self.lane.commit([Stretch(PARTITION, self.offset, int(events.ts.max()), {user_spend.key: events})])
        return count

    def commits(self, batches: int, count: int) -> int:
        """Some commits of so many events; the number of events."""
        return sum(self.commit(count) for _ in range(batches))

    def read(self, rows: int) -> int:
        """Some reads of so many entities."""
        for n in range(self.size.reads):
            keys = [f"u{(n * rows + i) % self.size.users}" for i in range(rows)]
            self.reader.read([user_spend], {user_spend.key: keys}, None, END_US)
        return self.size.reads

    def publish(self, keys: list[str], tiles: Tiles) -> int:
        """All entities, as fast as they are taken."""
        return publish_tiles(self.client, NAMESPACE, user_spend, keys, tiles, CUT_US, rate=0).rows

    def used_s(self) -> float:
        """CPU seconds of all servers."""
        servers = self.client.primaries() if isinstance(self.client, Cluster) else [self.client]
        used = [server.info("cpu") for server in servers]
        return sum(float(one["used_cpu_user"]) + float(one["used_cpu_sys"]) for one in used)


def run(size: Size) -> Report:
    """Measure commits, reads and publications."""
    with stores(size) as both:
        events = Purchases.drawn(size.events, size.users, START_US, CUT_US).events(user_spend)
        layout = Layout.of(user_spend)
        tiles = roll_up(layout, fold(layout, events))
        batches = max(1, size.events // MICRO_BATCH - 1)
        works = {
            f"commit {MICRO_BATCH:,} events": lambda store: store.commits(batches, MICRO_BATCH),
            "commit 1 event": lambda store: store.commits(size.commits_of_1, 1),
            "publish tiles": lambda store: store.publish(events.keys.to_pylist(), tiles),
            "read 1 entity": lambda store: store.read(1),
            "read 100 entities": lambda store: store.read(100),
        }
        comparisons = []
        for what, work in works.items():
            contenders: Mapping[str, Contender] = {
                name: partial(_both_sides, store, per_unit(partial(work, store))) for name, store in both.items()
            }
            samples = interleaved(contenders, size.rounds)
            comparisons += [
                Comparison.of(f"{what}, wall", samples, ONE, "wall_us", "µs"),
                Comparison.of(f"{what}, client CPU", samples, ONE, "cpu_us", "µs"),
                Comparison.of(f"{what}, CPU of both sides", samples, ONE, "both_us", "µs"),
            ]
    setting = f"{size.users:,} users, one view of 3 windows × 6 aggregates, 3 nodes; µs an event, an entity or a read"
    return Report("cluster", setting, size.rounds, comparisons)


def _both_sides(store: Store, contender: Contender) -> Measured:
    before_s, began_s = store.used_s(), time.perf_counter()
    found = contender()
    units = found["per_s"] * (time.perf_counter() - began_s)
    return {**found, "both_us": found["cpu_us"] + (store.used_s() - before_s) / units * 1e6}


@contextmanager
def stores(size: Size) -> Iterator[Mapping[str, Store]]:
    """Both, until the end of the block."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory(prefix="forebay-bench-")))
        urls = {OURS: stack.enter_context(ValkeyCluster()).url, ONE: stack.enter_context(Valkey()).url}
        found = {name: Store(connect_online(Settings(home, url, str(home))), size) for name, url in urls.items()}
        yield found
        for store in found.values():
            store.lane.close()
            store.client.close()
