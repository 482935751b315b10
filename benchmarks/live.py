"""The flow while events come: what an event costs at a steady rate, which is what it costs on most days.

Lives here: feeding a log at a rate and looking at the flow twice while it follows.
A flow that catches up finds thousands of events at once and writes an entity once for many of them; one that keeps up
finds some hundred, so nearly every event is of another entity, however few there are. Events count when they are
applied online: on a machine that does not keep up, the figure is still one per event.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.deployment import CHECKOUT, Deployment
from benchmarks.logs import AND
from benchmarks.looks import Look, applied
from benchmarks.purchases import PARTITION
from benchmarks.rounds import Measured

SETTLE_S = 2.0
"""Before the first look, for caches and the first commits."""
WAIT_S = 120.0


def paced(
    deployment: Deployment, lines: Path, per_s: int, seconds: float, linger_s: float = 0.0, partitions: int = 1
) -> Measured:
    """CPU time per event of a flow that is fed these lines at a rate, between two looks some seconds apart.

    The first line is there before the flow starts: the others begin to come once it is applied.
    """
    folder = deployment.settings.home / "stream"
    folder.mkdir(parents=True, exist_ok=True)
    logs = [folder / PARTITION, *(folder / f"{n}.ndjson" for n in range(1, partitions))]
    for log in logs:
        log.touch()
    before = applied(deployment)
    with lines.open("rb") as first, logs[0].open("ab") as end:
        end.write(first.readline())
        rest = lines.with_suffix(".rest")
        rest.write_bytes(first.read())
    with _running(deployment, ["streaming", "--linger", str(linger_s)]) as flow:
        _await(lambda: applied(deployment) > before)
        with _running(deployment, ["benchmarks.feeder", str(rest), AND.join(map(str, logs)), str(per_s)]):
            time.sleep(SETTLE_S)
            began = Look.at(deployment, flow.pid)
            time.sleep(seconds)
            return Look.at(deployment, flow.pid).since(began)


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
