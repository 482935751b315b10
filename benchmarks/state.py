"""What an event costs by how many entities live: CPU of the worker and of Redis, and the most memory a worker had.

The same flow over two deployments that differ in their users alone. Every user has had an event, so that each has
tiles, and what is timed is drawn by Zipf's law as traffic is. It is timed twice: catching up (a log is ready, thousands
of events are found at once, so a busy entity is written once for many of its events, and few entities cost less), and
live (events come at a steady rate, some hundred at once). State is in Redis; a worker remembers the positions of
partitions and until when some keys are kept, and Bytewax keeps nothing: there is no snapshot.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.report import Comparison, Report
from benchmarks.rounds import Contender, Samples, interleaved
from benchmarks.shop import LIVE

CATCHING_UP, LIVE_SPEED = "catching up", "live"


@dataclass(frozen=True)
class Size:
    """Users of both, events before (beside one of each user), events timed a round, and seconds of a steady rate."""

    few: int = 10_000
    many: int = 1_000_000
    history: int = 1_000_000
    timed: int = 200_000
    per_s: int = 20_000
    seconds: float = 8.0
    rounds: int = 3


TINY = Size(few=50, many=500, history=2_000, timed=2_000, per_s=500, seconds=0.5, rounds=1)


def run(size: Size) -> Report:
    """Measure a flow over few and over many entities."""
    with contextlib.ExitStack() as stack:
        flows = {name(users): Flows(stack.enter_context(deployed(LIVE)), users) for users in (size.few, size.many)}
        for flow in flows.values():
            filled(flow, size.history)
        return Report("state", setting(size), size.rounds, measured(size, flows))


def filled(flow: Flows, history: int) -> None:
    """One event of each user, and more at random."""
    flow.fill_each()
    if history:
        flow.fill(history, zipf=0.0)


def measured(size: Size, flows: Mapping[str, Flows]) -> list[Comparison]:
    """Many beside few, catching up and live."""
    few, many = name(size.few), name(size.many)
    contenders: dict[str, dict[str, Contender]] = {
        CATCHING_UP: {one: lambda flow=flow: flow.ours(size.timed) for one, flow in flows.items()},
        LIVE_SPEED: {one: lambda flow=flow: flow.live(size.per_s, size.seconds) for one, flow in flows.items()},
    }
    found, samples = list[Comparison](), dict[str, Samples]()
    for how, taking_turns in contenders.items():
        samples[how] = _with_both(interleaved(taking_turns, size.rounds, warm_up=False))
        for what, metric in (("worker", "cpu_us"), ("Redis", "redis_us"), ("both", "both_us")):
            title = f"{many}, {how}, {what} CPU"
            found.append(Comparison.of(title, samples[how], few, metric, "µs/event", ours=many))
    held = {one: [{**round_, **_held(flows[one])} for round_ in rounds] for one, rounds in samples[CATCHING_UP].items()}
    return [
        *found,
        Comparison.of(f"{many}, worker memory", held, few, "memory_mb", "MB", ours=many),
        Comparison.of(f"{many}, Redis memory", held, few, "redis_mb", "MB", ours=many),
        Comparison.of(f"{many}, Redis memory", held, few, "entity_bytes", "B/user", ours=many),
    ]


def name(users: int) -> str:
    """What a deployment of so many users is called."""
    return f"{users:,} users"


def setting(size: Size) -> str:
    """What is measured, in a few words."""
    return (
        f"2 views × 3 windows × 6 aggregates, one event of each user and {size.history:,} more before, "
        f"{size.timed:,} timed, {size.seconds:g} s at {size.per_s:,} events/s"
    )


def _with_both(samples: Samples) -> Samples:
    """With what an event costs in all."""
    return {
        one: [{**round_, "both_us": round_["cpu_us"] + round_["redis_us"]} for round_ in rounds]
        for one, rounds in samples.items()
    }


def _held(flow: Flows) -> dict[str, float]:
    """What Redis holds, and how much that is for each user."""
    used = float(flow.deployment.redis.info("memory")["used_memory"])
    return {"redis_mb": used / 2**20, "entity_bytes": used / flow.users}
