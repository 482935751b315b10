"""What the demo shows: a bar for each step, one table at the end, and the commands to try next.

Lives here: drawing, and the shape of `demo.json`. Nothing here computes anything that the demo claims.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

PROBES_MIN = 2_000
"""Fewer probes than this, across the seam or on one side of it, prove too little."""


class Screen:
    """The terminal: one moving bar for the step that runs, one line for each that is done."""

    def __init__(self, steps: int) -> None:
        self.console = Console()
        columns = (SpinnerColumn(), BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn())
        self._progress = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._steps = steps
        self._done = 0

    @property
    def width(self) -> int:
        """Columns of the terminal."""
        return self.console.width

    @contextmanager
    def step(self, says: str) -> Iterator[None]:
        """Show that a step is going on, and how far the demo is; leave a line when it is done."""
        task = self._progress.add_task(says, total=self._steps, completed=self._done)
        with self._progress:
            yield
        elapsed = self._progress.tasks[self._progress.task_ids.index(task)].elapsed or 0.0
        self._progress.remove_task(task)
        self._done = min(self._done + 1, self._steps)
        self.console.print(f"[green]✓[/] {says} [dim]({elapsed:.1f} s)[/]", highlight=False)

    def show(self, command: str, text: str) -> None:
        """The output of a command, as the user would see it."""
        self.console.print(f"[dim]$ {command}[/]", highlight=False)
        self.console.print(text.rstrip(), markup=False, highlight=False, soft_wrap=True)


def verdict_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The lines of the table at the end."""
    seconds = found["seconds"]
    yield "events of history, loaded and backfilled", f"{found['history_events']:,}"
    yield "events streamed", f"{found['stream_events']:,}"
    yield "training rows, point-in-time correct", f"{found['training_rows']:,}"
    yield "pauses", str(found["pauses"])
    yield "probes (entity, instant): online = training?", f"{found['probes']:,}"
    yield "  of which need batch and stream tiles", f"{found['probes_across_seam']:,}"
    yield "  of which lie on one side of the seam", f"{found['probes_one_side']:,}"
    yield "values compared, bit for bit", f"{found['values_compared']:,}"
    yield "mismatches", f"{found['mismatches']:,}"
    yield "AUC with fresh features", _digits(found["auc_fresh"])
    yield "AUC with features one day stale", _digits(found["auc_stale"])
    yield f"AUC of {found['live_vectors']:,} vectors read online at the pauses", _digits(found["auc_live"])
    yield "seconds: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()), f"{found['total_s']:.0f}"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def print_verdict(console: Console, found: Mapping[str, Any], home: str) -> None:
    """The table, what went wrong if anything did, and what to try next."""
    table = Table(title="One function, four ways", title_style="bold", show_header=False, expand=False)
    table.add_column(overflow="fold")
    table.add_column(justify="right", style="bold")
    for name, value in verdict_rows(found):
        table.add_row(name, value, style="red" if name == "mismatches" and found["mismatches"] else "")
    console.print(table)
    for wrong in found["first_mismatches"]:
        console.print(
            f"[red]{wrong['entity']} at {wrong['instant']}: {wrong['feature']} is {wrong['online']} online "
            f"and {wrong['training']} in training[/]",
            highlight=False,
        )
    for problem in problems(found):
        console.print(f"[red]{problem}[/]", highlight=False)
    console.print("Try next:", style="bold")
    for command in next_commands(home, found["end"]):
        console.print(f"  {command}", highlight=False, soft_wrap=True)


def next_commands(home: str, end: str) -> tuple[str, ...]:
    """What a curious reader would run on what the demo left."""
    return (
        f"export FOREBAY_HOME={home}",
        "forebay get arrival_delay@1 origin=JFK carrier=B6 tail_number=N258JB --at " + end,
        f"forebay history origin_delays@1 origin=JFK --end {end} --every 1h",
        "forebay plan        # after an edit in feature_defs/",
        "make ui             # Dagster: lineage, partitions, backfills",
        "forebay serve       # then GET /features/aircraft/N258JB?names=aircraft_legs@1:legs_lifetime",
        "forebay down        # stops the embedded Valkey",
    )


def problems(found: Mapping[str, Any]) -> list[str]:
    """Why the demo fails; empty when the law held and enough was probed."""
    said = []
    if found["mismatches"]:
        said.append(f"The law is broken: {found['mismatches']:,} of {found['probes']:,} probes differ.")
    for side in ("probes_across_seam", "probes_one_side"):
        if found[side] < found["probes_min"]:
            said.append(f"Too little was proven: {side} is {found[side]:,}, expected at least {found['probes_min']:,}.")
    return said
