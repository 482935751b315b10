"""Five million entities: what a worker and Redis need for them, what an event costs, and how long a restart takes.

`state` with more users, in one round, beside ten thousand; and a start of the flow over each of the two until an event
that waits in the log can be read. It takes minutes (half an hour on a busy machine), a few gigabytes of memory and ten
of disk, so it is a command of its own: `python -m benchmarks millions`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from benchmarks import freshness, state
from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE


@dataclass(frozen=True)
class Size(state.Size):
    """As of `state`."""

    many: int = 5_000_000
    history: int = 0
    rounds: int = 1


TINY = Size(few=50, many=700, timed=2_000, per_s=500, seconds=0.5)


def run(size: Size) -> Report:
    """Measure a flow over ten thousand and over five million entities."""
    few, many = state.name(size.few), state.name(size.many)
    with contextlib.ExitStack() as stack:
        flows = {
            state.name(users): Flows(stack.enter_context(deployed(LIVE)), users) for users in (size.few, size.many)
        }
        for flow in flows.values():
            state.filled(flow, size.history)
        comparisons = state.measured(size, flows)
        probes = {
            name: stack.enter_context(freshness.probing_file(flow.deployment, freshness.TINY))
            for name, flow in flows.items()
        }
        restarts: dict[str, Contender] = {name: probe.restart for name, probe in probes.items()}
        restarted = interleaved(restarts, size.rounds, warm_up=False)
    title = f"{many}, restart → first fresh value"
    comparisons.append(Comparison.of(title, restarted, few, "wall_s", "s", ours=many))
    return Report("millions", state.setting(size), size.rounds, comparisons)
