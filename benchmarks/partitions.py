"""What it costs that events come in many partitions: the same events at a steady rate in one file and in many.

A reader finds a few events of each of many partitions at once. What it does for each of them, and not for all at once,
shows as CPU time of an event; and where it has none left, as fewer and larger commits.
"""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks import keeping_up
from benchmarks.report import Report

FIGURES = (("worker CPU", "cpu_us", "µs/event"), ("commits", "commits_per_s", "/s"))


@dataclass(frozen=True)
class Size(keeping_up.Size):
    """In so many partitions."""

    partitions: tuple[int, ...] = (4, 32)


TINY = Size(users=50, history=1_000, rates=(500,), partitions=(3,), seconds=0.5, rounds=1)


def run(size: Size) -> Report:
    """Measure each rate in each number of partitions."""
    settings = {f"in {count} partitions": {"partitions": count} for count in size.partitions}
    return Report(
        "partitions", size.said, size.rounds, keeping_up.compared(size, "in one partition", settings, FIGURES)
    )
