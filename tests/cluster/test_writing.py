"""Writing to a cluster: one transaction a slot, of which some may be missing, and two writers at the same moment.

slot      0     1     2     3    …
commit    ●     ●     ×     ·         dies, or is refused: the slots say themselves what they have
repeated  drop  drop  ●     ●
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import pytest

from forebay.core.identity import SLOTS, slot_of
from forebay.errors import FencedError, StoreUnavailableError
from forebay.ingest.batch import FUTURE
from forebay.instants import MINUTE_US
from forebay.online.cluster import Cluster
from forebay.online.keys import Keys
from forebay.online.lane import Lane, Stretch
from forebay.online.progress import Progress
from forebay.online.refusals import Refusals
from forebay.online.takeover import beside, take_over
from forebay.online.wire import Wire
from tests.cluster.conftest import Steps
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    VIEWS,
    Order,
    as_events,
    assert_law,
    ever,
    killed_and_repeated,
    lane_of,
    recent,
    shop,
    stretch,
)

ORDERS = [Order(f"u{i % 30}", MIDNIGHT_US + i * 7 * MINUTE_US, i, i) for i in range(90)]
HALVES = (range(0, SLOTS, 2), range(1, SLOTS, 2))


def refuse(steps: Steps, step: int, *, arrived: bool) -> None:
    """At a send from now the node cannot be reached, or what was sent arrives and the reply does not come."""
    steps.clear()

    def fail(number: int) -> None:
        if number == step:
            raise StoreUnavailableError("it cannot be reached")

    steps.before, steps.after = (lambda number: None, fail) if arrived else (fail, lambda number: None)


def progress_of(client: Cluster, namespace: str, view: str) -> list[Progress]:
    found = client.mget(Keys(namespace, apart=True).progress(view, ALL_SLOTS))
    return [Progress() if blob is None else Progress.decode(blob) for blob in found]


def test_killed_between_any_two_slots_nothing_is_lost_or_doubled(
    client: Cluster, namespace: str, steps: Steps, eager: None
) -> None:
    """A commit is a send for each of 64 slots; the first reads what is long of 30 entities, the second rolls it up."""
    parts = [ORDERS[:40], ORDERS[40:60], ORDERS[60:]]
    for step, arrived in itertools.product((1, 2, 33, 64, 65, 80, 100, 2 * SLOTS), (False, True)):
        killed_and_repeated(client, f"{namespace}-{step}-{arrived}", steps, parts, step, arrived=arrived)


@pytest.mark.parametrize(("step", "arrived"), [(1, False), (20, False), (64, False), (64, True)])
def test_a_commit_that_arrived_in_some_slots_is_repeated_in_the_others_alone(
    client: Cluster, namespace: str, steps: Steps, step: int, arrived: bool
) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:40])])
    refuse(steps, step, arrived=arrived)
    with pytest.raises(StoreUnavailableError):
        lane.commit([stretch(ORDERS[40:])])
    steps.clear()
    reached = {slot for slot, known in enumerate(progress_of(client, namespace, recent.key)) if known.commit == 2}
    assert len(reached) == (64 if arrived else step - 1)
    applied = lane.commit([stretch(ORDERS[40:])])
    new = {slot_of(key) for one in applied.values() for some in one.folded for key in some.events.keys.to_pylist()}
    assert new == {slot_of(order.entity) for order in ORDERS[40:]} - reached
    assert_law(client, namespace, ORDERS)
    assert {known.next_offset("0") for known in progress_of(client, namespace, ever.key)} == {len(ORDERS)}


def test_heartbeats_and_targets_that_arrived_in_some_slots_are_repeated(
    client: Cluster, namespace: str, steps: Steps
) -> None:
    lane = lane_of(client, namespace)
    lane.aim(recent.key, {"0": 40})
    lane.commit([stretch(ORDERS[:10])])
    later_us = ORDERS[9].ts + MINUTE_US
    for call in (
        lambda: lane.beat(shop.name, {"0": 10}, later_us),
        lambda: lane.aim(recent.key, {"0": 50}),
        lambda: lane.mark(ever.key, {"0": 7}),
    ):
        refuse(steps, 30, arrived=False)
        try:
            call()
        except StoreUnavailableError:
            steps.clear()
            call()
    steps.clear()
    found = progress_of(client, namespace, recent.key)
    assert {(known.watermark_us, known.targets["0"]) for known in found} == {(later_us, 50)}


def test_a_slot_that_passed_an_offset_has_the_verdict_on_it(
    client: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    slot      0     1     2    …
    commit    ×     ●     ●          the node of slot 0 got nothing: whoever comes next finds what the others passed
    """
    lane, send, away = lane_of(client, namespace), Wire.send, set[Wire]()

    def sent(wire: Wire, commands: Iterable[bytes]) -> None:
        if "{00}" in wire._key and not away:
            away.add(wire)
            wire.close()
            return
        send(wire, commands)

    monkeypatch.setattr(Wire, "send", sent)
    with pytest.raises(StoreUnavailableError):
        lane.commit([Stretch("0", 6, MIDNIGHT_US, {recent.key: as_events([])}, refused={5: FUTURE})])
    passed = [known.next_offset("0") for known in progress_of(client, namespace, recent.key)]
    assert passed == [0, *[6] * (SLOTS - 1)]
    assert Refusals(client, namespace).read(shop.name) == {"0": {5: FUTURE}}


def lanes_of(client: Cluster, namespace: str) -> list[Lane]:
    return [Lane(client, namespace, [*VIEWS.values()], slots) for slots in HALVES]


def close(*lanes: Sequence[Lane]) -> None:
    for lane in itertools.chain(*lanes):
        lane.close()


@pytest.mark.parametrize("step", [1, 40, 70, 110, 130, 180, 200])
def test_of_two_flows_that_start_at_once_the_one_with_the_greater_number_has_all_slots(
    client: Cluster, namespace: str, steps: Steps, step: int
) -> None:
    """first    number 1 ── takes 0 … 30 ─┬───────────────────── finds a greater one
    second                                └─ number 2, takes 0 … 63"""
    first, second = lanes_of(client, namespace), lanes_of(client, namespace)
    numbers: list[int] = []

    def others(number: int) -> None:
        if number == step:
            steps.clear()
            numbers.append(take_over(client, namespace, second, 0))

    steps.clear()
    steps.before = others
    if (
        step <= SLOTS
    ):  # the first has looked at its slots, and takes its number after the other one: it is the later one
        numbers.append(take_over(client, namespace, first, 0))
        first, second = second, first
    else:
        with pytest.raises(FencedError, match=r"took over 32 slots of shop"):
            take_over(client, namespace, first, 0)
    assert numbers == sorted(numbers)
    for lane, half in zip(second, HALVES, strict=True):
        lane.commit([stretch([order for order in ORDERS if slot_of(order.entity) in half])])
    for lane in first:
        with pytest.raises(FencedError):
            lane.begin()
    assert_law(client, namespace, ORDERS)
    close(first, second)


def test_an_older_flow_never_takes_a_slot_from_a_newer_one_and_a_lost_count_goes_on(
    client: Cluster, namespace: str
) -> None:
    first, second, third = (lanes_of(client, namespace) for _ in range(3))
    assert take_over(client, namespace, first, 7) == 8
    assert take_over(client, namespace, second, 0) == 9
    with pytest.raises(FencedError, match=r"took over 32 slots of shop .* at the same time"):
        first[0].take_as(8)
    client.delete(Keys(namespace).flows())
    assert take_over(client, namespace, third, 0) == 10
    close(first, second, third)


def test_each_slot_says_which_views_its_flow_streams_and_a_filling_ends_with_the_flow_beside_it(
    client: Cluster, namespace: str
) -> None:
    flow = [Lane(client, namespace, [recent], ALL_SLOTS)]
    take_over(client, namespace, flow, 0)
    tokens, streams = beside(client, namespace, shop.name)
    assert (set(tokens.values()), streams) == ({flow[0].token}, [recent.key])
    filling = Lane(client, namespace, [ever], ALL_SLOTS, beside=tokens)
    filling.take_over()
    filling.commit([Stretch("0", 90, MIDNIGHT_US, {ever.key: as_events(ORDERS)})])
    flow[0].commit([Stretch("0", 90, MIDNIGHT_US, {recent.key: as_events(ORDERS)})])
    assert_law(client, namespace, ORDERS)
    another = Lane(client, namespace, [ever], ALL_SLOTS, beside=tokens)
    another.take_over()
    with pytest.raises(FencedError):
        filling.commit([Stretch("0", 91, MIDNIGHT_US, {ever.key: as_events([])})])
    heir = [Lane(client, namespace, [recent, ever], ALL_SLOTS)]
    take_over(client, namespace, heir, 0)
    with pytest.raises(FencedError):
        another.commit([Stretch("0", 91, MIDNIGHT_US, {ever.key: as_events([])})])
    assert beside(client, namespace, shop.name)[1] == [ever.key, recent.key]
    close(flow, heir, [filling, another])
