"""Worlds that several tests of the client share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.on_demand_views import Computed, event
from tests.infra.valkey import Valkey


@pytest.fixture
def computed(valkey: Valkey, tmp_path: Path, namespace: str) -> Iterator[Computed]:
    made = Computed(valkey.url, tmp_path, namespace)
    made.stream(made.archive([event("ann", 700, 3), event("ann", 710, 4), event("bob", 705, 5)]))
    yield made
    made.close()
