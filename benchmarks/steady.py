"""How fast flows are while they catch up, whatever they take to begin and to end: from a fifth to four fifths of a log.

    applied   0 ── imports, the first commits ── 20 % ═══════ what is measured ═══════ 80 % ── the last tables ── all

Lives here: running flows until the end of logs that are ready, side by side where there are several, and looking at
them each time that more is applied. Of several flows the events are counted together: a fifth of all of them. A run of
too few events to be looked at twice is measured as a whole, with its start; its figures mean nothing (tests do this).
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path

from benchmarks.deployment import CHECKOUT, Deployment
from benchmarks.looks import Look, applied
from benchmarks.rounds import Measured

FROM, TO = 0.2, 0.8
LOOK_S = 0.01


@dataclass(frozen=True)
class Ready:
    """A flow that is to run with so many workers, over a log that has `events` more."""

    deployment: Deployment
    events: int
    workers: int = 1


def steady(flows: Sequence[Ready]) -> Measured:
    """Run flows at once, each to its end: events a second of all of them together, and CPU time of each."""
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_running(flow)) for flow in flows]
        looks = list(_looks(running))
    return middle(looks, sum(flow.events for flow in flows))


def middle(looks: Sequence[Look], events: int) -> Measured:
    """From the last look at which no more than a fifth of the events was applied to the first at which four fifths
    were.
    """
    first = [one for one in looks if one.events <= FROM * events][-1]
    last = next(one for one in looks if one.events >= TO * events)
    return last.since(first)


@dataclass(frozen=True)
class _Running:
    flow: Ready
    process: subprocess.Popen[bytes]
    before: float
    """Events that had been applied before it began."""

    def applied(self) -> float:
        return applied(self.flow.deployment, self.flow.workers) - self.before

    def look(self) -> Look:
        found = Look.at(self.flow.deployment, self.process.pid, self.flow.workers)
        return replace(found, events=found.events - self.before)

    def has_ended(self) -> bool:
        """It is left to be looked at: who waits for a process takes what it has used away."""
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _looks(running: Sequence[_Running]) -> Iterator[Look]:
    """A look at the beginning, at each time that more is applied, and at the end."""
    seen = -1.0
    while not all(one.has_ended() for one in running):
        events = sum(one.applied() for one in running)
        if events > seen:
            seen = events
            yield _look(running)
        time.sleep(LOOK_S)
    yield _look(running)


def _look(running: Sequence[_Running]) -> Look:
    return reduce(add, [one.look() for one in running])


@contextlib.contextmanager
def _running(flow: Ready) -> Iterator[_Running]:
    """Within the block it runs; after it, it has streamed everything."""
    home = flow.deployment.settings.home
    before = applied(flow.deployment, flow.workers)
    with (home / "said").open("wb") as said, (home / "errors").open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "streaming", "--until-end", "--json", "--workers", str(flow.workers)],
            cwd=CHECKOUT,
            env=dict(flow.deployment.environment),
            stdout=said,
            stderr=errors,
        )
        try:
            yield _Running(flow, process, before)
        except BaseException:
            process.kill()
            raise
        finally:
            process.wait()
    _check(flow, process, home)


def _check(flow: Ready, process: subprocess.Popen[bytes], home: Path) -> None:
    if process.returncode:
        raise RuntimeError(f"A flow of {flow.workers} workers failed: {(home / 'errors').read_text()[-2000:]}")
    streamed = json.loads((home / "said").read_text().splitlines()[-1])["events"]
    assert streamed == flow.events, f"{flow.events} events were appended, {streamed} were streamed"
