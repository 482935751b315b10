"""The demo's path on a few days of flights: the same commands, its own home, its own embedded Valkey.

Nothing is replaced: Dagster backfills, Bytewax streams, Redis answers, Delta Lake remembers, and the law must hold.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
DAYS = ("--history-days", "7", "--days", "3")
TIMEOUT_S = 900
"""A minute on an idle machine; servers of other tests may share this one."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A FOREBAY_HOME whose Valkey is stopped afterwards."""
    folder = tmp_path_factory.mktemp("demo") / "home"
    yield folder
    forebay(folder, "down")


def forebay(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`forebay …`, with everything embedded under `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOREBAY_", "DAGSTER_", "AWS_"))}
    return subprocess.run(
        [sys.executable, "-m", "forebay.cli", *arguments],
        cwd=CHECKOUT,
        env=kept | {"FOREBAY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


@pytest.mark.timeout(TIMEOUT_S)
def test_the_demo_proves_the_law_on_a_few_days(home: Path) -> None:
    done = forebay(home, "demo", *DAYS)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((home / "demo.json").read_text())
    assert found["mismatches"] == 0
    assert found["probes_across_seam"] >= 2_000
    assert found["probes"] - found["probes_across_seam"] >= 2_000
    assert found["training_rows"] > 8_000
    assert 0.5 < found["auc_stale"] < found["auc_fresh"] < 1.0
