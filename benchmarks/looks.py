"""What a flow has done and used so far, while it runs: events applied online, CPU time of its processes and of Redis.

Lives here: looking, and the difference of two looks. Redis says how far the stream is (as a client reads it), the
kernel says what processes have used. So nothing of a start or an end has to be guessed and subtracted: two looks while
a flow is at work tell what an event costs, and how many are applied a second.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.deployment import Deployment
from benchmarks.rounds import Measured
from benchmarks.shop import user_spend
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from streaming.routing import slots_of_worker

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Look:
    """An instant, and what was done and used by then: events applied, in how many commits, CPU seconds of the flow and
    of Redis.
    """

    at_s: float
    events: float
    commits: float
    cpu_s: float
    redis_s: float

    @classmethod
    def at(cls, deployment: Deployment, process: int, workers: int = 1) -> Look:
        """Look at a flow whose first process it is."""
        progress = _progress(deployment, workers)
        events, commits = _events(progress), float(sum(one.commit for one in progress))
        return cls(time.monotonic(), events, commits, cpu_s(process), deployment.redis_cpu_s())

    def __add__(self, other: Look) -> Look:
        """Two flows that were looked at together."""
        return Look(
            max(self.at_s, other.at_s),
            self.events + other.events,
            self.commits + other.commits,
            self.cpu_s + other.cpu_s,
            self.redis_s + other.redis_s,
        )

    def since(self, before: Look) -> Measured:
        """What an event has cost since another look, and how many there were a second."""
        events, seconds = self.events - before.events, self.at_s - before.at_s
        return {
            "cpu_us": (self.cpu_s - before.cpu_s) / events * 1e6,
            "redis_us": (self.redis_s - before.redis_s) / events * 1e6,
            "per_s": events / seconds,
            "commits_per_s": (self.commits - before.commits) / seconds,
        }


def applied(deployment: Deployment, workers: int = 1) -> float:
    """Events that are applied online: the mean of what each of so many workers has, each of its share of the slots."""
    return _events(_progress(deployment, workers))


def cpu_s(process: int) -> float:
    """CPU seconds of a process and of its children, also of those that have ended."""
    return sum(_cpu_s(one) for one in _tree(process))


def _progress(deployment: Deployment, workers: int) -> list[Progress]:
    """How far each worker is: all of its slots are equally far."""
    keys = Keys(deployment.settings.namespace)
    first = [slots_of_worker(worker, workers)[0] for worker in range(workers)]
    blobs = deployment.redis.mget(keys.progress(user_spend.key, first))
    return [Progress() if blob is None else Progress.decode(blob) for blob in blobs]


def _events(progress: list[Progress]) -> float:
    return sum(one.next_offset for some in progress for one in some.partitions.values()) / len(progress)


def _cpu_s(process: int) -> float:
    """Its own and that of children that it has waited for."""
    with contextlib.suppress(OSError):
        used = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return sum(int(ticks) for ticks in used[11:15]) / _TICKS_PER_S
    return 0.0


def _tree(process: int) -> Iterator[int]:
    yield process
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                yield from _tree(int(child))
