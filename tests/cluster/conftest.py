"""What the tests of a cluster may ask for: fixtures only. Tests of one server that are named here run on it too."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forebay.online.cluster import Cluster
from forebay.online.connection import connect_online
from forebay.settings import Settings
from tests.infra.valkey_cluster import ValkeyCluster
from tests.stores.conftest import Steps, eager, steps, transactions

__all__ = ["Steps", "eager", "steps", "transactions"]


def connected(cluster: ValkeyCluster) -> Cluster:
    """A client of a cluster, by any of its nodes."""
    client = connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": cluster.url}))
    assert isinstance(client, Cluster)
    return client


@pytest.fixture
def client(valkey_cluster: ValkeyCluster) -> Iterator[Cluster]:
    """A client of the cluster of all tests."""
    with connected(valkey_cluster) as one:
        yield one


@pytest.fixture
def online_url(valkey_cluster: ValkeyCluster) -> str:
    """Where the cluster of all tests listens: at any of its nodes."""
    return valkey_cluster.url


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[ValkeyCluster]:
    """The cluster of those tests that kill nodes, which keep each write through it: leave all of them running."""
    with ValkeyCluster(durable=True) as cluster:
        yield cluster
