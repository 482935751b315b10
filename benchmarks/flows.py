"""Forebay's flow and the per-event flow as processes over one deployment, and what each of them used.

Lives here: drawing their events, appending them to the log, running a flow to its end, and counting CPU time, peak
memory and Redis' CPU time of it. What a process costs before its first event (imports, connections, opening tables) is
measured by a run over a few events in the same round, and subtracted. Those few are of users of their own: every
feature of theirs is compared between the two flows. Where flows of Forebay's are compared by their speed, they are
looked at in the middle of a run instead (`steady`): the start of workers takes longer than the subtraction bears.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.deployment import CHECKOUT, Deployment
from benchmarks.live import SETTLE_S, paced
from benchmarks.logs import Files, Logs
from benchmarks.per_event import Purchase, check_same
from benchmarks.purchases import ZIPF, Purchases
from benchmarks.rounds import Measured
from benchmarks.shop import HISTORY_START, user_spend
from benchmarks.steady import Ready, steady
from forebay.core.layout import Layout
from forebay.instants import DAY_US, HOUR_US, SECOND_US, day_us
from forebay.online.resp import append_commands, part
from forebay.online.wire import Wire, pack
from streaming.lane_writer import COMMIT_EVENTS_MAX

FEW_PREFIX = "per-event:few:"
START_US = day_us(HISTORY_START)
FEW, FEW_USERS = 1_000, 50
EVENTS_PER_S = 5_000
"""Of event time, in what is measured."""
RECORD = bytes(Layout.of(user_spend).event_bytes)
"""As long as the partial of an event."""


@dataclass(frozen=True)
class Cost:
    """What a process with its children, and Redis for it, used."""

    wall_s: float
    cpu_s: float
    redis_s: float
    memory_mb: float

    def per_event(self, startup: Cost, events: int) -> Measured:
        """Beyond what starting costs; and the most memory that one process had."""
        wall, cpu, redis = self.wall_s - startup.wall_s, self.cpu_s - startup.cpu_s, self.redis_s - startup.redis_s
        return {
            "cpu_us": cpu / events * 1e6,
            "redis_us": redis / events * 1e6,
            "per_s": events / max(wall, 1e-9),
            "memory_mb": self.memory_mb,
        }


@dataclass
class Flows:
    """Both flows over one deployment; each call streams events that come after those before it."""

    deployment: Deployment
    users: int
    logs: Logs = field(init=False)
    """Where their events are appended: by default, files in the deployment's home."""
    _sent: int = 0
    _now_us: int = START_US
    _runs: int = 0
    _few: Purchases | None = None

    def __post_init__(self) -> None:
        self.logs = Files(self.deployment.settings.home)

    def fill(self, count: int, *, zipf: float = ZIPF) -> None:
        """A week of history, so that every window is full."""
        self._stream(self._drawn(count, 7 * DAY_US, zipf=zipf))

    def fill_each(self, *, step: int = 500_000) -> None:
        """One event of each user, in a week, some at a time so that this process holds no more."""
        for first in range(0, self.users, step):
            count = min(step, self.users - first)
            drawn = self._drawn(count, 7 * DAY_US * count // self.users)
            self._stream(replace(drawn, users=np.arange(first, first + count)))

    def ours(self, count: int) -> Measured:
        """Forebay's flow."""
        few, check = self._next_few()
        startup = self._stream(few)
        check(few)
        return self._stream(self._at_speed(count)).per_event(startup, count - FEW)

    def ready(self, count: int, *, workers: int = 1, hot: float = 0.0) -> Ready:
        """Forebay's flow, over a log that is ready; a share of the events may be of one user."""
        events = self._at_speed(count)
        self.logs.append(events.heated(hot) if hot else events)
        return Ready(self.deployment, count, workers)

    def steady(self, count: int, *, workers: int = 1, hot: float = 0.0) -> Measured:
        """Forebay's flow in the middle of a run."""
        return steady([self.ready(count, workers=workers, hot=hot)])

    def per_event(self, count: int) -> Measured:
        """The per-event flow."""
        few, check = self._next_few()
        startup = self._by_event(few, FEW_PREFIX)
        check(few)
        return self._by_event(self._at_speed(count), f"per-event:{self._runs}:").per_event(startup, count - FEW)

    def live(self, per_s: int, seconds: float, *, linger_s: float = 0.0, partitions: int = 1) -> Measured:
        """Forebay's flow while events come at a steady rate: CPU time per event once it has settled."""
        events = self._drawn(int(per_s * (seconds + 2 * SETTLE_S)), int((seconds + 2 * SETTLE_S) * SECOND_US))
        return paced(self.deployment, Path(self.logs.apart(events)), per_s, seconds, linger_s, partitions)

    def decode(self, count: int) -> Measured:
        """JSON to Python objects, in this process."""
        lines = [line.encode() for line in self._at_speed(count).lines()]
        decode = msgspec.json.Decoder(Purchase).decode
        began_s = time.process_time()
        for line in lines:
            decode(line)
        return {"cpu_us": (time.process_time() - began_s) / count * 1e6}

    def appends(self, count: int) -> Measured:
        """What Redis does for as many events at the least: a record appended to each key that they touch, in
        transactions of as many events, the bytes ready.
        """
        events = self._at_speed(count)
        commands = [
            [
                part(
                    append_commands(
                        pa.array(["bench:append:"] * len(some)), some, ":p", pa.array([RECORD] * len(some))
                    ),
                    slice(0, len(some)),
                )
                for keys in (events.users, events.merchants)
                for some in [pa.array(np.unique(keys[first : first + COMMIT_EVENTS_MAX])).cast(pa.string())]
            ]
            for first in range(0, count, COMMIT_EVENTS_MAX)
        ]
        wire, redis_s, began_s = Wire(self.deployment.redis), self.deployment.redis_cpu_s(), time.monotonic()
        wire.open()
        for chunks in commands:
            parts = [pack(("MULTI",)), *(chunk.data for chunk in chunks), pack(("EXEC",))]
            wire.ask(parts, sum(chunk.commands for chunk in chunks) + 2)
        wall_s, redis_s = time.monotonic() - began_s, self.deployment.redis_cpu_s() - redis_s
        wire.close()
        return {"redis_us": redis_s / count * 1e6, "per_s": count / wall_s}

    def _next_few(self) -> tuple[Purchases, Callable[[Purchases], None]]:
        """The few events of this round, and what to do after them: whichever flow is second compares."""
        if self._few is None:
            self._few = self._few_more()
            return self._few, lambda few: None
        few, self._few = self._few, None
        return few, self._compare

    def _few_more(self) -> Purchases:
        self._runs += 1
        return self._drawn(FEW, HOUR_US, users=FEW_USERS, first_user=self._runs * 10_000_000)

    def _compare(self, few: Purchases) -> None:
        at_us = int(few.ts.max()) + 1
        with self.deployment.store() as store:
            check_same(store, self.deployment.redis, FEW_PREFIX, np.unique(few.users).tolist(), at_us)

    def _at_speed(self, count: int) -> Purchases:
        return self._drawn(count, count * SECOND_US // EVENTS_PER_S)

    def _drawn(self, count: int, span_us: int, *, users: int = 0, first_user: int = 0, zipf: float = ZIPF) -> Purchases:
        first, start_us = self._sent, self._now_us
        self._sent, self._now_us = first + count, start_us + span_us
        return Purchases.drawn(
            count, users or self.users, start_us, self._now_us, first_id=first, first_user=first_user, zipf=zipf
        )

    def _stream(self, events: Purchases) -> Cost:
        self.logs.append(events)
        said, cost = self._process(["streaming", "--until-end", "--json"])
        assert said["events"] == len(events), f"{len(events)} events were appended, {said['events']} were streamed"
        return cost

    def _by_event(self, events: Purchases, prefix: str) -> Cost:
        socket = str(self.deployment.redis.connection_pool.connection_kwargs["path"])
        return self._process(["benchmarks.per_event", self.logs.apart(events), socket, prefix])[1]

    def _process(self, arguments: Sequence[str]) -> tuple[Mapping[str, object], Cost]:
        redis_s, began_s = self.deployment.redis_cpu_s(), time.monotonic()
        with (self.deployment.settings.home / "errors").open("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=CHECKOUT,
                env=dict(self.deployment.environment),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert process.stdout is not None
            said = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            errors.seek(0)
            if process.returncode:
                raise RuntimeError(f"python -m {' '.join(arguments)} failed: {errors.read()[-2000:]}")
        wall_s, redis_s = time.monotonic() - began_s, self.deployment.redis_cpu_s() - redis_s
        cost = Cost(wall_s, used.ru_utime + used.ru_stime, redis_s, used.ru_maxrss / 1024)
        return json.loads(said.splitlines()[-1]), cost
