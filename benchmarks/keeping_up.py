"""A flow that keeps up with a steady rate, in some settings beside it as it is: what `linger` and `partitions` share.

One flow after another over the same deployment, at each of some rates that all of them keep up with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE


@dataclass(frozen=True)
class Size:
    """Seconds of each steady rate, in each setting, a round."""

    users: int = 10_000
    history: int = 300_000
    rates: tuple[int, ...] = (1_000, 20_000)
    seconds: float = 6.0
    rounds: int = 2

    @property
    def said(self) -> str:
        """In words."""
        return f"{self.users:,} users, {self.seconds:g} s at each rate"


def compared(
    size: Size, plain: str, settings: Mapping[str, Mapping[str, Any]], figures: Sequence[tuple[str, str, str]]
) -> list[Comparison]:
    """Figures (what, metric, unit) of flows with arguments of `Flows.live` beside the one that has none, `plain`."""
    comparisons: list[Comparison] = []
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        flows.fill_each()
        flows.fill(size.history, zipf=0.0)
        for rate in size.rates:
            contenders: dict[str, Contender] = {
                name: lambda rate=rate, more=more: flows.live(rate, size.seconds, **more)
                for name, more in {plain: {}, **settings}.items()
            }
            samples = interleaved(contenders, size.rounds, warm_up=False)
            comparisons += [
                Comparison.of(f"{rate:,} events/s {name}, {what}", samples, plain, metric, unit, ours=name)
                for what, metric, unit in figures
                for name in settings
            ]
    return comparisons
