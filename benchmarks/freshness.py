"""From an event's line in the log until it can be read, while other events come at a steady rate; and after a restart.

    this process    append a probe ──▶ read until it counts ──▶ a pause ──▶ the next
    feeder          1,000 or 20,000 other events a second into the same log
    flow            python -m streaming, reading it                          beside: a tail that counts into one key

A probe is read through the client (36 features' worth of tiles a read), the tail's by GET; the time of the last read is
in both. A restart is measured from starting the process until an event that waits in the log can be read, beside a
process that imports the same modules and ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.deployment import CHECKOUT, Deployment, deployed
from benchmarks.logs import appending
from benchmarks.purchases import PARTITION, Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from benchmarks.shop import LIVE
from forebay.instants import SECOND_US, instant_text
from forebay.online.lane import wall_clock_us

TAIL, IMPORTS = "a tail that counts into Redis", "Python's imports alone"
RATES = (1_000, 20_000)
PAUSE_S = 0.013
"""No multiple of how often a reader looks."""
LOOK_S = 0.0005
WAIT_S = 600.0
MODULES = "streaming.run, streaming.begun, bytewax._bytewax, deltalake, pyarrow.parquet, pyarrow.dataset"


@dataclass(frozen=True)
class Size:
    """Seconds of probes at each rate, and rounds."""

    users: int = 20_000
    seconds: float = 5.0
    rounds: int = 2


TINY = Size(users=20, seconds=0.3, rounds=1)


def run(size: Size) -> Report:
    """Measure at each rate, and restarts."""
    with deployed(LIVE) as deployment, probing_file(deployment, size) as probes:
        restarts: dict[str, Contender] = {OURS: probes.restart, IMPORTS: probes.imports}
        comparisons = delays(probes, size.rounds)
        samples = interleaved(restarts, size.rounds, warm_up=False)
        comparisons.append(Comparison.of("restart → first fresh value", samples, IMPORTS, "wall_s", "s"))
    setting = f"{size.users:,} users, {size.seconds:g} s of probes at each rate"
    return Report("freshness", setting, size.rounds, comparisons)


def delays(probes: Probes, rounds: int) -> list[Comparison]:
    """How soon a probe is readable, at each rate."""
    comparisons = []
    for rate in RATES:
        contenders: dict[str, Contender] = {
            OURS: lambda rate=rate: probes.ours(rate),
            TAIL: lambda rate=rate: probes.tail(rate),
        }
        samples = interleaved(contenders, rounds, warm_up=False)
        comparisons += [
            Comparison.of(f"{rate:,} events/s: appended → readable, {name}", samples, TAIL, name, "ms")
            for name in ("p50", "p99")
        ]
    return comparisons


@contextlib.contextmanager
def probing(deployment: Deployment, size: Size, log: str) -> Iterator[Probes]:
    """Probes that are appended to the log of a deployment's flow."""
    with appending(log) as append:
        yield Probes(deployment, size, log, append)


@contextlib.contextmanager
def probing_file(deployment: Deployment, size: Size) -> Iterator[Probes]:
    """Probes that are appended to the file that is the log of a deployment of `LIVE`."""
    log = deployment.settings.home / "stream" / PARTITION
    log.parent.mkdir(parents=True, exist_ok=True)
    with probing(deployment, size, str(log)) as probes:
        yield probes


@dataclass
class Probes:
    """Probes of one deployment; each is one more purchase of the same user, whom no other event is of."""

    deployment: Deployment
    size: Size
    log: str
    append: Callable[[Sequence[bytes]], None]
    _sent: int = 0

    def __post_init__(self) -> None:
        self._store = self.deployment.store()

    def ours(self, rate: int) -> Measured:
        """Forebay's flow, read through the client."""
        with self._running(["streaming"]):
            self._await(self._append(), self._count)
            return self._measured(rate, self._count)

    def tail(self, rate: int) -> Measured:
        """The least that does it."""
        key, socket = "tail", str(self.deployment.redis.connection_pool.connection_kwargs["path"])
        self.deployment.redis.delete(key)
        with self._running(["benchmarks.tail", self.log, socket, key]):

            def count() -> int:
                return int(self.deployment.redis.get(key) or 0)

            self._await(self._append(), count)
            return self._measured(rate, count)

    def restart(self) -> Measured:
        """A flow that finds an event waiting."""
        sent, began_s = self._append(), time.monotonic()
        with self._running(["streaming"]):
            self._await(sent, self._count)
            return {"wall_s": time.monotonic() - began_s}

    def imports(self) -> Measured:
        """What of it is Python's."""
        began_s = time.monotonic()
        subprocess.run([sys.executable, "-c", f"import {MODULES}"], cwd=CHECKOUT, check=True)
        return {"wall_s": time.monotonic() - began_s}

    def _measured(self, rate: int, count: Callable[[], int]) -> Measured:
        delays_ms = []
        with self._fed(rate):
            until_s = time.monotonic() + self.size.seconds
            while time.monotonic() < until_s:
                began_s = time.perf_counter()
                self._await(self._append(), count)
                delays_ms.append((time.perf_counter() - began_s) * 1e3)
                time.sleep(PAUSE_S)
        return {"p50": float(np.percentile(delays_ms, 50)), "p99": float(np.percentile(delays_ms, 99))}

    @contextlib.contextmanager
    def _fed(self, rate: int) -> Iterator[None]:
        seconds, lines = self.size.seconds + 1, self.deployment.settings.home / "fed.ndjson"
        lines.unlink(missing_ok=True)
        now_us = wall_clock_us()
        Purchases.drawn(int(rate * seconds), self.size.users, now_us, now_us + int(seconds * SECOND_US)).append_ndjson(
            lines
        )
        with self._running(["benchmarks.feeder", str(lines), self.log, str(rate)]):
            yield

    @contextlib.contextmanager
    def _running(self, arguments: Sequence[str]) -> Iterator[None]:
        environment = dict(self.deployment.environment)
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL
        )
        try:
            yield
        finally:
            process.kill()  # it holds nothing; and a parent that ignores SIGTERM has children that do
            process.wait()

    def _append(self) -> int:
        """Append a probe; how many there are now."""
        self._sent += 1
        event = (
            f'{{"event_id": "p{self._sent}", "ts": "{instant_text(wall_clock_us())}", "user_id": "probe", '
            f'"merchant_id": "probe", "amount": 1.00, "items": 1}}\n'
        )
        self.append([event.encode()])
        return self._sent

    def _count(self) -> int:
        found = self._store.get_online_features("spend@1", entity_rows=[{"user_id": "probe"}]).to_dict()
        return int(found["user_count_24h"][0])

    def _await(self, sent: int, count: Callable[[], int]) -> None:
        until_s = time.monotonic() + WAIT_S
        while count() < sent:
            if time.monotonic() > until_s:
                raise RuntimeError(f"A probe was not readable within {WAIT_S:g} s")
            time.sleep(LOOK_S)
