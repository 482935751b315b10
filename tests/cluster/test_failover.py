"""A replica takes over that had not got the newest writes: what was acknowledged is lost, and nobody was told.

primary   commit 1   commit 2   commit 3 ✗
replica   commit 1    (cut off)          takes over: commit 1         the flow finds out, ends, and fills it in
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from forebay.core.identity import LANES, SLOTS
from forebay.errors import StoreError
from forebay.offline.tiles_table import app_id
from forebay.online.cluster import hash_slot
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.online.publish import publish_rows
from tests.infra.valkey_cluster import Node, ValkeyCluster, await_so
from tests.stores.test_online_publish import WEATHER
from tests.stores.test_online_publish_work import table
from tests.streaming.world import VIEWS, WAIT_S, World, await_that, check, lines

ROWS = 2_000


@pytest.fixture
def replicated() -> Iterator[ValkeyCluster]:
    """Three primaries with a replica each."""
    with ValkeyCluster(replicas=True) as cluster:
        yield cluster


@pytest.fixture
def world(home: Path, replicated: ValkeyCluster, namespace: str) -> Iterator[World]:
    made = World.make(home, replicated.url, namespace)
    yield made
    made.online.close()


def applied_at(node: Node, world: World, slot: int) -> int:
    """How far a node itself has applied the log in one of its slots, whoever serves that slot."""
    keys = Keys(world.settings.namespace, apart=True)
    with node.connect() as client:
        client.execute_command("READONLY")
        blob = client.get(keys.progress(VIEWS[0].key, [slot])[0])
    return sum(one.next_offset for one in Progress.decode(blob).partitions.values()) if isinstance(blob, bytes) else 0


def streamed_to(partition: str, world: World) -> int:
    """How far `streamed/` has a partition: what it has, the online store had acknowledged."""
    found = [world.offline.streamed(view).positions() for view in VIEWS]
    return min(known.get(app_id(lane, partition), 0) for known in found for lane in range(LANES))


def cut_off(primary: Node, replica: Node) -> None:
    """Let a replica get nothing more: it sleeps, and its link is gone before it wakes up."""
    os.kill(replica.server.pid, signal.SIGSTOP)
    with primary.connect() as client:
        client.execute_command("CLIENT", "KILL", "TYPE", "replica")


def test_a_replica_that_lags_and_takes_over_is_found_out_declared_and_filled(
    replicated: ValkeyCluster, world: World
) -> None:
    primary = replicated.primaries[1]  # the first is the one that the URL names
    slot, place = next(
        (slot, place) for slot in range(SLOTS) if replicated.owner(place := hash_slot(f"{{{slot:02d}}}")) is primary
    )
    replica = replicated.replica_of(primary)
    world.append("a.ndjson", lines(1, 300))
    with world.flow() as flow:
        first = len(world.log["a.ndjson"])
        await_that(lambda: world.applied() == first, flow)
        await_that(lambda: applied_at(replica, world, slot) == first, flow)
        cut_off(primary, replica)
        world.append("b.ndjson", lines(2, 300, first=300))
        both = first + len(world.log["b.ndjson"])
        await_that(lambda: world.applied() == both, flow)
        await_that(lambda: streamed_to("b.ndjson", world) == len(world.log["b.ndjson"]), flow)
        primary.kill()
        os.kill(replica.server.pid, signal.SIGCONT)
        await_so(lambda: replicated.owner(place) is replica, "the replica did not take over")
        assert applied_at(replica, world, slot) == first, "what was acknowledged is gone"
        world.append("a.ndjson", lines(3, 100, first=600))
        errors = flow.communicate(timeout=WAIT_S)[1]
    assert (flow.returncode, "lost writes of view" in errors) == (2, True), errors
    said = world.run()
    assert {loss["view"] for loss in said["losses"]} == {view.key for view in VIEWS}
    assert not any(loss["everything"] for loss in said["losses"])
    check(world)
    assert world.run()["losses"] == []


def test_a_replica_that_lacks_a_part_of_a_publication_ends_it(
    replicated: ValkeyCluster, world: World, namespace: str
) -> None:
    """
    publisher   slot 0   slot 1 ✗   slot 2 …              fails: what it wrote to slot 1 is gone
    primary     ├────────────────┤ dead
    replica     ├──────┤ (cut off)   takes over
    """
    primary, client = replicated.primaries[1], world.online
    replica, before = replicated.replica_of(primary), stored(primary)
    published = partial(publish_rows, client, namespace, WEATHER, table(ROWS), rate=ROWS // 10)
    with ThreadPoolExecutor(1) as pool:
        publication = pool.submit(published)
        await_so(lambda: stored(primary) - before > ROWS // 20, "nothing is published")
        cut_off(primary, replica)
        cut = stored(primary)
        await_so(lambda: stored(primary) - cut > ROWS // 20, "nothing more is published")
        primary.kill()
        os.kill(replica.server.pid, signal.SIGCONT)
        with pytest.raises(StoreError, match="lost what it had acknowledged of the publication of view 'weather@1'"):
            publication.result()
    again = publish_rows(client, namespace, WEATHER, table(ROWS), rate=0)
    keys = Keys(namespace)
    found = client.mget([keys.row(WEATHER.key, f"p{n:06d}") for n in range(ROWS)])
    assert (again.rows, sum(blob is None for blob in found)) == (ROWS, 0)


def stored(node: Node) -> int:
    """How many keys a node has."""
    with node.connect() as client:
        return int(client.dbsize())
