"""The whole of it on a cluster: apply, history, backfill, publication, stream, and online equals training; real
processes that are killed, nodes that die or come back empty, and slots that are moved while the flow runs.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay import FeatureStore, WindowedView
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.identity import SLOTS
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, HOUR_US, day_us, moment
from forebay.language.definitions import Definitions
from forebay.offline.loading import load
from forebay.online.cluster import hash_slot
from forebay.online.keys import Keys
from forebay.online.progress import Cut
from tests.infra.valkey_cluster import ValkeyCluster
from tests.streaming.world import DAY, START_US, VIEWS, World, await_that, check, end, lines, orders

MERCHANTS = [f"m{n}" for n in range(20)]


@pytest.fixture
def world(home: Path, own_cluster: ValkeyCluster, namespace: str) -> Iterator[World]:
    """An empty log, on a folder and a cluster whose nodes may die."""
    made = World.make(home, own_cluster.url, namespace)
    yield made
    made.online.close()


def publish(world: World, end_us: int) -> None:
    """Backfill what is archived before an instant, and publish it."""
    for view in VIEWS:
        fold_dates(world.offline, view, orders.history_start_us, end_us)
        assert publish_view(world.online, world.settings.namespace, world.offline, view).cut_us is not None


def cuts(world: World, view: WindowedView) -> set[int]:
    blobs = world.online.mget(Keys(world.settings.namespace).slots("cut", view.key, range(SLOTS)))
    return {Cut.decode(blob).cut_us for blob in blobs}


def test_from_history_to_serving_online_equals_training(world: World) -> None:
    """
    history   ├─ loaded, folded, published ─┤ cut: midnight
    log                                         ├─ streamed by two processes ─┤ asked
    """
    history = world.home / "history.ndjson"
    history.write_bytes(b"".join(line + b"\n" for line in lines(9, 600, first=-160_000, rate=1)))
    assert load(world.offline.archive(orders), history).rows > 500
    publish(world, day_us(DAY))
    world.append("a.ndjson", lines(1, 900))
    world.append("b.ndjson", lines(2, 300, first=900))
    world.run("--workers", "2")
    features = [f"{view.key}:{name}" for view in VIEWS for name in view.outputs()]
    rows = [{"user": f"u{n}", "merchant": MERCHANTS[n % 20]} for n in range(60)]
    with FeatureStore(world.settings, Definitions.of(*VIEWS)) as store:
        at = moment(START_US + 3 * HOUR_US)
        online = store.get_online_features(features, entity_rows=rows, at=at)
        spine = [{**row, "event_timestamp": at} for row in rows]
        training = store.get_historical_features(spine, features=features, with_statuses=True).to_arrow()
        for name, values in online.to_dict().items():
            assert training[name].to_pylist() == values, name
        for name in online.features:
            assert training[f"{name}__status"].to_pylist() == [str(one) for one in online.statuses[name]], name
        ever = online.to_dict()["orders_lifetime"]
    assert sum(ever) > 300  # the history is in it
    assert {view.key: cuts(world, view) for view in VIEWS} == {view.key: {day_us(DAY)} for view in VIEWS}


def test_whatever_dies_and_wherever_slots_go_nothing_is_lost_and_nothing_counts_twice(
    own_cluster: ValkeyCluster, world: World
) -> None:
    places = [hash_slot(f"{{{slot:02d}}}") for slot in (3, 17, 40)]

    def feed(turn: int) -> int:
        world.append("a.ndjson", lines(2 * turn, 300, first=600 * turn))
        world.append("b.ndjson", lines(2 * turn + 1, 300, first=600 * turn + 300))
        return sum(map(len, world.log.values()))

    with world.flow("--workers", "2") as flow:
        fed = feed(0)
        await_that(lambda: world.applied() > 0, flow)
        for n, place in enumerate(places):
            to = own_cluster.primaries[(own_cluster.primaries.index(own_cluster.owner(place)) + 1) % 3]
            own_cluster.move([place], to) if n % 2 else own_cluster.move_whole(place, to)
        await_that(lambda: world.applied() == fed, flow)
        own_cluster.primaries[1].kill()
        fed = feed(1)
        own_cluster.primaries[1].restart()
        own_cluster.await_agreed()
        await_that(lambda: world.applied() == fed, flow)
        feed(2)
        assert end(flow, signal.SIGKILL)[0] == -signal.SIGKILL
    said = world.run()
    assert (said["unfinished"], said["losses"]) == ([], [])
    check(world)


def test_a_node_that_comes_back_empty_is_declared_published_again_and_filled(
    own_cluster: ValkeyCluster, world: World
) -> None:
    """
    slot 3     published, streamed          lost with its node    published and filled again
    others     published, streamed ─────────────────────────────────────────────────────────
    """
    world.append("a.ndjson", lines(1, 900, rate=0.02))
    world.run()
    publish(world, day_us(DAY) + DAY_US)
    before = {view.key: cuts(world, view) for view in VIEWS}
    node = own_cluster.owner(hash_slot("{03}"))
    node.kill()
    node.replace(None)
    node.restart()
    own_cluster.await_agreed()
    assert all(len(cuts(world, view)) == 2 for view in VIEWS)
    said = world.run()
    found = {(loss["view"], loss.get("everything"), loss.get("publication")) for loss in said["losses"]}
    assert found == {(view.key, *what) for view in VIEWS for what in ((False, None), (None, 1))}
    assert Registry.open(world.settings, world.online)._read_online() is not None
    assert {view.key: cuts(world, view) for view in VIEWS} == before
    check(world)
