"""What memory is given is kept: by archives, rows of batch views, spines and results that are larger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from forebay.client.memory import MB
from tests.client.memory_run import CALLS, LONG_SPINE, ON_S3, SPINE

GIVEN_MB = 146
pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that a process held"
)


def measured(*arguments: str) -> dict[str, Any]:
    """What a process took that was given so much, call by call, each of which is right about its rows."""
    command = [sys.executable, "-m", "tests.client.memory_run", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout)
    for name, one in found["calls"].items():
        assert one["rows"] == (LONG_SPINE if CALLS[name][1] == "long" else SPINE)
        assert one["buckets"] > 10
    return found


def over(found: dict[str, Any]) -> dict[str, int]:
    """The megabytes that calls took beyond what they were given."""
    calls = found["calls"].items()
    return {name: (one["peak"] - one["given"]) // MB for name, one in calls if one["peak"] > one["given"]}


def test_training_sets_stay_within_the_memory_they_are_given(tmp_path: Path) -> None:
    """Of events and of rows, by both clocks, to a file and to a Delta table, for few rows and for a long file."""
    found = measured(str(tmp_path), str(GIVEN_MB))
    assert min(found["held"]["events"], found["held"]["rows"]) > 3 * GIVEN_MB * MB
    assert found["held"]["spine"] > GIVEN_MB * MB
    assert found["calls"].keys() == CALLS.keys() - set(ON_S3)
    assert not over(found)
    assert found["same"]
    assert found["calls"]["events"]["given"] < found["whole"]


def test_on_s3_they_do_so_too(tmp_path: Path, s3_url: str) -> None:
    found = measured(str(tmp_path), str(GIVEN_MB), s3_url)
    assert found["held"]["events"] > 1.5 * GIVEN_MB * MB
    assert list(found["calls"]) == ON_S3
    assert not over(found)
