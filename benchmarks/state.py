"""What a worker costs by how many entities live: CPU per event, and the most memory that it had.

The same flow over two deployments that differ in their users alone. All of them have had events, so that each has
tiles, and what is timed is drawn by Zipf's law as traffic is. State is in Redis; a worker remembers the positions of
partitions and until when some keys are kept, and Bytewax keeps nothing: there is no snapshot.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE

FILL_EVENTS = 500_000
"""Of one run that fills, so that this process draws no more at a time."""


@dataclass(frozen=True)
class Size:
    """Users of both, events before (at least one for nearly every user), events timed a round."""

    few: int = 10_000
    many: int = 1_000_000
    history: int = 3_000_000
    timed: int = 200_000
    rounds: int = 3


TINY = Size(few=50, many=500, history=2_000, timed=2_000, rounds=1)


def run(size: Size) -> Report:
    """Measure a flow over few and over many entities."""
    few, many = f"{size.few:,} users", f"{size.many:,} users"
    with contextlib.ExitStack() as stack:
        flows = {name: Flows(stack.enter_context(deployed(LIVE)), users) for name, users in _sizes(size).items()}
        for flow in flows.values():
            for first in range(0, size.history, FILL_EVENTS):
                flow.fill(min(FILL_EVENTS, size.history - first), zipf=0.0)
        contenders: dict[str, Contender] = {
            name: lambda flow=flow: flow.ours(size.timed) for name, flow in flows.items()
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
        online = {name: flow.deployment.redis.info("memory")["used_memory"] / 2**20 for name, flow in flows.items()}
    samples = {name: [{**one, "redis_mb": online[name]} for one in rounds] for name, rounds in samples.items()}
    comparisons = [
        Comparison.of(f"{many}, worker CPU", samples, few, "cpu_us", "µs/event", ours=many),
        Comparison.of(f"{many}, Redis CPU", samples, few, "redis_us", "µs/event", ours=many),
        Comparison.of(f"{many}, worker memory", samples, few, "memory_mb", "MB", ours=many),
        Comparison.of(f"{many}, Redis memory", samples, few, "redis_mb", "MB", ours=many),
    ]
    setting = f"2 views × 3 windows × 6 aggregates, {size.history:,} events before, {size.timed:,} timed"
    return Report("state", setting, size.rounds, comparisons)


def _sizes(size: Size) -> dict[str, int]:
    return {f"{users:,} users": users for users in (size.few, size.many)}
