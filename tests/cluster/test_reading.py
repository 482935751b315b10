"""Reading from a cluster: one write per node, one MGET per slot, and what happens where a slot is not where it was."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from forebay.core.identity import SLOTS, slot_of
from forebay.errors import ConfigError, StoreUnavailableError
from forebay.instants import MINUTE_US
from forebay.online import cluster as cluster_module
from forebay.online.cluster import Cluster, hash_slot
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.publish import publish_rows
from forebay.online.read import OnlineReader
from forebay.settings import Settings
from tests.infra.valkey_cluster import Node, ValkeyCluster
from tests.stores.online_world import MIDNIGHT_US, VIEWS, Order, assert_law, lane_of, publish, stretch
from tests.stores.test_online_publish import WEATHER, weather

ORDERS = [Order(f"u{i % 40}", MIDNIGHT_US + i * MINUTE_US, i, i) for i in range(120)]


class Sends:
    """What plain connections of redis-py sent and read, in their order: (what, port)."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[tuple[str, int]] = []
        send, read = redis.Connection.send_packed_command, redis.Connection.read_response

        def sent(connection: Any, *arguments: Any, **named: Any) -> None:
            self.seen.append(("send", connection.port))
            send(connection, *arguments, **named)

        def received(connection: Any, *arguments: Any, **named: Any) -> Any:
            self.seen.append(("read", connection.port))
            return read(connection, *arguments, **named)

        patch.setattr(redis.Connection, "send_packed_command", sent)
        patch.setattr(redis.Connection, "read_response", received)


def mgets(cluster: ValkeyCluster) -> int:
    """How many MGETs all nodes have had."""
    count = 0
    for node in cluster.primaries:
        with node.connect() as client:
            count += client.info("commandstats").get("cmdstat_mget", {"calls": 0})["calls"]
    return count


def test_a_read_is_one_write_per_node_with_one_mget_per_slot(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    publish(client, namespace, ORDERS, MIDNIGHT_US)
    publish_rows(client, namespace, WEATHER, weather([("u1", MIDNIGHT_US, 1, 2.0)]))
    entities = sorted({order.entity for order in ORDERS})
    keys = {key: [*entities, None, "nobody", "u1"] for key in (*VIEWS, WEATHER.key)}
    reader = OnlineReader(client, namespace)
    reader.read([*VIEWS.values(), WEATHER], keys, None, 0)  # connects
    before = mgets(valkey_cluster)
    with monkeypatch.context() as patch:
        sends = Sends(patch)
        found = reader.read([*VIEWS.values(), WEATHER], keys, None, 0)
    slots = {slot_of(entity) for entity in [*entities, "nobody"]}
    ports = {valkey_cluster.owner(hash_slot(f"{{{slot:02d}}}")).port for slot in slots}
    assert len(ports) == len(valkey_cluster.primaries)
    assert Counter(port for what, port in sends.seen if what == "send") == dict.fromkeys(ports, 1)
    assert [what for what, _ in sends.seen[: len(ports)]] == ["send"] * len(ports)  # then the replies are waited for
    assert mgets(valkey_cluster) - before == len(slots)
    assert {key: len(view.columns[0]) for key, view in found.views.items()} == dict.fromkeys(keys, len(entities) + 3)
    assert_law(client, namespace, ORDERS)


@pytest.fixture
def moving(valkey_cluster: ValkeyCluster) -> Iterator[tuple[int, Node]]:
    """The hash slot of u1, and a node that doesn't have it; it is moved back afterwards."""
    place = hash_slot(f"{{{slot_of('u1'):02d}}}")
    home = valkey_cluster.owner(place)
    yield place, next(node for node in valkey_cluster.primaries if node is not home)
    valkey_cluster.move([place], home)


def test_a_slot_that_was_moved_is_read_where_it_is(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, moving: tuple[int, Node]
) -> None:
    lane_of(client, namespace).commit([stretch(ORDERS)])
    assert_law(client, namespace, ORDERS)
    valkey_cluster.move_whole(*moving)
    assert_law(client, namespace, ORDERS)
    assert client.get(*Keys(namespace, apart=True).progress("recent@1", [slot_of("u1")])) is not None


def test_keys_that_are_on_two_nodes_are_waited_for_and_then_it_is_said(
    valkey_cluster: ValkeyCluster,
    client: Cluster,
    namespace: str,
    moving: tuple[int, Node],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An MGET of a slot is of one instant, so it is not answered from two nodes."""
    lane_of(client, namespace).commit([stretch(ORDERS)])
    valkey_cluster.begin_move(*moving)
    valkey_cluster.move_keys(*moving, Keys(namespace, apart=True).progress("recent@1", [slot_of("u1")]))
    with monkeypatch.context() as patch:
        patch.setattr(cluster_module, "TRIES", 2)
        with pytest.raises(StoreUnavailableError, match=r"does not serve a slot at the moment .* are on two nodes"):
            OnlineReader(client, namespace).read([*VIEWS.values()], {key: ["u1"] for key in VIEWS}, None, 0)
    moved = threading.Timer(0.1, valkey_cluster.end_move, moving)
    moved.start()
    assert_law(client, namespace, ORDERS)
    moved.join()


def test_any_node_stands_for_all_and_what_is_of_one_server_only_is_refused(valkey_cluster: ValkeyCluster) -> None:
    for node in valkey_cluster.primaries:
        with connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": node.url})) as client:
            assert isinstance(client, Cluster)
            assert len(client.primaries()) == len(valkey_cluster.primaries)
    with pytest.raises(
        ConfigError, match="a node of a Redis Cluster, and FOREBAY_ONLINE_URL names a unix socket of it"
    ):
        connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": valkey_cluster.primaries[0].unix_url}))


def test_every_node_is_asked_under_the_same_password(own_cluster: ValkeyCluster, namespace: str) -> None:
    def guard(password: str, known: str = "") -> None:
        for node in own_cluster.nodes:
            with redis.Redis(port=node.port, password=known or None) as one:
                one.config_set("requirepass", password)

    guard("hunter2")
    try:
        url = own_cluster.url.replace("redis://", "redis://:hunter2@")
        with connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": url})) as client:
            lane_of(client, namespace).commit([stretch(ORDERS)])
            assert_law(client, namespace, ORDERS)
        with pytest.raises(StoreUnavailableError, match="refused the user and password"):
            connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": url.replace("hunter2", "wrong")}))
    finally:
        guard("", "hunter2")


def test_slots_are_spread_over_the_nodes_by_their_tag(valkey_cluster: ValkeyCluster, namespace: str) -> None:
    keys = Keys(namespace, apart=True)

    def tags(names: Sequence[str]) -> set[int]:
        return {hash_slot(name) for name in names}

    for slot in range(SLOTS):
        names = [*keys.progress("v@1", [slot]), keys.publisher("v@1", slot), keys.fence(slot, "shop")]
        assert tags(names) == {hash_slot(f"{{{slot:02d}}}")}
    owners = Counter(valkey_cluster.owner(hash_slot(f"{{{slot:02d}}}")).port for slot in range(SLOTS))
    assert min(owners.values()) > SLOTS // 6
