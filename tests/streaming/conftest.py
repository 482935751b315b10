"""Brokers for the tests of Kafka: one suite, on two implementations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.infra.kafka import Broker
from tests.infra.noida import Noida
from tests.infra.tansu import Tansu


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
