"""Publishing to a cluster: a lease, a token in each slot, and a publication that goes from slot to slot."""

from __future__ import annotations

import itertools

import pytest

from forebay.core.codec import NO_CUT
from forebay.core.identity import SLOTS, slot_of
from forebay.errors import FencedError, StoreUnavailableError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online import lease as lease_module
from forebay.online import slot_lease as slot_lease_module
from forebay.online.cluster import Cluster, hash_slot
from forebay.online.keys import Keys
from forebay.online.progress import Cut
from forebay.online.publish import mark_missing
from forebay.online.slot_lease import SlotLease
from tests.cluster.conftest import Steps
from tests.infra.valkey_cluster import ValkeyCluster
from tests.stores.conftest import Killed
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    Order,
    assert_law,
    expected,
    lane_of,
    publish,
    read,
    recent,
    stretch,
    values,
)

PEOPLE = [f"u{n}" for n in range(24)]
BEFORE = [Order(PEOPLE[n % 24], MIDNIGHT_US - 20 * HOUR_US + n * 20 * MINUTE_US, n, n) for n in range(55)]
AFTER = [Order(PEOPLE[n % 24], MIDNIGHT_US + n * MINUTE_US, 55 + n, n) for n in range(30)]
ZOE = Order("zoe", MIDNIGHT_US - 50 * HOUR_US, 0, partition="1")
"""In a first publication, and expired by the second."""
TAKING = 1 + 4 * SLOTS + 1
"""Sends until a publisher may write: the lease; look, watch, take and arm each slot; the lease again."""


def cuts(client: Cluster, namespace: str) -> set[Cut]:
    return {Cut.decode(blob) for blob in client.mget(Keys(namespace).slots("cut", recent.key, ALL_SLOTS))}


def sends_of(client: Cluster, namespace: str, steps: Steps) -> int:
    """How many sends the second publication of these tests is."""
    base = f"{namespace}-counted"
    publish(client, base, [ZOE], MIDNIGHT_US - 2 * DAY_US)
    steps.clear()
    publish(client, base, [ZOE, *BEFORE, *AFTER], MIDNIGHT_US)
    return steps.count


def test_a_publisher_that_dies_between_two_slots_leaves_the_values_as_they_were(
    client: Cluster, namespace: str, steps: Steps, eager: None
) -> None:
    """Killed in every step of a publication, then read; then the stream goes on and trims; then another publishes."""
    orders, sends = [ZOE, *BEFORE, *AFTER], sends_of(client, namespace, steps)
    more = [Order(person, MIDNIGHT_US + 12 * HOUR_US + n, 85 + n) for n, person in enumerate((*PEOPLE, "zoe"))]
    uneven = 0
    for step, arrived in itertools.product((TAKING + 2, *range(sends - 190, sends, 45), sends), (False, True)):
        base = f"{namespace}-{step}-{arrived}"
        steps.clear()
        lane = lane_of(client, base)
        lane.commit([stretch([ZOE], partition="1"), stretch(orders[1:])])
        publish(client, base, [ZOE], MIDNIGHT_US - 2 * DAY_US)
        steps.kill(step, arrived=arrived)
        with pytest.raises(Killed):
            publish(client, base, orders, MIDNIGHT_US)
        steps.clear()
        uneven += len(cuts(client, base)) == 2
        assert_law(client, base, orders)
        lane.commit([stretch(more)])
        assert_law(client, base, [*orders, *more])
        client.delete(Keys(base).lease(recent.key))  # it has run out
        assert publish(client, base, orders, MIDNIGHT_US).rows == len(PEOPLE)
        assert_law(client, base, [*orders, *more])
        assert len(cuts(client, base)) == 1
        assert client.exists(Keys(base).batch(recent.key, "zoe")) == 0
        lane.close()
    assert uneven >= 2


def test_the_stream_goes_on_while_cuts_move_from_slot_to_slot(
    client: Cluster, namespace: str, steps: Steps, eager: None
) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(BEFORE)])
    applied, waiting = list(BEFORE), iter(AFTER)

    def go_on(number: int) -> None:
        if number % 23:
            return
        steps.before = lambda number: None
        order = next(waiting, None)
        if order is not None:
            lane.commit([stretch([order])])
            applied.append(order)
        assert_law(client, namespace, applied)
        steps.before = go_on

    for cut_us in (MIDNIGHT_US - DAY_US, MIDNIGHT_US):
        steps.clear()
        steps.before = go_on
        publish(client, namespace, BEFORE, cut_us)
    steps.clear()
    assert len(applied) > len(BEFORE) + 10
    assert_law(client, namespace, applied)
    lane.close()


def test_a_publisher_that_was_replaced_writes_nothing_more_in_any_slot(
    client: Cluster, namespace: str, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """first    lease ── tokens ── writes 0 … 9 ┬ asleep                        wakes up, is fenced in its next slot
    second                                    └ lease, tokens, publishes, gives all back"""
    monkeypatch.setattr(lease_module, "CHUNK_BYTES", 1)
    orders, keys = [*BEFORE, *AFTER], Keys(namespace)
    for step in (3, 1 + SLOTS + 5, 1 + 3 * SLOTS + 5, TAKING, TAKING + 10, TAKING + 40):
        base, replaced = f"{namespace}-{step}", []

        def sleep(number: int, base: str = base, step: int = step, replaced: list[int] = replaced) -> None:
            if number == step:
                steps.clear()
                client.delete(Keys(base).lease(recent.key))  # it ran out
                publish(client, base, BEFORE[5:], MIDNIGHT_US)
                replaced.append(number)

        steps.clear()
        steps.before = sleep
        with pytest.raises(FencedError, match=r"publication of view 'recent@1'"):
            publish(client, base, orders, MIDNIGHT_US - DAY_US)
        assert replaced
        found = values(read(client, base, PEOPLE, MIDNIGHT_US), recent)
        assert found == [expected(BEFORE[5:], recent, person, MIDNIGHT_US) for person in PEOPLE]
        assert {cut.cut_us for cut in cuts(client, base)} == {MIDNIGHT_US}
    assert not client.exists(keys.lease(recent.key))


def test_tokens_are_given_back_and_a_second_publisher_waits(client: Cluster, namespace: str) -> None:
    keys, first = Keys(namespace), SlotLease(client, namespace, recent.key, 0, 0.0)
    first.open()
    with pytest.raises(FencedError, match="is being published by another process"):
        SlotLease(client, namespace, recent.key, 0, 0.0).open()
    tokens = client.mget([keys.publisher(recent.key, slot) for slot in ALL_SLOTS])
    assert {token.partition(b":")[0] for token in tokens} == {b"1"}
    first.close()
    assert not client.exists(keys.lease(recent.key), *(keys.publisher(recent.key, slot) for slot in ALL_SLOTS))
    client.delete(keys.publishers())  # the count is lost, and the tokens of one that was killed are there
    client.set(keys.publisher(recent.key, 7), b"41:gone")
    second = SlotLease(client, namespace, recent.key, 0, 0.0)
    second.open()
    assert client.get(keys.publisher(recent.key, 9)).startswith(b"42:")
    second.close()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_slot_that_is_moved_meanwhile_is_published_where_it_is(
    valkey_cluster: ValkeyCluster, client: Cluster, namespace: str, steps: Steps, at_once: bool
) -> None:
    slots = sorted({slot_of(person) for person in PEOPLE})
    moved = [hash_slot(f"{{{slot:02d}}}") for slot in (slots[2], slots[-2])]

    def move(number: int) -> None:
        if number in (TAKING + 2, TAKING + 30):
            place = moved[number == TAKING + 30]
            home = valkey_cluster.owner(place)
            to = next(node for node in valkey_cluster.primaries if node is not home)
            valkey_cluster.move_whole(place, to) if at_once else valkey_cluster.move([place], to)

    lane_of(client, namespace).commit([stretch([*BEFORE, *AFTER])])
    steps.clear()
    steps.before = move
    assert publish(client, namespace, [*BEFORE, *AFTER], MIDNIGHT_US).rows == len(PEOPLE)
    steps.clear()
    assert cuts(client, namespace) == {Cut(MIDNIGHT_US, 1)}
    assert_law(client, namespace, [*BEFORE, *AFTER])


def test_what_is_missing_is_marked_in_every_slot_and_cuts_stay(client: Cluster, namespace: str) -> None:
    mark_missing(client, namespace, recent, lambda: NO_CUT)
    assert cuts(client, namespace) == {Cut()}, "nothing is written where nothing is missing"
    publish(client, namespace, [*BEFORE, *AFTER], MIDNIGHT_US)
    mark_missing(client, namespace, recent, lambda: MIDNIGHT_US + 5)
    assert cuts(client, namespace) == {Cut(MIDNIGHT_US, 1, MIDNIGHT_US + 5)}
    publish(client, namespace, [*BEFORE, *AFTER], MIDNIGHT_US)
    assert cuts(client, namespace) == {Cut(MIDNIGHT_US, 2)}


def test_a_node_that_stays_away_ends_a_publication_which_is_repeated(
    client: Cluster, namespace: str, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_lease_module, "TRIES", 2)

    def away(number: int) -> None:
        if number > TAKING + 20:
            raise StoreUnavailableError("Redis cannot be reached")

    lane_of(client, namespace).commit([stretch([*BEFORE, *AFTER])])
    steps.clear()
    steps.before = away
    with pytest.raises(StoreUnavailableError):
        publish(client, namespace, [*BEFORE, *AFTER], MIDNIGHT_US)
    steps.clear()
    assert_law(client, namespace, [*BEFORE, *AFTER])
    client.delete(Keys(namespace).lease(recent.key))
    publish(client, namespace, [*BEFORE, *AFTER], MIDNIGHT_US)
    assert_law(client, namespace, [*BEFORE, *AFTER])
