"""What was measured, for people (one table) and for programs (JSON).

Lives here: comparisons and how they are said. A comparison is Forebay ÷ other: medians over rounds, and the median,
least and greatest of the ratios within one round, since a noisy neighbour slows both contenders of a round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.rounds import Samples

OURS = "forebay"
LESS, MORE = "less", "more"


@dataclass(frozen=True)
class Comparison:
    """One figure of Forebay's beside that of another contender; `better` says whether less or more of it is good."""

    what: str
    unit: str
    better: str
    ours: float
    other: str
    others: float
    ratio: float
    ratio_min: float
    ratio_max: float

    @classmethod
    def of(
        cls, what: str, samples: Samples, other: str, metric: str, unit: str, *, better: str = LESS, ours: str = OURS
    ) -> Comparison:
        """One metric of two contenders that took turns."""
        mine, theirs = ([round_[metric] for round_ in samples[name]] for name in (ours, other))
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        median = statistics.median
        return cls(what, unit, better, median(mine), other, median(theirs), median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True)
class Report:
    """What one benchmark found: `setting` says on which data."""

    name: str
    setting: str
    rounds: int
    comparisons: Sequence[Comparison]
    seconds: float = 0.0


def print_reports(reports: Sequence[Report], console: Console) -> None:
    """All comparisons in one table."""
    table = Table(title=f"Forebay ÷ other, medians · {machine()}", title_justify="left", pad_edge=False)
    for name in ("measured", "unit", "Forebay", "other", "its figure"):
        table.add_column(name, justify="right" if name in {"Forebay", "its figure"} else "left")
    table.add_column("ratio (least … greatest)", justify="right")
    for report in reports:
        table.add_section()
        table.add_row(f"[bold]{report.name}[/]: {report.setting}; {report.rounds} rounds, {report.seconds:.0f} s")
        for one in report.comparisons:
            sign = "↓" if one.better == LESS else "↑"
            ratio = f"{_short(one.ratio)}× {sign} ({_short(one.ratio_min)} … {_short(one.ratio_max)})"
            table.add_row(one.what, one.unit, _short(one.ours), one.other, _short(one.others), ratio)
    console.print(table)
    console.print("↓ less is better, ↑ more is better")


def write_report(report: Report, folder: Path) -> None:
    """Write `<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **asdict(report)}, indent=2)
    (folder / f"{report.name}.json").write_text(text + "\n")


def machine() -> str:
    """What it was measured on, in a few words."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def _short(value: float) -> str:
    """Three digits that count.

    >>> _short(1234567.8), _short(12.345), _short(0.012345)
    ('1,230,000', '12.3', '0.0123')
    """
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}"
