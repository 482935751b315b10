"""The stream into both stores beside a per-event Bytewax flow that computes the same, and beside decoding alone.

Both flows are processes of their own and read the same NDJSON. The per-event flow (`benchmarks.per_event`) writes to
Redis only, has no fence, no archive and no recovery: it is what one writes first. Forebay's is the command that a user
runs: `python -m streaming --until-end`. What a process costs before its first event (imports, connections, opening
tables) is measured by a run over a few events in the same round, and subtracted. That both compute the same is checked
first.
"""

from __future__ import annotations

import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from benchmarks.deployment import Deployment, deployed
from benchmarks.per_event import Purchase, check_same
from benchmarks.purchases import PARTITION, Purchases
from benchmarks.report import MORE, OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from benchmarks.shop import HISTORY_START, LIVE
from forebay.instants import DAY_US, HOUR_US, SECOND_US, day_us

CHECKOUT = Path(__file__).parents[1]
PER_EVENT = "per-event Bytewax flow (Redis only)"
DECODE = "msgspec decode alone"
START_US = day_us(HISTORY_START)
FEW = 200
EVENTS_PER_S = 5_000
"""Of event time, in what is measured."""


@dataclass(frozen=True)
class Size:
    """Events: `checked` in both flows, `history` to fill the windows, then what is timed a round."""

    users: int = 20_000
    checked: int = 3_000
    history: int = 300_000
    timed: int = 300_000
    timed_per_event: int = 40_000
    rounds: int = 5


TINY = Size(users=50, checked=300, history=0, timed=500, timed_per_event=500, rounds=1)


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
        flows.check(size.checked)
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
    _runs: itertools.count[int] = field(default_factory=itertools.count)

    def check(self, count: int) -> None:
        """Stream the same events through both, and compare every feature of every user."""
        events = self._drawn(count, HOUR_US)
        self._stream(events)
        prefix, _ = self._by_event(events)
        with self.deployment.store() as store:
            check_same(store, self.deployment.redis, prefix, sorted(set(events.users.tolist())), self._now_us)

    def fill(self, count: int) -> None:
        """A week of history, so that every window is full."""
        self._stream(self._drawn(count, 7 * DAY_US))

    def ours(self, count: int) -> Measured:
        """Forebay's flow."""
        startup = self._stream(self._drawn(FEW, SECOND_US))
        return self._stream(self._at_speed(count)).per_event(startup, count - FEW)

    def per_event(self, count: int) -> Measured:
        """The per-event flow."""
        startup = self._by_event(self._drawn(FEW, SECOND_US))[1]
        return self._by_event(self._at_speed(count))[1].per_event(startup, count - FEW)

    def decode(self, count: int) -> Measured:
        """JSON to Python objects, in this process."""
        log = self._log(self._at_speed(count))
        lines = log.read_bytes().splitlines()
        decode = msgspec.json.Decoder(Purchase).decode
        began_s = time.process_time()
        for line in lines:
            decode(line)
        return {"cpu_us": (time.process_time() - began_s) / count * 1e6}

    def _at_speed(self, count: int) -> Purchases:
        return self._drawn(count, count * SECOND_US // EVENTS_PER_S)

    def _drawn(self, count: int, span_us: int) -> Purchases:
        first, start_us = self._sent, self._now_us
        self._sent, self._now_us = first + count, start_us + span_us
        return Purchases.drawn(count, self.users, start_us, self._now_us, first_id=first)

    def _stream(self, events: Purchases) -> Cost:
        home = self.deployment.settings.home
        events.append_ndjson(home / "stream" / PARTITION)
        said, cost = self._process(["streaming", "--until-end", "--json"])
        assert said["events"] == len(events), f"{len(events)} events were appended, {said['events']} were streamed"
        return cost

    def _by_event(self, events: Purchases) -> tuple[str, Cost]:
        prefix = f"per-event:{next(self._runs)}:"
        socket = str(self.deployment.redis.connection_pool.connection_kwargs["path"])
        _, cost = self._process(["benchmarks.per_event", str(self._log(events)), socket, prefix])
        return prefix, cost

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
