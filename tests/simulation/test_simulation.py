"""Two hundred seeds: whatever dies, sleeps, is lost or comes late, both stores say what the oracle says."""

from __future__ import annotations

import gc

import pytest

from tests.infra.valkey import Valkey
from tests.simulation.running import REPEAT, run_seed

SEEDS, BATCH = 200, 10


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_whatever_happens_nothing_is_lost_doubled_or_goes_back(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    gc.collect()  # flows are in cycles, and what Arrow holds of them is no reason for Python to look: ten gigabytes
    for seed in range(first, first + BATCH):
        on_delta = seed % (2 * BATCH) == 0
        with monkeypatch.context() as patch:
            error, run = run_seed(seed, valkey.unix_url, patch, delta=on_delta)
        if error is not None:
            told = "\n".join(run.said[-12:])
            pytest.fail(f"seed {seed}: {error!r}\n{told}\nRepeat it: {REPEAT} {seed}{' --delta' if on_delta else ''}")
