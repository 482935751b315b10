"""A deployment with a log, the flow as a process of its own, and what must be true of both stores afterwards.

Lives here: the world of the streaming tests; the tests themselves say what happens in it. The log has events of two
entities, late, duplicate and malformed ones among them; what is expected of a store is computed from the log's lines,
one by one."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis
from msgspec.structs import replace

from forebay import Count, Decimal, Entity, EventSource, FileStream, Last, Max, String, Sum, Timestamp, WindowedView
from forebay.core.identity import SLOTS, entity_key
from forebay.core.layout import Layout
from forebay.core.tiles import fold, merge
from forebay.core.values import Status
from forebay.deploy.registry import Registry
from forebay.ingest.select import Selector
from forebay.instants import HOUR_US, MINUTE_US, day_us, duration_us, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.online.read import OnlineReader
from forebay.settings import Settings
from streaming.run import parse, run
from streaming.stop import Stop
from streaming.summary import Summary
from tests.oracle import oracle

CHECKOUT = Path(__file__).resolve().parents[2]
DAY = "2024-03-01"
START_US = day_us(DAY) + 22 * HOUR_US
WAIT_S = 120.0

user = Entity("user", keys={"user": String})
merchant = Entity("merchant", keys={"merchant": String})
orders = EventSource(
    "orders",
    schema={
        "event_id": String(max_bytes=16),
        "user": String,
        "merchant": String,
        "amount": Decimal(2),
        "kind": String,
        "ts": Timestamp,
    },
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/orders"),
    lateness="10m",
    history_start="2024-02-01",  # a month before the log, so that ancient events are events too
)
user_orders = WindowedView(
    "user_orders",
    version=1,
    entity=user,
    source=orders,
    where="kind = 'paid'",
    features=[
        Count("orders", windows=["1h", None], default=0),
        Sum("spend", of="amount", windows=["10m", "1h"], default=0),
        Last("last_amount", of="amount", windows=["1h"], default=None),
    ],
)
merchant_orders = WindowedView(
    "merchant_orders",
    version=1,
    entity=merchant,
    source=orders,
    features=[
        Count("merchant_orders", windows=["24h"], default=0),
        Max("largest", of="amount", windows=["24h"], default=None),
    ],
)
VIEWS = (user_orders, merchant_orders)


def deduped(views: Sequence[WindowedView], dedupe: str) -> list[WindowedView]:
    """The same views of a source that drops duplicates."""
    return [replace(view, source=replace(view.source, dedupe=dedupe)) for view in views]


def lines(seed: int, count: int, *, first: int = 0, rate: float = 4) -> list[bytes]:
    """Events of a log, `rate` a second: some out of order, some late, some twice, some that are none."""
    rng = random.Random(seed)
    out: list[bytes] = []
    for n in range(first, first + count):
        chance = rng.random()
        ts = START_US + int(n * 1_000_000 / rate)
        if chance < 0.02:
            ts -= rng.randrange(11 * MINUTE_US, 3 * HOUR_US)
        elif chance < 0.3:
            ts -= rng.randrange(0, 9 * MINUTE_US)
        event = {
            "event_id": f"e{n}",
            "user": rng.choice(["", None, "ü/1"]) if chance > 0.98 else f"u{int(rng.paretovariate(0.8)) % 300}",
            "merchant": f"m{rng.randrange(20)}",
            "amount": rng.choice([1.25, 0, "17.505", 99.99, None, 3]),
            "kind": rng.choice(["paid", "paid", "seen", None]),
            "ts": instant_text(ts),
        }
        out.append(
            rng.choice([b"{", b"[]", b"not json", b'{"ts": 5.5}'])
            if 0.97 < chance < 0.98
            else json.dumps(event).encode()
        )
        if 0.96 < chance < 0.97:
            out.append(out[-1])
    return out


def with_repeats(seed: int, out: Sequence[bytes], share: float = 0.1) -> list[bytes]:
    """Events of a log, some of them sent again: at once, a little later, long after, or twice more."""
    rng = random.Random(seed)
    repeated: list[tuple[float, bytes]] = []
    for n, line in enumerate(out):
        repeated.append((n, line))
        while rng.random() < share:
            repeated.append((n + rng.choice([0.5, rng.randrange(1, 60), rng.randrange(1, 4000)]), line))
    return [line for _, line in sorted(repeated, key=lambda one: one[0])]


@dataclass
class World:
    """One deployment of the views, its log and its flows."""

    home: Path
    settings: Settings
    online: redis.Redis
    log: dict[str, list[bytes]] = field(default_factory=dict)
    dedupe: str | None = None

    @classmethod
    def make(
        cls, home: Path, online_url: str, namespace: str, offline_url: str = "", *, dedupe: str | None = None
    ) -> World:
        """A deployment with the views applied and an empty log."""
        settings = Settings(home, online_url, offline_url or str(home / "offline"), namespace=namespace)
        online = connect_online(settings)
        Registry.open(settings, online).apply(Definitions.of(*(VIEWS if dedupe is None else deduped(VIEWS, dedupe))))
        (home / "orders").mkdir()
        return cls(home, settings, online, dedupe=dedupe)

    @property
    def offline(self) -> OfflineStore:
        """The offline store, as it is now."""
        return OfflineStore(self.settings)

    def append(self, partition: str, more: Sequence[bytes]) -> None:
        """Append whole lines to a partition of the log."""
        self.log.setdefault(partition, []).extend(more)
        with (self.home / "orders" / partition).open("ab") as file:
            file.write(b"".join(line + b"\n" for line in more))

    def environment(self) -> dict[str, str]:
        """What a flow's process is told."""
        return os.environ | {
            "FOREBAY_HOME": str(self.home),
            "FOREBAY_ONLINE_URL": self.settings.online_url,
            "FOREBAY_OFFLINE_URL": self.settings.offline_url,
            "FOREBAY_NAMESPACE": self.settings.namespace,
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a flow."""
        command = [sys.executable, "-m", "streaming", "--json", *arguments]
        return subprocess.Popen(
            command, cwd=CHECKOUT, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @contextmanager
    def flow(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """A flow that is gone after the block."""
        process = self.start(*arguments)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run a flow to the end of the log, in this process; its summary."""
        stop, summary = Stop(), Summary()
        run(self.settings, parse(["--until-end", *arguments]), stop, summary)
        if stop.error is not None:
            raise stop.error
        return summary.to_dict()

    def applied(self) -> int:
        """How many lines some slot has applied online, over all partitions."""
        blob = self.online.get(Keys(self.settings.namespace).progress(merchant_orders.key, [0])[0])
        progress = Progress() if blob is None else Progress.decode(bytes(blob))
        return sum(partition.next_offset for partition in progress.partitions.values())

    def archived(self) -> int:
        """How many lines the archive covers, over all partitions."""
        return sum(self.offline.archive(orders).next_offset(partition) for partition in self.log)

    def fences(self) -> list[bytes | None]:
        """The tokens of the flow that may write."""
        keys = Keys(self.settings.namespace)
        return list(self.online.mget([keys.fence(slot, orders.name) for slot in range(SLOTS)]))

    def read(self, view: WindowedView, entities: Sequence[str]) -> list[int]:
        """The first feature of a view, for entities with one key column, after all events of the log."""
        keys = {view.key: [entity_key(view.entity, {next(iter(view.entity.keys)): name}) for name in entities]}
        at_us = START_US + 48 * HOUR_US
        found = OnlineReader(self.online, self.settings.namespace).read([view], keys, at_us, at_us)
        return [int(value) for value in found.views[view.key].columns[0].values]

    def repairs(self) -> set[tuple[str, str, str]]:
        """The marks that were made: source, day, reason."""
        table = self.offline.repairs().scan()
        return set(zip(*(table[name].to_pylist() for name in ("source", "day", "reason")), strict=True))

    def valid(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The events of the log by (partition, offset), less the duplicates where the source drops them."""
        if self.dedupe is None:
            return self.offered()
        horizon_us, events = duration_us(self.dedupe), {}
        seen, newest_us = set[tuple[str, str, int]](), defaultdict[str, int](lambda: -(2**63))
        for (partition, offset), event in self.offered().items():
            ts, identity = _ts(event), (partition, event["event_id"], _ts(event))
            if identity not in seen or ts < newest_us[partition] - horizon_us:
                events[partition, offset] = event
            seen.add(identity)
            newest_us[partition] = max(ts, newest_us[partition])
        return events

    def offered(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The events of the log by (partition, offset), duplicates among them."""
        events = {}
        for partition, all_lines in self.log.items():
            for offset, line in enumerate(all_lines):
                if line.startswith(b'{"event_id"'):
                    events[partition, offset] = json.loads(line)
        return events


def await_that(condition: Callable[[], bool], process: subprocess.Popen[str] | None = None) -> None:
    """Return once a condition holds; fail when it takes too long or the process ends before."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        ended = process is not None and process.poll() is not None
        if ended or time.monotonic() > deadline:
            errors = process.communicate()[1] if process is not None and ended else ""
            raise AssertionError(f"the flow {'ended' if ended else 'did not get there'}: {errors}")
        time.sleep(0.01)


def end(process: subprocess.Popen[str], how: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
    """Send a signal and wait for the end: exit code, output, errors."""
    process.send_signal(how)
    said, errors = process.communicate(timeout=WAIT_S)
    return process.returncode, said, errors


def check(world: World, compared_min: int = 200) -> None:
    """Both stores hold every event of the log once, and every other line as a dead letter once."""
    check_archive(world)
    check_dead_letters(world)
    check_streamed(world)
    assert check_online(world) > compared_min


def check_archive(world: World) -> None:
    """Every event of the log is in the archive once, at its offset."""
    table = world.offline.archive(orders).scan(
        ["event_id", "source_partition", "source_offset"], START_US - 4 * HOUR_US, START_US + 48 * HOUR_US
    )
    found = Counter(zip(table["source_partition"].to_pylist(), table["source_offset"].to_pylist(), strict=True))
    expected = world.valid()
    assert set(found) == set(expected)
    assert set(found.values()) <= {1}
    ids = dict(zip(found, table["event_id"].to_pylist(), strict=True))
    assert all(expected[where]["event_id"] == name for where, name in ids.items())


def check_dead_letters(world: World) -> None:
    """Every line that is no event is a dead letter once, with its bytes."""
    table = world.offline.dead_letters().scan()
    found = sorted(
        zip(
            table["source_partition"].to_pylist(),
            table["source_offset"].to_pylist(),
            table["raw"].to_pylist(),
            strict=True,
        )
    )
    events = world.offered()
    expected = [
        (name, n, line)
        for name, all_lines in world.log.items()
        for n, line in enumerate(all_lines)
        if (name, n) not in events
    ]
    assert found == sorted(expected)


def check_online(world: World) -> int:
    """Every feature of every entity equals the oracle's; how many were compared."""
    events = list(world.valid().values())
    at_us = max(_ts(event) for event in events) + 1
    compared = 0
    for view, key in ((user_orders, "user"), (merchant_orders, "merchant")):
        mine = [
            event for event in events if event[key] is not None and (view is merchant_orders or event["kind"] == "paid")
        ]
        entities = sorted({event[key] for event in mine} | {"nobody"})
        reader = OnlineReader(world.online, world.settings.namespace)
        keys = [entity_key(view.entity, {key: entity}) for entity in entities]
        read = reader.read([view], {view.key: keys}, at_us, at_us).views[view.key]
        plain = [(event[key], _ts(event), event["event_id"], _units(event["amount"])) for event in mine]
        for column, output in zip(read.columns, Layout.of(view).outputs, strict=True):
            for row, entity in enumerate(entities):
                value, status = _expected(output, plain, entity, at_us)
                got = int(column.values[row]) if column.valid[row] else None
                assert (got, Status(column.status[row]).name) == (value, status), (
                    view.key,
                    column.feature.name,
                    entity,
                )
                compared += 1
    return compared


def check_streamed(world: World) -> None:
    """The tiles in `streamed/`, merged, are the fold of the whole archive: nothing is in them twice, nothing lacks."""
    for view in VIEWS:
        layout = Layout.of(view)
        selector = Selector(view)
        everything = world.offline.archive(orders).scan(
            selector.columns, START_US - 4 * HOUR_US, START_US + 48 * HOUR_US
        )
        events = selector.select(everything)
        expected = fold(layout, events)
        keys, tiles = world.offline.streamed(view).read()
        names = {name: n for n, name in enumerate(events.keys.to_pylist())}
        code = np.array([names[keys[i]] for i in tiles.code.tolist()], np.int64)
        merged = merge(layout, code, tiles.records)
        assert merged.code.tolist() == expected.code.tolist()
        assert merged.records.tobytes() == expected.records.tobytes()


def _expected(output: Any, plain: list[tuple[str, int, str, int | None]], entity: str, at_us: int) -> tuple[Any, str]:
    aggregation, window = output.aggregation, output.window
    default = aggregation.default
    value, status = oracle(
        type(aggregation).__name__,
        plain,
        entity,
        at_us,
        window.length_us,
        window.hop_us,
        of=aggregation.of is not None,
        scale=2,
        ttl_us=None,
        default=default,
    )
    return value, status


def _ts(event: dict[str, Any]) -> int:
    return instant_us(event["ts"])


def _units(amount: Any) -> int | None:
    return Decimal(2).units(amount)
