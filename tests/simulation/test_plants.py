"""The simulation is sharp: with any of these bugs planted, one of its first seeds fails."""

from __future__ import annotations

import pytest

from tests.infra.valkey import Valkey
from tests.simulation.plants import PLANTS, Plant
from tests.simulation.running import run_seed

SEEDS = 100


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_found(valkey: Valkey, monkeypatch: pytest.MonkeyPatch, plant: Plant) -> None:
    for seed in range(SEEDS):
        with monkeypatch.context() as patch:
            plant(patch)
            error, _ = run_seed(seed, valkey.unix_url, patch)
        if error is not None:
            assert isinstance(error, AssertionError), f"a law should find it, not {error!r}"
            return
    pytest.fail(f"{SEEDS} seeds stayed green although {plant.__doc__}")
