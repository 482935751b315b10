"""A run of the torture takes a quarter of an hour and is for `make torture`; that it can be begun is tested here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.torture.hits import Hits
from tests.torture.torture import KILLS_PER_HIT, Torture

KINDS = ["terminate", "pause", "second", "valkey", "lose", "s3", "broker", "streams"]


@pytest.mark.parametrize("cluster", [False, True])
def test_a_run_kills_as_often_as_it_is_told_and_hits_all_else_too(cluster: bool) -> None:
    hits: Any = Hits
    script = [hit.__name__ for hit in Torture(7, 20, 0, print, cluster=cluster)._script(hits)]
    assert script.count("kill") == 20
    assert script.count("s3_long") == 1
    for kind in [*KINDS, *(["move"] if cluster else [])]:
        assert script.count(kind) == 20 // KILLS_PER_HIT
    assert script != sorted(script)
    assert script == [hit.__name__ for hit in Torture(7, 20, 0, print, cluster=cluster)._script(hits)]
