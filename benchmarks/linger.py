"""What it saves to wait for more events: CPU of a flow that keeps up, by how long it lingers, and its commits a second.

One flow after another over the same deployment, at a steady rate that each of them keeps up with. A value is later by
up to the time that its flow lingers; `freshness` measures how late it is without.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE

AT_ONCE = "at once"


@dataclass(frozen=True)
class Size:
    """Seconds of each steady rate, lingering for each time, a round."""

    users: int = 10_000
    history: int = 300_000
    rates: tuple[int, ...] = (1_000, 20_000)
    lingers_ms: tuple[int, ...] = (10, 50, 250)
    seconds: float = 6.0
    rounds: int = 2


TINY = Size(users=50, history=1_000, rates=(500,), lingers_ms=(50,), seconds=0.5, rounds=1)


def run(size: Size) -> Report:
    """Measure each rate, lingering for each time."""
    comparisons = []
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        flows.fill_each()
        flows.fill(size.history, zipf=0.0)
        for rate in size.rates:
            contenders: dict[str, Contender] = {AT_ONCE: lambda rate=rate: flows.live(rate, size.seconds)}
            for ms in size.lingers_ms:
                contenders[f"{ms} ms"] = lambda rate=rate, ms=ms: flows.live(rate, size.seconds, linger_s=ms / 1000)
            samples = interleaved(contenders, size.rounds, warm_up=False)
            for what, metric, unit in (
                ("worker CPU", "cpu_us", "µs/event"),
                ("Redis CPU", "redis_us", "µs/event"),
                ("commits", "commits_per_s", "/s"),
            ):
                comparisons += [
                    Comparison.of(
                        f"{rate:,} events/s, lingering {ms} ms, {what}", samples, AT_ONCE, metric, unit, ours=f"{ms} ms"
                    )
                    for ms in size.lingers_ms
                ]
    setting = f"{size.users:,} users, {size.seconds:g} s at each rate"
    return Report("linger", setting, size.rounds, comparisons)
