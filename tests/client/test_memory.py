"""What memory is given is kept, by an archive that is several times larger."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from forebay.client.memory import MB

GIVEN_MB = 140


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that a process held")
def test_a_training_set_over_a_larger_archive_stays_within_the_memory_it_is_given(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.client.memory_run", str(tmp_path), str(GIVEN_MB)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["same"]
    assert found["buckets"] > 10
    assert found["needed"] > 3 * GIVEN_MB * MB
    assert found["peak"] <= found["given"] < found["whole"]
