"""The flow while events come: what an event costs at a steady rate, which is what it costs on most days.

Lives here: feeding a log at a rate and reading the clocks of the flow's processes (and Redis') twice while it follows.
A flow that catches up finds thousands of events at once and writes an entity once for many of them; one that keeps up
finds some hundred, so nearly every event is of another entity, however few there are. Events count when they are
applied online: on a machine that does not keep up, the figure is still one per event.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.deployment import CHECKOUT, Deployment
from benchmarks.purchases import PARTITION
from benchmarks.rounds import Measured
from benchmarks.shop import user_spend
from forebay.online.keys import Keys
from forebay.online.progress import Progress

SETTLE_S = 2.0
"""Before the first look, for caches and the first commits."""
WAIT_S = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def paced(deployment: Deployment, lines: Path, per_s: int, seconds: float, linger_s: float = 0.0) -> Measured:
    """CPU time per event of a flow that is fed these lines at a rate, between two looks some seconds apart.

    The first line is there before the flow starts: the others begin to come once it is applied.
    """
    log = deployment.settings.home / "stream" / PARTITION
    log.parent.mkdir(parents=True, exist_ok=True)
    before = _applied(deployment)
    with lines.open("rb") as first, log.open("ab") as end:
        end.write(first.readline())
        rest = lines.with_suffix(".rest")
        rest.write_bytes(first.read())
    with _running(deployment, ["streaming", "--linger", str(linger_s)]) as flow:
        _await(lambda: _applied(deployment) > before)
        with _running(deployment, ["benchmarks.feeder", str(rest), str(log), str(per_s)]):
            time.sleep(SETTLE_S)
            began = _look(deployment, flow)
            time.sleep(seconds)
            events, commits, cpu_s, redis_s = (b - a for a, b in zip(began, _look(deployment, flow), strict=True))
    return {
        "cpu_us": cpu_s / events * 1e6,
        "redis_us": redis_s / events * 1e6,
        "per_s": events / seconds,
        "commits_per_s": commits / seconds,
    }


def _look(deployment: Deployment, flow: subprocess.Popen[bytes]) -> tuple[float, float, float, float]:
    """Events applied, in how many commits, CPU seconds of the flow, of Redis."""
    used = Path(f"/proc/{flow.pid}/stat").read_text().rpartition(")")[2].split()
    progress = _progress(deployment)
    return _events(progress), progress.commit, (int(used[11]) + int(used[12])) / _TICKS_PER_S, deployment.redis_cpu_s()


def _applied(deployment: Deployment) -> int:
    return _events(_progress(deployment))


def _progress(deployment: Deployment) -> Progress:
    blob = deployment.redis.get(Keys(deployment.settings.namespace).progress(user_spend.key, 0))
    return Progress() if blob is None else Progress.decode(blob)


def _events(progress: Progress) -> int:
    return sum(one.next_offset for one in progress.partitions.values())


def _await(done: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not done():
        if time.monotonic() > until_s:
            raise RuntimeError(f"The flow applied nothing within {WAIT_S:g} s")
        time.sleep(0.01)


@contextlib.contextmanager
def _running(deployment: Deployment, arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=CHECKOUT,
        env=dict(deployment.environment),
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()  # what it has not yet written, the next flow reads again
        process.wait()
