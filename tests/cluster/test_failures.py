"""A cluster whose nodes die and whose slots move while a lane writes: all is applied once, or said to be lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from forebay.core.identity import slot_of
from forebay.deploy.unstreamed import _mark
from forebay.errors import FencedError, StoreError, StoreMovingError, StoreUnavailableError
from forebay.instants import MINUTE_US
from forebay.online import cluster as cluster_module
from forebay.online.cluster import Cluster, hash_slot
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from streaming.retry import Patience
from tests.cluster.conftest import Steps, connected
from tests.infra.valkey_cluster import Node, ValkeyCluster
from tests.stores.online_world import MIDNIGHT_US, Order, assert_law, ever, lane_of, recent, stretch

ORDERS = [Order(f"u{i % 30}", MIDNIGHT_US + i * 7 * MINUTE_US, i, i) for i in range(120)]
PATIENCE_S = 20.0
T = TypeVar("T")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits long for a node."""
    monkeypatch.setattr(cluster_module, "TRIES", 3)


def patiently(call: Callable[[], T]) -> T:
    """What the flow's patience does: the same call again while a store cannot be reached."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except StoreUnavailableError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def place_of(entity: str) -> int:
    return hash_slot(f"{{{slot_of(entity):02d}}}")


@pytest.fixture
def moving(valkey_cluster: ValkeyCluster) -> Iterator[tuple[int, Node]]:
    """The hash slot of u1, and a node that doesn't have it; it is moved back afterwards."""
    home = valkey_cluster.owner(place_of("u1"))
    yield place_of("u1"), next(node for node in valkey_cluster.primaries if node is not home)
    valkey_cluster.move([place_of("u1")], home)


@pytest.mark.parametrize("step", [1, 30, 64, 66])
@pytest.mark.parametrize("how", ["whole", "keys"])
def test_a_slot_that_moves_within_a_commit_gets_it_once(
    valkey_cluster: ValkeyCluster,
    client: Cluster,
    namespace: str,
    steps: Steps,
    eager: None,
    moving: tuple[int, Node],
    how: str,
    step: int,
) -> None:
    lane = patiently(lambda: lane_of(client, namespace))
    lane.commit([stretch(ORDERS[:40])])

    def move(number: int) -> None:
        if number == step:
            steps.clear()
            valkey_cluster.move_whole(*moving) if how == "whole" else valkey_cluster.move([moving[0]], moving[1])

    steps.clear()
    steps.before = move
    patiently(lambda: lane.commit([stretch(ORDERS[40:80])]))
    patiently(lambda: lane.commit([stretch(ORDERS[80:])]))
    assert_law(client, namespace, ORDERS)
    lane.close()


def test_a_slot_whose_keys_are_on_two_nodes_is_written_once_they_are_on_one(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, moving: tuple[int, Node]
) -> None:
    lane = patiently(lambda: lane_of(client, namespace))
    lane.commit([stretch(ORDERS[:40])])
    valkey_cluster.begin_move(*moving)
    valkey_cluster.move_keys(*moving, [*Keys(namespace, apart=True).progress(recent.key, [slot_of("u1")])])
    try:
        for _ in range(2):
            with pytest.raises(StoreMovingError, match=r"does not serve a slot at the moment .* are on two nodes"):
                lane.commit([stretch(ORDERS[40:])])
    finally:
        valkey_cluster.end_move(*moving)
    patiently(lambda: lane.commit([stretch(ORDERS[40:])]))
    assert_law(client, namespace, ORDERS)
    lane.close()


def test_a_slot_that_is_moved_for_long_ends_no_flow(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, moving: tuple[int, Node]
) -> None:
    """What is asked for is on its way: the flow's patience is not used up (tests/streaming/test_pressure.py)."""
    lane = patiently(lambda: lane_of(client, namespace))
    lane.commit([stretch(ORDERS[:40])])
    valkey_cluster.begin_move(*moving)
    valkey_cluster.move_keys(*moving, [*Keys(namespace, apart=True).progress(recent.key, [slot_of("u1")])])
    told: list[BaseException] = []

    def retried(error: BaseException) -> None:
        told.append(error)
        if len(told) == 4:
            valkey_cluster.end_move(*moving)

    Patience(10.0, retried)(lambda: lane.commit([stretch(ORDERS[40:])]))
    assert len(told) >= 4
    assert all(isinstance(error, StoreMovingError) for error in told[:4])
    assert_law(client, namespace, ORDERS)
    lane.close()


def test_a_new_view_is_marked_in_a_slot_that_was_moved(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, moving: tuple[int, Node]
) -> None:
    assert _mark(client, Keys.of(client, namespace), recent.key, {"0": 7})
    valkey_cluster.move_whole(*moving)
    assert _mark(client, Keys.of(client, namespace), ever.key, {"0": 7})
    found = client.mget(Keys(namespace, apart=True).progress(ever.key, range(64)))
    assert {Progress.decode(blob).targets["0"] for blob in found} == {7}


def test_a_flow_that_was_replaced_while_its_slot_moved_writes_nothing(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, moving: tuple[int, Node]
) -> None:
    """The old node forgets the tokens that were watched there; the new one has those of the heir."""
    first = patiently(lambda: lane_of(client, namespace))
    first.commit([stretch(ORDERS[:40])])
    valkey_cluster.move_whole(*moving)
    heir = patiently(lambda: lane_of(client, namespace))
    heir.commit([stretch(ORDERS[40:80])])
    valkey_cluster.move_whole(moving[0], next(node for node in valkey_cluster.primaries if node is not moving[1]))
    with pytest.raises(FencedError):
        patiently(lambda: first.commit([stretch(ORDERS[40:])]))
    patiently(lambda: heir.commit([stretch(ORDERS[80:])]))
    assert_law(client, namespace, ORDERS)
    first.close()
    heir.close()


def test_a_node_that_dies_within_a_commit_gets_it_once_when_it_is_back(
    own_cluster: ValkeyCluster, namespace: str, steps: Steps
) -> None:
    node = own_cluster.owner(place_of("u1"))
    with connected(own_cluster) as client:
        lane = patiently(lambda: lane_of(client, namespace))
        lane.commit([stretch(ORDERS[:40])])

        def die(number: int) -> None:
            if number == 40:
                node.kill()

        steps.clear()
        steps.before = die
        for _ in range(2):
            with pytest.raises(StoreUnavailableError):
                lane.commit([stretch(ORDERS[40:])])
        with pytest.raises(StoreUnavailableError, match=r"Redis at 127\.0\.0\.1"):
            assert_law(client, namespace, ORDERS)
        node.restart()
        patiently(lambda: lane.commit([stretch(ORDERS[40:])]))
        steps.clear()
        own_cluster.await_agreed()
        assert_law(client, namespace, ORDERS)
        lane.close()


def test_a_replica_takes_over_in_the_place_of_a_node_that_is_gone(namespace: str) -> None:
    with ValkeyCluster(replicas=True) as cluster, connected(cluster) as client:
        lane = patiently(lambda: lane_of(client, namespace))
        lane.commit([stretch(ORDERS[:40])])
        node = cluster.owner(place_of("u1"))
        with node.connect() as one:
            assert one.wait(1, 5000) == 1
        node.kill()
        patiently(lambda: lane.commit([stretch(ORDERS[40:])]))
        assert_law(client, namespace, ORDERS)
        lane.close()


def test_a_node_that_comes_back_without_its_newest_writes_is_found_out(
    own_cluster: ValkeyCluster, namespace: str
) -> None:
    node = own_cluster.owner(place_of("u1"))
    with connected(own_cluster) as client:
        lane = patiently(lambda: lane_of(client, namespace))
        lane.commit([stretch(ORDERS[:40])])
        older = node.copy()
        lane.commit([stretch(ORDERS[40:80])])
        node.kill()
        node.replace(older)
        node.restart()
        own_cluster.await_agreed()
        with pytest.raises(StoreError, match=r"lost writes of view .* Start the stream again: it rewinds"):
            patiently(lambda: lane.commit([stretch(ORDERS[80:])]))
        lane.close()
        heir = patiently(lambda: lane_of(client, namespace))
        assert heir.next_offset(recent.key, "0") == 40
        heir.commit([stretch(ORDERS[40:])])
        assert_law(client, namespace, ORDERS)
        heir.close()
