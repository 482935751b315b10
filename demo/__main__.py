"""`python -m demo`, which is what `forebay demo` runs."""

from __future__ import annotations

from typing import Annotated

import typer

from demo.report import PROBES_MIN
from demo.run import run
from demo.timeline import HISTORY_DAYS, STREAM_DAYS


def main(
    days: Annotated[int, typer.Option(min=1, help="Days of December to stream.")] = STREAM_DAYS,
    history_days: Annotated[int, typer.Option(min=1, help="Days of history, from 1 January 2013.")] = HISTORY_DAYS,
    probes_min: Annotated[int, typer.Option(help="Fail on fewer probes on either side of the seam.")] = PROBES_MIN,
) -> None:
    """The main job on the real flights of 2013: declare, backfill, stream, train, and prove that all ways agree."""
    raise typer.Exit(run(days=days, history_days=history_days, probes_min=probes_min))


if __name__ == "__main__":
    typer.run(main)
