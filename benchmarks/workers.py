"""Two workers beside one, and beside two while one user has 30 % of the events: `python -m streaming --workers N`.

A worker is a process, and Redis is one more that all of them wait for: what two can gain is bounded by the cores that
there are beside it. So the CPU time of all workers is measured as well: that it stays says what more cores would give.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import MORE, Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE

ONE, TWO, HOT = "one worker", "two workers", "two workers, 30 % of one user"
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
        Comparison.of(TWO, samples, ONE, "per_s", "events/s", better=MORE, ours=TWO),
        Comparison.of(f"{TWO}, CPU of both", samples, ONE, "cpu_us", "µs/event", ours=TWO),
        Comparison.of(f"{TWO}, Redis CPU", samples, ONE, "redis_us", "µs/event", ours=TWO),
        Comparison.of(HOT, samples, TWO, "per_s", "events/s", better=MORE, ours=HOT),
        Comparison.of(f"{HOT}, CPU of both", samples, TWO, "cpu_us", "µs/event", ours=HOT),
    ]
    setting = f"{size.users:,} users, {size.history:,} events before, {size.timed:,} timed"
    return Report("workers", setting, size.rounds, comparisons)
