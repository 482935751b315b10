"""The hits: what is done to the flow and to what it stands on, while it works.

    kill         kill -9 of a flow, or of one of its processes, at a random instant; then another number of workers
    terminate    SIGTERM: it drains and ends well
    pause        SIGSTOP; another flow replaces it; SIGCONT: it may write nothing more
    second       another flow by mistake: the later one takes over, the earlier one ends
    valkey       kill -9 of the online store (a node of the cluster), back after a while with its append-only file
    move         a slot of the cluster goes to another node, whole or key by key
    s3           the offline store refuses, for seconds up to a minute
    lose         the online store (a node of the cluster) comes back as it was some seconds ago, or empty
    broker       kill -9 of the broker
    streams      kill -9 of the Valkey that holds the Redis Streams

Lives here: one function a hit. Each leaves a flow that runs, or none; it is for the run to start the next. A hit counts
as one of a working process when the flow had committed something since its start and the stores lacked what was
produced by then.
"""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from forebay.core.identity import SLOTS
from forebay.online.cluster import hash_slot
from tests.torture.batch import Batch
from tests.torture.flows import Flow, await_that
from tests.torture.ground import Ground
from tests.torture.watch import Watch

WORKERS = (1, 2, 4, 2)
"""Of one flow after the other, over and over."""
DURING = 0.35
"""How often a flow is killed while a store is away, so that the next one begins without it."""
TAKE_OVER_S = 60.0
S3_AWAY_S, S3_AWAY_LONG_S = 6.0, 60.0


@dataclass
class Hits:
    """The flow, what it stands on, and what was hit."""

    ground: Ground
    produced: Callable[[], Mapping[str, int]]
    """By partition of both logs, the offset behind the newest line that was acknowledged."""
    watch: Watch
    batch: Batch
    chance: random.Random
    folder: Path
    say: Callable[[str], None]
    counts: Counter[str] = field(default_factory=Counter)
    flow: Flow | None = None
    _workers: Iterator[int] = field(init=False)
    _numbers: Iterator[int] = field(default_factory=count)
    _began: dict[str, int] = field(default_factory=dict)
    _pause: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._workers = (WORKERS[n % len(WORKERS)] for n in count())

    def start(self) -> Flow:
        """Start the next flow, beside the one that may be there."""
        self._began = self.ground.applied()
        return self._start()

    def _start(self) -> Flow:
        flow = Flow(self.folder / str(next(self._numbers)), self.ground.environment, next(self._workers))
        self.say(f"flow {flow.pid} of {flow.workers} workers")
        self.counts[f"started with {flow.workers} workers"] += 1
        return flow

    def ensure(self) -> Flow:
        """The flow that runs; another one where the last has ended."""
        if self.flow is not None and not self.flow.running:
            ended = self.flow.await_end()
            self.say(f"it had ended: {ended.code} {ended.errors.strip()[-200:]}")
            self.counts["ended by themselves, in one line"] += 1
            self.flow = None
        if self.flow is None:
            self.flow = self.start()
        return self.flow

    def working(self) -> Flow:
        """A flow that has committed something since it was started."""
        flow = self.ensure()

        def works() -> bool:
            nonlocal flow
            self.watch.check()
            if not flow.running:
                flow = self.ensure()
            return self._has_worked()

        await_that(works, "a flow works")
        return flow

    def kill(self) -> None:
        """kill -9, somewhere in its work; sometimes while it begins."""
        flow = self.ensure() if self.chance.random() < 0.15 else self.working()
        self.wait(self.chance.uniform(0, 1.5))
        worked = self._has_worked() and flow.running
        self._kill(flow, worked)

    def terminate(self) -> None:
        """SIGTERM: what was read becomes durable."""
        flow = self.working()
        flow.terminate()
        ended = flow.await_end()
        self.flow = None
        if ended.code == 0:
            self.counts["SIGTERM, drained"] += 1
        self.say(f"SIGTERM: {ended.code}")

    def pause(self) -> None:
        """A flow sleeps while it is replaced."""
        earlier = self.working()
        self.wait(self.chance.uniform(0, 1))
        earlier.signal(signal.SIGSTOP)
        later = self._replaced()
        earlier.signal(signal.SIGCONT)
        self._is_fenced(earlier, "slept while it was replaced, fenced")
        self.flow = later

    def second(self) -> None:
        """A second flow is started by mistake."""
        earlier = self.working()
        later = self._replaced()
        self._is_fenced(earlier, "a second flow, the earlier fenced")
        self.flow = later

    def valkey(self) -> None:
        """The online store dies and comes back."""
        server = self.chance.choice(self.ground.servers)
        self._away("Valkey killed", server.kill, lambda: self.ground.restart(server), self.chance.uniform(0, 3))

    def move(self) -> None:
        """A slot goes to another node of the cluster: nothing more is to be seen of it than that it takes a while."""
        cluster = self.ground.cluster
        assert cluster is not None
        self.working()
        self.wait(self.chance.uniform(0, 1))
        place = hash_slot(f"{{{self.chance.randrange(SLOTS):02d}}}")
        to = self.chance.choice([node for node in cluster.primaries if node is not cluster.owner(place)])
        how = self.chance.choice(("whole", "key by key"))
        cluster.move_whole(place, to) if how == "whole" else cluster.move([place], to)
        self.counts[f"slot moved {how}"] += 1
        self.say(f"slot moved {how}")

    def lose(self) -> None:
        """The online store comes back without its last seconds, or without anything: the flow finds out and ends."""
        flow = self.working()
        server = self.chance.choice(self.ground.servers)
        copy, before = server.copy() if self.chance.random() < 0.6 else None, self.ground.applied()
        self.wait(self.chance.uniform(2, 4))
        await_that(lambda: any(now > before[name] for name, now in self.ground.applied().items()), "something is lost")
        server.kill()
        self.watch.forget()
        server.replace(copy)
        self.ground.restart(server)
        ended = flow.await_end()
        assert "lost" in ended.errors, f"a flow did not find the loss: {ended}"
        self.flow = None
        self.counts["Valkey lost everything" if copy is None else "Valkey lost its last seconds"] += 1
        self.say(f"a loss was found: {ended.errors.strip()[-120:]}")

    def broker(self) -> None:
        """The broker dies and comes back."""
        self._away("broker killed", self.ground.broker.kill, self.ground.broker.restart, self.chance.uniform(0, 3))

    def streams(self) -> None:
        """The Valkey that holds the Redis Streams dies and comes back."""
        streams = self.ground.streams
        self._away("Redis Streams killed", streams.kill, streams.restart, self.chance.uniform(0, 3))

    def s3(self) -> None:
        """The offline store refuses for some seconds."""
        self._away("S3 refused", self.ground.s3.kill, self.ground.s3.restart, self.chance.uniform(0.5, S3_AWAY_S))

    def s3_long(self) -> None:
        """The offline store refuses for up to a minute."""
        seconds = self.chance.uniform(S3_AWAY_S, S3_AWAY_LONG_S)
        self._away("S3 refused for long", self.ground.s3.kill, self.ground.s3.restart, seconds)

    def stacks(self) -> str:
        """End the flow that runs; what it said, and where its threads were."""
        return "" if self.flow is None else self.flow.stacks()

    def wait(self, seconds: float) -> None:
        """Let things run."""
        self._pause.wait(seconds)
        self.watch.check()
        self.batch.check()

    def _away(self, what: str, kill: Callable[[], None], restart: Callable[[], None], seconds: float) -> None:
        flow = self.working()
        self.wait(self.chance.uniform(0, 1))
        self.say(f"{what} for {seconds:.1f} s")
        kill()
        self.counts[what] += 1
        if self.chance.random() < DURING:
            self.wait(seconds * self.chance.random())
            flow.signal(signal.SIGKILL)
            flow.await_end()
            self.counts["flow killed while a store was away"] += 1
            self.flow = self._start()
        self.wait(seconds)
        restart()
        self._began = self.ground.applied()

    def _kill(self, flow: Flow, worked: bool) -> None:
        produced = self.produced()
        what = flow.kill(self.chance)
        flow.await_end()
        self.flow = None
        hit = worked and self._lacks(produced)
        self.counts[f"killed, {what}"] += 1
        self.counts["killed while working" if hit else "killed while starting"] += 1
        self.say(f"killed {what}{'' if hit else ', before it worked'}")

    def _replaced(self) -> Flow:
        """Another flow, once it has taken over."""
        tokens = self.ground.tokens()
        later = self.start()

        def took_over() -> bool:
            assert later.running, f"the later flow ended: {later.heard()}"
            return not tokens & self.ground.tokens()

        await_that(took_over, "the later flow takes over")
        self._began = self.ground.applied()
        self.wait(self.chance.uniform(0, 1.5))
        return later

    def _is_fenced(self, earlier: Flow, what: str) -> None:
        ended = earlier.await_end(TAKE_OVER_S)
        assert ended.was_fenced, f"the earlier flow ended with {ended.code}: {ended.errors or ended.said}"
        self.counts[what] += 1
        self.say(what)

    def _has_worked(self) -> bool:
        now = self.ground.applied()
        return any(now[name] > before for name, before in self._began.items())

    def _lacks(self, produced: Mapping[str, int]) -> bool:
        stores = (self.ground.applied(), self.ground.archived())
        return any(store[name] < end for store in stores for name, end in produced.items())
