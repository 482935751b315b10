"""Running one seed from the beginning to the end.

Lives here: what a run needs around it. A run that fails gives its error back with what was said, so that whoever asked
can print the seed and the command that repeats it.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from tests.infra.valkey_cluster import ValkeyCluster
from tests.simulation.ending import finish
from tests.simulation.simulation import Simulation

REPEAT = "python -m tests.simulation"


def run_seed(
    seed: int,
    online_url: str,
    patch: pytest.MonkeyPatch,
    *,
    delta: bool = False,
    cluster: ValkeyCluster | None = None,
) -> tuple[BaseException | None, Simulation]:
    """Run one seed; its error, if it failed, and the run."""
    with tempfile.TemporaryDirectory(prefix="forebay-") as home:
        run = Simulation(seed, Path(home), online_url, patch, delta=delta, cluster=cluster)
        try:
            run.run()
            finish(run)
        except Exception as error:  # noqa: BLE001  whatever it is, it is told with its seed
            with suppress(Exception):
                run.said.append(run.expected.told())
            return error, run
        finally:
            run.close()
    return None, run
