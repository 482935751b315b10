"""What it costs that events come in many partitions: the same events at a steady rate in one file and in many.

A reader finds a few events of each of many partitions at once. What it does for each of them, and not for all at once,
shows as CPU time of an event; and where it can no longer keep up, as fewer and larger commits.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE

ONE = "one partition"


@dataclass(frozen=True)
class Size:
    """Seconds of each steady rate in so many partitions, a round."""

    users: int = 10_000
    history: int = 300_000
    rates: tuple[int, ...] = (1_000, 20_000)
    partitions: tuple[int, ...] = (4, 32)
    seconds: float = 6.0
    rounds: int = 2


TINY = Size(users=50, history=1_000, rates=(500,), partitions=(3,), seconds=0.5, rounds=1)


def run(size: Size) -> Report:
    """Measure each rate in each number of partitions."""
    comparisons = []
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        flows.fill_each()
        flows.fill(size.history, zipf=0.0)
        for rate in size.rates:
            contenders: dict[str, Contender] = {ONE: lambda rate=rate: flows.live(rate, size.seconds)}
            for count in size.partitions:
                contenders[str(count)] = lambda rate=rate, count=count: flows.live(rate, size.seconds, partitions=count)
            samples = interleaved(contenders, size.rounds, warm_up=False)
            for what, metric, unit in (("worker CPU", "cpu_us", "µs/event"), ("commits", "commits_per_s", "/s")):
                comparisons += [
                    Comparison.of(
                        f"{rate:,} events/s in {count} partitions, {what}", samples, ONE, metric, unit, ours=str(count)
                    )
                    for count in size.partitions
                ]
    setting = f"{size.users:,} users, {size.seconds:g} s at each rate"
    return Report("partitions", setting, size.rounds, comparisons)
