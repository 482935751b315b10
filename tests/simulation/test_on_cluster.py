"""The same runs on a cluster: what dies may die between two slots, slots are moved, and nodes come back empty."""

from __future__ import annotations

import pytest

from tests.infra.valkey_cluster import ValkeyCluster
from tests.simulation.running import REPEAT, run_seed

SEEDS = (4, 9, 12, 13, 18, 21)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_between_two_slots_nothing_is_lost_doubled_or_goes_back(
    valkey_cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    with monkeypatch.context() as patch:
        error, run = run_seed(seed, valkey_cluster.url, patch, cluster=valkey_cluster)
    if error is not None:
        told = "\n".join(run.said[-12:])
        pytest.fail(f"seed {seed}: {error!r}\n{told}\nRepeat it: {REPEAT} {seed} --cluster")
