"""What the tests of the stream may ask for: a world of their own, and brokers, of which one suite runs on two kinds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.infra.kafka import Broker
from tests.infra.noida import Noida
from tests.infra.tansu import Tansu
from tests.streaming.world import World


@pytest.fixture
def world(home: Path, online_url: str, namespace: str) -> World:
    """An empty log, on a folder and the tests' Valkey."""
    return World.make(home, online_url, namespace)


@pytest.fixture(scope="session")
def brokers() -> Iterator[dict[str, Broker]]:
    """One broker of each kind for all tests: stay within your topics, and don't kill it."""
    with ExitStack() as stack:
        yield {"tansu": stack.enter_context(Tansu()), "noida": stack.enter_context(Noida())}


@pytest.fixture(params=["tansu", "noida"])
def broker(request: pytest.FixtureRequest, brokers: dict[str, Broker]) -> Broker:
    """A Kafka broker: the test runs on each kind."""
    return brokers[request.param]


@pytest.fixture
def noida(brokers: dict[str, Broker]) -> Broker:
    """The broker that can add partitions and delete records."""
    return brokers["noida"]
