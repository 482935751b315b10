"""What memory is given is kept: by archives, rows of batch views, spines and results that are larger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.client.memory import MB
from tests.client.memory_run import CALLS, LONG_SPINE, SPINE

GIVEN_MB = 140


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that a process held")
def test_training_sets_stay_within_the_memory_they_are_given(tmp_path: Path) -> None:
    """Of events and of rows, by both clocks, to a file and to a Delta table, for few rows and for a long file."""
    command = [sys.executable, "-m", "tests.client.memory_run", str(tmp_path), str(GIVEN_MB)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert min(found["held"]["events"], found["held"]["rows"]) > 3 * GIVEN_MB * MB
    assert found["held"]["spine"] > GIVEN_MB * MB
    calls = found["calls"]
    assert {name: one["rows"] for name, one in calls.items()} == {
        name: LONG_SPINE if asked == "long" else SPINE for name, (_, asked, _, _) in CALLS.items()
    }
    assert all(one["buckets"] > 10 for one in calls.values())
    over = {name: (one["peak"] - one["given"]) // MB for name, one in calls.items() if one["peak"] > one["given"]}
    assert not over, "MB that a call took beyond what it was given"
    assert found["same"]
    assert calls["events"]["given"] < found["whole"]
