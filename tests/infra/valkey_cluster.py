"""A cluster of Valkey servers of the tests' own: three primaries on 127.0.0.1, each with a third of the hash slots.

Invariants: every node listens on 127.0.0.1 alone; a node that is killed and started again comes back on its port as
the node that it was; hash slots may be moved from node to node while they are read and written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Self

import redis

from tests.infra.server import free_port
from tests.infra.valkey import Valkey

HASH_SLOTS = 16_384
NODES = 3
NODE_TIMEOUT_MS = 1_500
AGREE_TIMEOUT_S = 30.0
POLL_S = 0.02
MOVED_AT_ONCE = 100
"""Keys that one MIGRATE takes along."""


class Node(Valkey):
    """One node of a cluster, before it has met the others."""

    def __init__(self, *, durable: bool, announced: int | None = None) -> None:
        self.bus_port = free_port()  # by default the port + 10000, which a client may have been given
        settings = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        settings += ["--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"]
        settings += ["--repl-diskless-sync-delay", "0"]
        if announced is not None:
            settings += ["--cluster-announce-port", str(announced)]
        self.announced = announced
        super().__init__(*settings, durable=durable)


class ValkeyCluster:
    """Three primaries, and a replica of each with ``replicas``; as a context manager it runs within the block.

    Where they are ``announced`` at other ports, somebody passes on what comes there.
    """

    def __init__(self, *, durable: bool = False, replicas: bool = False, announced: Sequence[int] = ()) -> None:
        ports = [*announced, *[None] * (NODES * (1 + replicas) - len(announced))]
        self.nodes = [Node(durable=durable, announced=port) for port in ports]
        self.primaries = self.nodes[:NODES]
        for number, node in enumerate(self.nodes):
            with node.connect() as client:
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                if node in self.primaries:
                    edges = [HASH_SLOTS * n // NODES for n in (number, number + 1)]
                    client.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[0], edges[1] - 1)
        for other in self.nodes[1:]:
            self._cluster(self.nodes[0], "MEET", "127.0.0.1", other.port, other.bus_port)
        self.await_agreed()
        for primary, replica in zip(self.primaries, self.nodes[NODES:], strict=False):
            with replica.connect() as client:
                client.execute_command("CLUSTER", "REPLICATE", self.id_of(primary))
        if replicas:
            await_so(lambda: all(self._replicated(node) for node in self.nodes[NODES:]), "replicas did not follow")

    @property
    def url(self) -> str:
        """Any node stands for all."""
        return self.primaries[0].url

    def connect(self) -> redis.RedisCluster:
        """A plain redis-py client of the cluster, for looking at what the code under test wrote."""
        return redis.RedisCluster.from_url(self.url)

    def id_of(self, node: Node) -> str:
        """What the cluster calls a node."""
        with node.connect() as client:
            found: Any = client.execute_command("CLUSTER", "MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    def replica_of(self, primary: Node) -> Node:
        """The replica that a primary was given."""
        return self.nodes[NODES + self.primaries.index(primary)]

    def owner(self, hash_slot: int) -> Node:
        """The node that has a hash slot."""
        return self.owners([hash_slot])[0]

    def owners(self, hash_slots: Sequence[int]) -> list[Node]:
        """The nodes that have some hash slots, as the first node that runs sees it."""
        node = next(node for node in self.nodes if node.server.running)
        with node.connect() as client:
            ranges = [
                (first, last, primary[1]) for first, last, primary, *_ in client.execute_command("CLUSTER", "SLOTS")
            ]
        ports = [next(port for first, last, port in ranges if first <= one <= last) for one in hash_slots]
        return [next(node for node in self.nodes if node.port == port) for port in ports]

    def begin_move(self, hash_slot: int, to: Node) -> None:
        """Announce that a hash slot is to move: what is not there any more is asked for at the other node."""
        source = self.owner(hash_slot)
        self._cluster(to, "SETSLOT", hash_slot, "IMPORTING", self.id_of(source))
        self._cluster(source, "SETSLOT", hash_slot, "MIGRATING", self.id_of(to))

    def move_keys(self, hash_slot: int, to: Node, names: Sequence[str] = (), count: int = MOVED_AT_ONCE) -> int:
        """Move some keys of a hash slot of which the move has begun, or any; how many went."""
        with self.owner(hash_slot).connect() as client:
            found = names or client.execute_command("CLUSTER", "GETKEYSINSLOT", hash_slot, count)
            if found:
                client.execute_command("MIGRATE", "127.0.0.1", to.port, "", 0, 5000, "KEYS", *found)
        return len(found)

    def end_move(self, hash_slot: int, to: Node) -> None:
        """Give a hash slot, all of whose keys were moved, to the node."""
        while self.move_keys(hash_slot, to):
            pass
        name = self.id_of(to)
        for node in (to, *(one for one in self.primaries if one is not to and one.server.running)):
            self._cluster(node, "SETSLOT", hash_slot, "NODE", name)
        self._await_settled()

    def move(self, hash_slots: Sequence[int], to: Node) -> None:
        """Move hash slots to a node, key by key, as an operator's tool does."""
        for hash_slot in hash_slots:
            if self.owner(hash_slot) is not to:
                self.begin_move(hash_slot, to)
                self.end_move(hash_slot, to)

    def move_whole(self, hash_slot: int, to: Node) -> None:
        """Move a hash slot in one go, as Valkey 9 can."""
        self._cluster(self.owner(hash_slot), "MIGRATESLOTS", "SLOTSRANGE", hash_slot, hash_slot, "NODE", self.id_of(to))
        await_so(lambda: self.owner(hash_slot) is to, f"hash slot {hash_slot} was not moved")
        self._await_settled()

    def await_agreed(self) -> None:
        """Return once every node that runs knows all of them, and each hash slot is served."""
        await_so(lambda: all(self._agrees(node) for node in self.nodes), "the cluster did not form")

    def _await_settled(self) -> None:
        """Return once all know the same: two moves at the heels of each other may leave a hash slot to nobody."""

        def known() -> int:
            said = set()
            for node in self.nodes:
                if node.server.running:
                    with node.connect() as client:
                        epoch = client.execute_command("CLUSTER INFO")["cluster_current_epoch"]
                        slots = client.execute_command("CLUSTER", "SLOTS")
                    said.add((epoch, tuple((first, last, primary[1]) for first, last, primary, *_ in slots)))
            return len(said)

        await_so(lambda: known() == 1, "the nodes do not agree")

    def close(self) -> None:
        """End all nodes and remove their data."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _agrees(self, node: Node) -> bool:
        if not node.server.running:
            return True
        with node.connect() as client:
            found: Any = client.execute_command("CLUSTER INFO")
        return found["cluster_state"] == "ok" and int(found["cluster_known_nodes"]) == len(self.nodes)

    def _replicated(self, node: Node) -> bool:
        with node.connect() as client:
            found = client.info("replication")
        return found["role"] == "slave" and found["master_link_status"] == "up"

    def _cluster(self, node: Node, *command: object) -> None:
        with node.connect() as client:
            client.execute_command("CLUSTER", *command)


def await_so(is_so: Callable[[], bool], otherwise: str) -> None:
    """Return once something is so."""
    deadline = time.monotonic() + AGREE_TIMEOUT_S
    while not is_so():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise} within {AGREE_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
