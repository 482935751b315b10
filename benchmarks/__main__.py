"""`python -m benchmarks [NAME …] [--tiny | --large]`: run benchmarks (by default all), print a table, write JSON."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.report import Report, print_reports, write_report

NAMES = (
    "asof",
    "cluster",
    "kafka",
    "kernel",
    "linger",
    "lists",
    "newest",
    "on_demand",
    "online",
    "partitions",
    "publish",
    "stream",
    "training",
    "workers",
)
ALONE = ("freshness", "millions", "spark", "state")
"""What runs only when it is named: it is a part of `stream`, or takes minutes, and much memory and disk, or a Java."""
RESULTS = Path(__file__).parent / "results"


def main(arguments: Sequence[str]) -> int:
    """Run what the command line names; the exit code."""
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 170)
    reports = []
    for name in options.names or NAMES:
        console.print(f"{name} …", style="dim")
        reports.append(measured(name, tiny=options.tiny, large=options.large, rounds=options.rounds))
        write_report(reports[-1], options.results)
    print_reports(reports, console)
    console.print(f"wrote {options.results}/{{{','.join(report.name for report in reports)}}}.json", style="dim")
    return 0


def measured(name: str, *, tiny: bool = False, large: bool = False, rounds: int | None = None) -> Report:
    """The report of one benchmark; where it has no large size, `large` is its own."""
    module = importlib.import_module(f"benchmarks.{name}")
    size = module.TINY if tiny else getattr(module, "LARGE", module.Size()) if large else module.Size()
    began_s = time.monotonic()
    report: Report = module.run(size if rounds is None else replace(size, rounds=rounds))
    return replace(report, seconds=time.monotonic() - began_s)


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Forebay beside named limits.")
    parser.add_argument(
        "names",
        nargs="*",
        choices=[*NAMES, *ALONE, []],
        metavar="NAME",
        help=f"{', '.join(NAMES)} (default: all); {', '.join(ALONE)}",
    )
    parser.add_argument("--tiny", action="store_true", help="small enough for a test; the figures mean nothing")
    parser.add_argument("--large", action="store_true", help="asof and training: 20,000,000 rows; half an hour each")
    parser.add_argument("--rounds", type=int, help="rounds instead of each benchmark's own number")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="where to write JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
