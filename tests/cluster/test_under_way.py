"""What was under way to one slot when its connection broke, and arrives late: never once its writer has gone on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from forebay.core.identity import SLOTS, slot_of
from forebay.errors import StoreUnavailableError
from forebay.online.cluster import Cluster
from forebay.online.progress import Cut
from tests.cluster.conftest import Steps, connected
from tests.infra.network import Network
from tests.infra.server import free_port
from tests.infra.valkey_cluster import NODES, ValkeyCluster
from tests.stores.online_world import assert_law, lane_of, publish, stretch
from tests.stores.test_under_way import CALLS, CUTS, ORDERS, WRITTEN, ZOE, assert_as_known, assert_published

HELD = slot_of("u1")


@pytest.fixture(scope="module")
def networked() -> Iterator[tuple[ValkeyCluster, Network]]:
    """A cluster, and what clients speak to its nodes through."""
    ports = [free_port() for _ in range(NODES)]
    with (
        ValkeyCluster(announced=ports) as cluster,
        Network(dict(zip(ports, (node.port for node in cluster.nodes), strict=True))) as network,
    ):
        yield cluster, network


@pytest.fixture
def network(networked: tuple[ValkeyCluster, Network]) -> Network:
    """What the client of these tests speaks through."""
    return networked[1]


@pytest.fixture
def client(networked: tuple[ValkeyCluster, Network]) -> Iterator[Cluster]:
    """A client whose connections may break with something on its way."""
    with connected(networked[0]) as one:
        yield one


@pytest.mark.parametrize(
    "step", [1, SLOTS + HELD + 1, SLOTS + HELD + 2, 2 * SLOTS + 1, 4 * SLOTS + 1, 4 * SLOTS + HELD + 2, 9999]
)
@pytest.mark.parametrize("held", CALLS)
def test_whenever_it_arrives_it_is_as_if_it_had_arrived_at_once_or_never(
    client: Cluster, namespace: str, network: Network, steps: Steps, eager: None, held: str, step: int
) -> None:
    """The repetition arms each slot, then voids what is under way to it, looks at two views, then commits.

    slot u1   ├ arm ┤ ├ ▼ void ▼ ┤ ├▼ look ┤ ├ look ┤ ├▼ commit ▼┤ …   ▼          (▼: it is delivered)
    """
    lane, call = lane_of(client, namespace), CALLS[held]
    lane.commit([stretch(ORDERS[:10])])
    network.hold(b"MULTI", held.encode(), b"{%02d}" % HELD)
    with pytest.raises(StoreUnavailableError, match="closed the connection"):
        call(lane)

    def deliver(number: int) -> None:
        if number == step:
            assert network.deliver() == 1

    steps.clear()
    steps.before = deliver
    call(lane)
    lane.commit([stretch(ORDERS)])
    assert steps.count >= 5 * SLOTS
    steps.clear()
    assert network.deliver() == (step == 9999)
    assert_as_known(client, namespace, lane)
    assert_law(client, namespace, ORDERS)
    lane.close()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("held", WRITTEN)
def test_what_a_publication_has_written_again_changes_nothing_when_it_arrives(
    client: Cluster, namespace: str, network: Network, eager: None, held: bytes, late: bool
) -> None:
    """At the end of the publication, which went on without it, or late: after another one."""
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS)])
    publish(client, namespace, [ZOE], CUTS[0])
    network.hold(b"MULTI", held)
    publish(client, namespace, ORDERS, CUTS[1])
    assert_published(client, namespace, Cut(CUTS[1], 2))
    if late:
        publish(client, namespace, ORDERS, CUTS[2])
    assert network.deliver() == 1
    assert_published(client, namespace, Cut(CUTS[1 + late], 2 + late))
    lane.close()
