"""A short torture in each run of the tests; `make torture` is the long one."""

from __future__ import annotations

import pytest

from tests.torture.torture import Torture, repeat

SEED, KILLS = 2, 3


@pytest.mark.timeout(600)
def test_whatever_is_hit_nothing_is_lost_doubled_or_goes_back() -> None:
    said: list[str] = []
    torture = Torture(SEED, KILLS, 0, said.append)
    try:
        torture.run()
    except AssertionError as error:
        told = "\n".join(said)
        pytest.fail(f"{error}\n{told}\nRepeat it: {repeat(SEED, KILLS)}")
    assert torture.counts["killed while working"] >= KILLS
