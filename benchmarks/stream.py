"""The stream into both stores beside a per-event Bytewax flow that computes the same, and beside decoding alone.

Both flows are processes of their own and read the same NDJSON. The per-event flow (`benchmarks.per_event`) writes to
Redis only, has no fence, no archive and no recovery: it is what one writes first. Forebay's is the command that a user
runs: `python -m streaming --until-end`. What a process costs before its first event (imports, connections, opening
tables) is measured by a run over a few events in the same round, and subtracted. Those few are of users of their own:
every feature of theirs is compared between the two flows.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.deployment import Deployment, deployed
from benchmarks.per_event import Purchase, check_same
from benchmarks.purchases import PARTITION, Purchases
from benchmarks.report import MORE, OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from benchmarks.shop import HISTORY_START, LIVE
from forebay.instants import DAY_US, HOUR_US, SECOND_US, day_us

CHECKOUT = Path(__file__).parents[1]
PER_EVENT = "per-event Bytewax flow (Redis only)"
FEW_PREFIX = "per-event:few:"
DECODE = "msgspec decode alone"
START_US = day_us(HISTORY_START)
FEW, FEW_USERS = 1_000, 50
EVENTS_PER_S = 5_000
"""Of event time, in what is measured."""


@dataclass(frozen=True)
class Size:
    """Events: `history` to fill the windows, then what is timed a round."""

    users: int = 20_000
    history: int = 300_000
    timed: int = 300_000
    timed_per_event: int = 40_000
    rounds: int = 3


TINY = Size(users=50, history=0, timed=2_000, timed_per_event=2_000, rounds=1)


@dataclass(frozen=True)
class Cost:
    """What a process, and Redis for it, used."""

    wall_s: float
    cpu_s: float
    redis_s: float

    def per_event(self, startup: Cost, events: int) -> Measured:
        """Beyond what starting costs."""
        wall, cpu, redis = self.wall_s - startup.wall_s, self.cpu_s - startup.cpu_s, self.redis_s - startup.redis_s
        return {"cpu_us": cpu / events * 1e6, "redis_us": redis / events * 1e6, "per_s": events / max(wall, 1e-9)}


def run(size: Size) -> Report:
    """Measure both flows and decoding."""
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        if size.history:
            flows.fill(size.history)
        contenders: dict[str, Contender] = {
            OURS: lambda: flows.ours(size.timed),
            PER_EVENT: lambda: flows.per_event(size.timed_per_event),
            DECODE: lambda: flows.decode(size.timed_per_event),
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
    comparisons = [
        Comparison.of("stream, worker CPU", samples, PER_EVENT, "cpu_us", "µs/event"),
        Comparison.of("stream, Redis CPU", samples, PER_EVENT, "redis_us", "µs/event"),
        Comparison.of("stream into both stores, one worker", samples, PER_EVENT, "per_s", "events/s", better=MORE),
        Comparison.of("stream, worker CPU", samples, DECODE, "cpu_us", "µs/event"),
    ]
    setting = (
        f"2 views × 3 windows × 6 aggregates, {size.users:,} users, "
        f"{size.history:,} events before, {size.timed:,} timed"
    )
    return Report("stream", setting, size.rounds, comparisons)


@dataclass
class Flows:
    """Both flows over one deployment; each call streams events that come after those before it."""

    deployment: Deployment
    users: int
    _sent: int = 0
    _now_us: int = START_US
    _runs: int = 0
    _few: Purchases | None = None

    def fill(self, count: int) -> None:
        """A week of history, so that every window is full."""
        self._stream(self._drawn(count, 7 * DAY_US))

    def ours(self, count: int) -> Measured:
        """Forebay's flow."""
        few, check = self._next_few()
        startup = self._stream(few)
        check(few)
        return self._stream(self._at_speed(count)).per_event(startup, count - FEW)

    def per_event(self, count: int) -> Measured:
        """The per-event flow."""
        few, check = self._next_few()
        startup = self._by_event(few, FEW_PREFIX)
        check(few)
        return self._by_event(self._at_speed(count), f"per-event:{self._runs}:").per_event(startup, count - FEW)

    def decode(self, count: int) -> Measured:
        """JSON to Python objects, in this process."""
        log = self._log(self._at_speed(count))
        lines = log.read_bytes().splitlines()
        decode = msgspec.json.Decoder(Purchase).decode
        began_s = time.process_time()
        for line in lines:
            decode(line)
        return {"cpu_us": (time.process_time() - began_s) / count * 1e6}

    def _next_few(self) -> tuple[Purchases, Callable[[Purchases], None]]:
        """The few events of this round, and what to do after them: whichever flow is second compares."""
        if self._few is None:
            self._runs += 1
            self._few = self._drawn(FEW, HOUR_US, users=FEW_USERS, first_user=self._runs * 1_000_000)
            return self._few, lambda few: None
        few, self._few = self._few, None
        return few, self._compare

    def _compare(self, few: Purchases) -> None:
        at_us = int(few.ts.max()) + 1
        with self.deployment.store() as store:
            check_same(store, self.deployment.redis, FEW_PREFIX, np.unique(few.users).tolist(), at_us)

    def _at_speed(self, count: int) -> Purchases:
        return self._drawn(count, count * SECOND_US // EVENTS_PER_S)

    def _drawn(self, count: int, span_us: int, *, users: int = 0, first_user: int = 0) -> Purchases:
        first, start_us = self._sent, self._now_us
        self._sent, self._now_us = first + count, start_us + span_us
        return Purchases.drawn(
            count, users or self.users, start_us, self._now_us, first_id=first, first_user=first_user
        )

    def _stream(self, events: Purchases) -> Cost:
        home = self.deployment.settings.home
        events.append_ndjson(home / "stream" / PARTITION)
        said, cost = self._process(["streaming", "--until-end", "--json"])
        assert said["events"] == len(events), f"{len(events)} events were appended, {said['events']} were streamed"
        return cost

    def _by_event(self, events: Purchases, prefix: str) -> Cost:
        socket = str(self.deployment.redis.connection_pool.connection_kwargs["path"])
        return self._process(["benchmarks.per_event", str(self._log(events)), socket, prefix])[1]

    def _log(self, events: Purchases) -> Path:
        path = self.deployment.settings.home / "one.ndjson"
        path.unlink(missing_ok=True)
        events.append_ndjson(path)
        return path

    def _process(self, arguments: Sequence[str]) -> tuple[Mapping[str, object], Cost]:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        redis_s, began_s = self.deployment.redis_cpu_s(), time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=CHECKOUT,
            env=dict(self.deployment.environment),
            capture_output=True,
            text=True,
        )
        wall_s, redis_s = time.monotonic() - began_s, self.deployment.redis_cpu_s() - redis_s
        if done.returncode:
            raise RuntimeError(f"python -m {' '.join(arguments)} failed: {done.stderr[-2000:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return json.loads(done.stdout.splitlines()[-1]), Cost(wall_s, cpu_s, redis_s)
