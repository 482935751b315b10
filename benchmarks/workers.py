"""Two workers beside one, and beside two while one user has 30 % of the events: `python -m streaming --workers N`.

A worker is a process, and Redis is one more that all of them wait for: what two can gain is bounded by what the machine
has beside one. Two limits say how much that is, whatever the software does:

    cores    all cores of the machine, if nobody ever waited: cores ÷ (CPU of the workers + of Redis, an event)
    apart    two deployments that share nothing but the machine, each with a Redis, a folder, a log of half the events
             and half the users of its own, and one worker, at once; beside one of them alone

Rates and CPU times are those of the middle of a run (`steady`). Logs are ready before a flow starts; nobody feeds them
meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import MORE, Comparison, Report
from benchmarks.rounds import Contender, Measured, Samples, interleaved
from benchmarks.shop import LIVE
from benchmarks.steady import steady

ONE, TWO, HOT = "one worker", "two workers", "two workers, 30 % of one user"
ALONE, APART = "one of two deployments alone", "two deployments apart"
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
    """Measure one worker, two, two with a hot key, and what the machine gives to two deployments."""
    with contextlib.ExitStack() as stack:
        whole, *halves = (
            Flows(stack.enter_context(deployed(LIVE)), users)
            for users in (size.users, size.users // 2, size.users // 2)
        )
        if size.history:
            for flows in (whole, *halves):
                flows.fill(size.history * flows.users // size.users)
        half = size.timed // 2
        contenders: dict[str, Contender] = {
            **one_and_two(whole, size.timed),
            HOT: lambda: whole.steady(size.timed, workers=2, hot=HOT_SHARE),
            ALONE: lambda: halves[0].steady(half),
            APART: lambda: steady([flows.ready(half) for flows in halves]),
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
    comparisons = [
        *beside_one(samples),
        Comparison.of(HOT, samples, TWO, "per_s", "events/s", better=MORE, ours=HOT),
        Comparison.of(f"{HOT}, CPU of both", samples, TWO, "cpu_us", "µs/event", ours=HOT),
        Comparison.of(APART, samples, ALONE, "per_s", "events/s", better=MORE, ours=APART),
        Comparison.of(f"{APART}, worker CPU", samples, ALONE, "cpu_us", "µs/event", ours=APART),
        Comparison.of(f"{APART}, Redis CPU", samples, ALONE, "redis_us", "µs/event", ours=APART),
        Comparison.of(TWO, samples, APART, "per_s", "events/s", better=MORE, ours=TWO),
    ]
    setting = f"{size.users:,} users, {size.history:,} events before, {size.timed:,} a run"
    return Report("workers", setting, size.rounds, comparisons)


def one_and_two(flows: Flows, count: int) -> Mapping[str, Contender]:
    """One worker and two over the same deployment."""
    return {ONE: lambda: flows.steady(count), TWO: lambda: flows.steady(count, workers=2)}


def beside_one(samples: Samples) -> list[Comparison]:
    """Two workers beside one, and beside what the machine could give."""
    samples = {**samples, CEILING: [{"per_s": _ceiling(round_)} for round_ in samples[TWO]]}
    return [
        Comparison.of(TWO, samples, ONE, "per_s", "events/s", better=MORE, ours=TWO),
        Comparison.of(f"{TWO}, CPU of both", samples, ONE, "cpu_us", "µs/event", ours=TWO),
        Comparison.of(f"{TWO}, Redis CPU", samples, ONE, "redis_us", "µs/event", ours=TWO),
        Comparison.of(TWO, samples, CEILING, "per_s", "events/s", better=MORE, ours=TWO),
    ]


def _ceiling(measured: Measured) -> float:
    return (os.cpu_count() or 1) * 1e6 / (measured["cpu_us"] + measured["redis_us"])
