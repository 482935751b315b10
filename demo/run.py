"""`forebay demo`: the main job on real flights, through the same commands that a user has.

Lives here: the settings of a run, its result file and its exit code. The steps themselves are in `demo/steps.py`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.commands import Shell
from demo.feed import Files
from demo.report import PROBES_MIN, Screen, print_verdict, problems
from demo.steps import Run
from demo.timeline import HISTORY_DAYS, STREAM_DAYS, timeline
from forebay.errors import ForebayError
from forebay.instants import instant_text
from forebay.settings import Settings

STEPS_BESIDES_PAUSES = 9
STEPS_PER_PAUSE = 2


def run(
    *,
    days: int = STREAM_DAYS,
    history_days: int = HISTORY_DAYS,
    probes_min: int = PROBES_MIN,
) -> int:
    """Run the demo over `history_days` of history and `days` of stream; the exit code is 0 if the law held."""
    began = time.perf_counter()
    home = Path(Settings.from_env().home).resolve()
    os.environ |= embedded(home)
    files = Files(home)
    line = timeline(history_days=history_days, days=days)
    screen = Screen(STEPS_BESIDES_PAUSES + STEPS_PER_PAUSE * len(line.pauses_us))
    try:
        with screen.step("Reading the flights of 2013"):
            steps = Run(files, line, screen, Shell(home, files.work / "logs", columns=screen.width))
        steps.all()
    except ForebayError as error:
        screen.console.print(f"[red]{type(error).__name__}[/]", highlight=False)
        screen.console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    found = result(steps, probes_min, round(time.perf_counter() - began, 1))
    (home / "demo.json").write_text(json.dumps(found, indent=2) + "\n")
    print_verdict(screen.console, found, str(home))
    return 1 if problems(found) else 0


def embedded(home: Path) -> dict[str, str]:
    """The settings of the demo, whatever the user's are: embedded parts, a folder, and this checkout's definitions."""
    return {
        "FOREBAY_HOME": str(home),
        "FOREBAY_ONLINE_URL": "embedded",
        "FOREBAY_OFFLINE_URL": str(home / "offline"),
        "FOREBAY_DEFINITIONS": "feature_defs",
        "FOREBAY_NAMESPACE": "forebay",
    }


def result(steps: Run, probes_min: int, total_s: float) -> Mapping[str, Any]:
    """What `demo.json` says."""
    verdict = steps.verdict
    return {
        "probes": verdict.probes,
        "probes_across_seam": verdict.across_seam,
        "probes_one_side": verdict.one_side,
        "probes_min": probes_min,
        "mismatches": verdict.mismatches,
        "values_compared": verdict.values,
        "first_mismatches": list(verdict.shown),
        "end": instant_text(steps.timeline.end_us),
        "pauses": len(steps.timeline.pauses_us),
        "history_events": steps.counts["history_events"],
        "stream_events": steps.counts["stream_events"],
        "training_rows": steps.counts["training_rows"],
        "live_vectors": steps.counts.get("live_vectors", 0),
        "auc_fresh": steps.auc["fresh"],
        "auc_stale": steps.auc["stale"],
        "auc_live": steps.auc.get("live"),
        "seconds": steps.seconds,
        "cpu_seconds": steps.cpu_seconds,
        "total_s": total_s,
        "commands": steps.shell.history,
    }
