"""What it saves to wait for more events: CPU of a flow that keeps up, by how long it lingers, and its commits a second.

A value is later by up to the time that its flow lingers; `freshness` measures how late it is without.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import keeping_up
from benchmarks.report import Report

FIGURES = (
    ("worker CPU", "cpu_us", "µs/event"),
    ("Redis CPU", "redis_us", "µs/event"),
    ("commits", "commits_per_s", "/s"),
)


@dataclass(frozen=True)
class Size(keeping_up.Size):
    """Lingering for each time."""

    lingers_ms: tuple[int, ...] = (10, 50, 250)


TINY = Size(users=50, history=1_000, rates=(500,), lingers_ms=(50,), seconds=0.5, rounds=1)


def run(size: Size) -> Report:
    """Measure each rate, lingering for each time."""
    settings = {f"lingering {ms} ms": {"linger_s": ms / 1000} for ms in size.lingers_ms}
    return Report("linger", size.said, size.rounds, keeping_up.compared(size, "at once", settings, FIGURES))
