"""The stream into both stores beside a per-event Bytewax flow that computes the same, and beside what nothing can beat.

Both flows are processes of their own and read the same NDJSON. The per-event flow (`benchmarks.per_event`) writes to
Redis only, has no fence, no archive and no recovery: it is what one writes first. Forebay's is the command that a user
runs: `python -m streaming --until-end`; two workers of it are compared with one over a longer log, in the middle of a
run (`workers` has their limits, and a hot user). The raw limits are the least that either side of it has to do: making
Python objects of the lines, and appending ready-made bytes to as many keys. Then come delays and restarts, and what an
event costs by how many entities live, which are benchmarks of their own, too: `freshness` and `state`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from benchmarks import freshness, state
from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import MORE, OURS, Comparison, Report
from benchmarks.rounds import Contender, interleaved
from benchmarks.shop import LIVE
from benchmarks.workers import beside_one, one_and_two

PER_EVENT = "per-event Bytewax flow (Redis only)"
DECODE = "msgspec decode alone"
APPENDS = "ready-made APPENDs alone"
LIVE_SPEED = "20,000 events/s live"


@dataclass(frozen=True)
class Size:
    """Events: `history` to fill the windows, then what is timed a round."""

    users: int = 200_000
    history: int = 1_000_000
    timed: int = 300_000
    timed_per_event: int = 40_000
    timed_workers: int = 800_000
    rounds: int = 3
    delays: freshness.Size = field(default_factory=freshness.Size)
    entities: state.Size = field(default_factory=state.Size)


TINY = Size(
    users=50,
    history=0,
    timed=2_000,
    timed_per_event=2_000,
    timed_workers=2_000,
    rounds=1,
    delays=freshness.TINY,
    entities=state.TINY,
)


def run(size: Size) -> Report:
    """Measure all of it."""
    reports = [
        _beside_per_event(size),
        freshness.run(replace(size.delays, rounds=size.rounds)),
        state.run(replace(size.entities, rounds=size.rounds)),
    ]
    setting = "; ".join(report.setting for report in reports)
    return Report("stream", setting, size.rounds, [one for report in reports for one in report.comparisons])


def _beside_per_event(size: Size) -> Report:
    """Both flows, two workers, and decoding."""
    with deployed(LIVE) as deployment:
        flows = Flows(deployment, size.users)
        if size.history:
            flows.fill(size.history)
        contenders: dict[str, Contender] = {
            OURS: lambda: flows.ours(size.timed),
            **one_and_two(flows, size.timed_workers),
            PER_EVENT: lambda: flows.per_event(size.timed_per_event),
            DECODE: lambda: flows.decode(size.timed_per_event),
            APPENDS: lambda: flows.appends(size.timed_per_event),
            LIVE_SPEED: lambda: {"per_s": 20_000.0},
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
    comparisons = [
        Comparison.of("stream, worker CPU", samples, PER_EVENT, "cpu_us", "µs/event"),
        Comparison.of("stream, Redis CPU", samples, PER_EVENT, "redis_us", "µs/event"),
        Comparison.of("stream into both stores, one worker", samples, PER_EVENT, "per_s", "events/s", better=MORE),
        Comparison.of("stream, worker CPU", samples, DECODE, "cpu_us", "µs/event"),
        Comparison.of("stream, Redis CPU", samples, APPENDS, "redis_us", "µs/event"),
        Comparison.of("stream into both stores, one worker", samples, APPENDS, "per_s", "events/s", better=MORE),
        *beside_one(samples),
        Comparison.of("replay into both stores, one worker", samples, LIVE_SPEED, "per_s", "events/s", better=MORE),
    ]
    setting = (
        f"2 views × 3 windows × 6 aggregates, {size.users:,} users, "
        f"{size.history:,} events before, {size.timed:,} timed"
    )
    return Report("stream", setting, size.rounds, comparisons)
