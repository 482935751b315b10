"""Two workers beside one, and beside two while one user has 30 % of the events: `python -m streaming --workers N`.

A worker is a process, and Redis is one more that all of them wait for: what two can gain is bounded by the cores that
there are beside it. So the CPU time of all workers and of Redis is measured as well, and what all cores of the machine
would give if nobody ever waited stands beside what they gave: cores ÷ (CPU of the workers + of Redis, an event). The
log is ready before a flow starts; nobody feeds it meanwhile.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import MORE, Comparison, Report
from benchmarks.rounds import Contender, Measured, Samples, interleaved
from benchmarks.shop import LIVE

ONE, TWO, HOT = "one worker", "two workers", "two workers, 30 % of one user"
CEILING = "all cores at that CPU, never waiting"
HOT_SHARE = 0.3


@dataclass(frozen=True)
class Size:
    """Events: `history` to fill the windows, then what is timed a round."""

    users: int = 200_000
    history: int = 500_000
    timed: int = 800_000
    rounds: int = 3


TINY = Size(users=50, history=0, timed=2_000, rounds=1)


def run(size: Size) -> Report:
    """Measure one worker, two, and two with a hot key."""
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        if size.history:
            flows.fill(size.history)
        contenders: dict[str, Contender] = {
            ONE: lambda: flows.ours(size.timed),
            TWO: lambda: flows.ours(size.timed, workers=2),
            HOT: lambda: flows.ours(size.timed, workers=2, hot=HOT_SHARE),
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
    comparisons = [
        *beside_one(samples),
        Comparison.of(HOT, samples, TWO, "per_s", "events/s", better=MORE, ours=HOT),
        Comparison.of(f"{HOT}, CPU of both", samples, TWO, "cpu_us", "µs/event", ours=HOT),
    ]
    setting = f"{size.users:,} users, {size.history:,} events before, {size.timed:,} timed"
    return Report("workers", setting, size.rounds, comparisons)


def beside_one(samples: Samples, one: str = ONE) -> list[Comparison]:
    """Two workers beside one, and beside what the machine could give."""
    samples = {**samples, CEILING: [{"per_s": _ceiling(round_)} for round_ in samples[TWO]]}
    return [
        Comparison.of(TWO, samples, one, "per_s", "events/s", better=MORE, ours=TWO),
        Comparison.of(f"{TWO}, CPU of both", samples, one, "cpu_us", "µs/event", ours=TWO),
        Comparison.of(f"{TWO}, Redis CPU", samples, one, "redis_us", "µs/event", ours=TWO),
        Comparison.of(TWO, samples, CEILING, "per_s", "events/s", better=MORE, ours=TWO),
    ]


def _ceiling(measured: Measured) -> float:
    return (os.cpu_count() or 1) * 1e6 / (measured["cpu_us"] + measured["redis_us"])
