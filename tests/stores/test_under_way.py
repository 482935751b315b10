"""What was under way on a connection that broke, and arrives late: never when its writer has gone on without it.

lane     commit ─ ─ ✕ no reply     reconnects ── the same commit ── more
network         └────────── holds it ──────────┴──────┴───────────┴──▶ delivers it, at any moment
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis

from forebay.errors import FencedError, StoreUnavailableError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.lane import Lane, Stretch
from forebay.online.progress import Cut, Progress
from forebay.online.takeover import beside, take_over
from forebay.settings import Settings
from tests.infra.network import Network
from tests.infra.server import free_port
from tests.infra.valkey import Valkey
from tests.stores.conftest import Steps
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    VIEWS,
    Order,
    as_events,
    assert_law,
    ever,
    lane_of,
    publish,
    recent,
    shop,
    stretch,
)

ORDERS = [Order(f"u{i % 7}", MIDNIGHT_US + i * 7 * MINUTE_US, i, i) for i in range(40)]


@pytest.fixture
def network(valkey: Valkey) -> Iterator[Network]:
    """What the client of these tests speaks through."""
    with Network({free_port(): valkey.port}) as one:
        yield one


@pytest.fixture
def client(network: Network) -> Iterator[redis.Redis]:
    """A client whose connections may break with something on its way."""
    url = f"redis://127.0.0.1:{network.ports[0]}/0"
    with connect_online(Settings.from_env({"FOREBAY_ONLINE_URL": url})) as one:
        yield one


def stored(client: redis.Redis, namespace: str, view: str) -> dict[int, Progress]:
    """How far the slots of a view are, in the store."""
    found = client.mget(Keys.of(client, namespace).progress(view, ALL_SLOTS))
    return {slot: Progress.decode(blob) for slot, blob in zip(ALL_SLOTS, found, strict=True) if blob is not None}


def assert_as_known(client: redis.Redis, namespace: str, lane: Lane) -> None:
    """The store is as far as the lane that writes it takes it to be."""
    for view in VIEWS:
        assert stored(client, namespace, view) == lane.progress[view]


CALLS: dict[str, Callable[[Lane], object]] = {
    "APPEND": lambda lane: lane.commit([stretch(ORDERS[:20])]),
    "DEL": lambda lane: [lane.commit([stretch(ORDERS[:15])]), lane.commit([stretch(ORDERS[:20])])],
    "MSET": lambda lane: lane.beat(shop.name, {"0": 10}, ORDERS[10].ts),
}
"""By what is held: what is appended, the same with a roll-up (which deletes pending blobs), a heartbeat."""


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 6, 99])
@pytest.mark.parametrize("held", CALLS)
def test_whenever_it_arrives_it_is_as_if_it_had_arrived_at_once_or_never(
    client: redis.Redis, namespace: str, network: Network, steps: Steps, eager: None, held: str, step: int
) -> None:
    """It is delivered before each send of its repetition: arm, void, look (of two views), commit …; or at the end."""
    assert delivered_at(client, namespace, network, steps, held, step) >= 5


@pytest.mark.parametrize("step", [*range(1, 16), 99])
@pytest.mark.parametrize("held", ["APPEND", "DEL"])
def test_what_one_lane_of_a_large_commit_was_sent_arrives_as_if_at_once_or_never(
    client: redis.Redis,
    namespace: str,
    network: Network,
    steps: Steps,
    eager: None,
    divided: None,
    held: str,
    step: int,
) -> None:
    """The same; before its lanes are sent to, the other two connections are armed."""
    assert delivered_at(client, namespace, network, steps, held, step) >= 15


def delivered_at(client: redis.Redis, namespace: str, network: Network, steps: Steps, held: str, step: int) -> int:
    """A call is held up and repeated; what was held is delivered before a step of that. How many steps there were."""
    lane, call = lane_of(client, namespace), CALLS[held]
    lane.commit([stretch(ORDERS[:10])])
    network.hold(b"MULTI", held.encode())
    with pytest.raises(StoreUnavailableError, match="closed the connection"):
        call(lane)

    def deliver(number: int) -> None:
        if number == step:
            assert network.deliver() == 1

    steps.clear()
    steps.before = deliver
    call(lane)
    lane.commit([stretch(ORDERS)])
    count = steps.count
    steps.clear()
    assert network.deliver() == (step == 99)
    assert_as_known(client, namespace, lane)
    assert_law(client, namespace, ORDERS)
    lane.close()
    return count


def test_what_a_process_that_died_has_sent_is_not_run_after_another_has_begun_under_its_token(
    client: redis.Redis, namespace: str, network: Network
) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:10])])
    network.hold(b"APPEND")
    with pytest.raises(StoreUnavailableError):
        lane.commit([stretch(ORDERS[:20])])
    heir = Lane(client, namespace, list(VIEWS.values()), ALL_SLOTS, token=lane.token)
    heir.begin()
    heir.commit([stretch(ORDERS)])
    assert network.deliver() == 1
    assert_as_known(client, namespace, heir)
    assert_law(client, namespace, ORDERS)
    heir.close()


def test_who_was_touched_by_one_that_reconnected_tries_again(client: redis.Redis, namespace: str) -> None:
    """The flow reconnects: whoever fills a view beside it watches its tokens, which are what they were."""
    flow = Lane(client, namespace, [recent], ALL_SLOTS)
    take_over(client, namespace, [flow], 0)
    filling = Lane(client, namespace, [ever], ALL_SLOTS, beside=beside(client, namespace, shop.name)[0])
    filling.take_over()
    filling.commit([Stretch("0", 10, MIDNIGHT_US, {ever.key: as_events(ORDERS[:10])})])
    flow.close()
    flow.commit([Stretch("0", 40, MIDNIGHT_US, {recent.key: as_events(ORDERS)})])
    all_of_it = Stretch("0", 40, MIDNIGHT_US, {ever.key: as_events(ORDERS)})
    with pytest.raises(StoreUnavailableError, match=r"has reconnected .* Nothing of this commit was written"):
        filling.commit([all_of_it])
    filling.commit([all_of_it])
    assert_law(client, namespace, ORDERS)
    take_over(client, namespace, [Lane(client, namespace, [recent], ALL_SLOTS)], 0)
    with pytest.raises(FencedError):
        filling.commit([all_of_it])
    flow.close()
    filling.close()


@pytest.mark.parametrize("alone", [False, True])
def test_a_take_over_that_arrives_late_takes_nothing_from_who_came_since(
    client: redis.Redis, namespace: str, network: Network, alone: bool
) -> None:
    """The take-over of a flow, or that of a lane on its own."""

    def take(lane: Lane) -> None:
        lane.take_over() if alone else take_over(client, namespace, [lane], 0)

    first, second = (Lane(client, namespace, list(VIEWS.values()), ALL_SLOTS) for _ in range(2))
    network.hold(b"MSET")
    with pytest.raises(StoreUnavailableError):
        take(first)
    take(first)
    take(second)
    second.commit([stretch(ORDERS[:10])])
    assert network.deliver() == 1
    second.commit([stretch(ORDERS)])
    with pytest.raises(FencedError):
        first.commit([stretch(ORDERS)])
    assert_as_known(client, namespace, second)
    assert_law(client, namespace, ORDERS)
    first.close()
    second.close()


ZOE = Order("zoe", MIDNIGHT_US - 2 * DAY_US, 0, partition="1")
"""In the first publication, and expired by the next."""
CUTS = [MIDNIGHT_US - DAY_US, MIDNIGHT_US + HOUR_US, MIDNIGHT_US + 2 * HOUR_US]
WRITTEN = [b":published:", b"recent@1:b\r\n", b":cut:", b"\r\nDEL\r\n"]
"""What a publication writes: the lists, the blobs, the cuts, and what it deletes."""


def assert_published(client: redis.Redis, namespace: str, cut: Cut) -> None:
    """A publication is the last one, values are right, and what it emptied is gone."""
    found = client.mget(Keys(namespace).slots("cut", recent.key, ALL_SLOTS))
    assert {Cut.decode(blob) for blob in found} == {cut}
    assert client.exists(Keys(namespace).batch(recent.key, "zoe")) == 0
    assert_law(client, namespace, ORDERS)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("held", WRITTEN)
def test_what_a_publication_that_failed_has_sent_arrives_before_the_next_one_or_never(
    client: redis.Redis, namespace: str, network: Network, eager: None, held: bytes, late: bool
) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:20])])
    publish(client, namespace, [ZOE], CUTS[0])
    network.hold(b"MULTI", held)
    with pytest.raises(StoreUnavailableError):
        publish(client, namespace, ORDERS, CUTS[1])
    if not late:
        assert network.deliver() == 1
        assert_law(client, namespace, ORDERS[:20])
    client.delete(Keys(namespace).lease(recent.key))  # it ran out
    publish(client, namespace, ORDERS, CUTS[2])
    lane.commit([stretch(ORDERS)])
    assert network.deliver() == late
    found = Cut.decode(client.get(Keys(namespace).cut(recent.key, 0)))
    assert_published(client, namespace, Cut(CUTS[2], found.publication))
    lane.close()
