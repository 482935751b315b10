"""The seam: at no instant, and between no two writes, does an event count twice or not at all.

          cut
batch  ════╗
stream  ───╫────────┤      whoever reads, whenever, sees what the oracle says of all events applied
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import hypothesis
import numpy as np
import pytest
import redis
from hypothesis import strategies as st

from forebay.core.values import Status
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online import lease as lease_module
from forebay.online import pending as pending_module
from forebay.online.keys import Keys
from forebay.online.lane import Lane, Stretch
from forebay.online.read import OnlineReader
from tests.infra.valkey import Valkey
from tests.stores.conftest import Killed, Steps
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    VIEWS,
    Order,
    as_events,
    assert_law,
    ever,
    expected,
    lane_of,
    publish,
    purchases,
    read,
    recent,
    stretch,
    values,
)

PEOPLE = ("ann", "bob", "eve", "dan")
# Two days, of which the second midnight is MIDNIGHT_US; dan is only there before it.
BEFORE = [
    Order(PEOPLE[i % 4], MIDNIGHT_US - 30 * HOUR_US + i * 30 * MINUTE_US, i, None if i % 7 == 0 else i)
    for i in range(60)
]
AFTER = [Order(PEOPLE[i % 3], MIDNIGHT_US + i * 25 * MINUTE_US, 60 + i, i) for i in range(20)]
NOON_US = MIDNIGHT_US + 12 * HOUR_US


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit rolls up, and a publication writes each blob in a transaction of its own, one after another."""
    monkeypatch.setattr(pending_module, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending_module, "ROLL_RECORDS", 0)
    monkeypatch.setattr(lease_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(lease_module, "CONNECTIONS", 1)


def publish_all(client: redis.Redis, namespace: str, orders: Sequence[Order], cut_us: int) -> None:
    for view in VIEWS.values():
        publish(client, namespace, orders, cut_us, view)


def test_batch_that_comes_late_changes_nothing_at_any_step(client: redis.Redis, namespace: str, steps: Steps) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch([*BEFORE, *AFTER])])
    steps.clear()
    steps.after = lambda number: assert_law(client, namespace, [*BEFORE, *AFTER]) and None
    publish_all(client, namespace, BEFORE, MIDNIGHT_US - DAY_US)
    publish_all(client, namespace, BEFORE, MIDNIGHT_US)
    assert steps.count > 40
    assert_law(client, namespace, [*BEFORE, *AFTER], NOON_US)


def test_batch_five_days_late_changes_no_value_and_is_marked_beyond_retention(
    client: redis.Redis, namespace: str, steps: Steps
) -> None:
    """
    day         0       1       2       3       4       5       6
    events      ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ● ┤     rolled up at each commit, which trims what it may
    published           ║1 ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ ║2,3  the cut of 1 is day 1, of 2 day 2, of 3 day 6
    retention           |◂───── 2d ────▸|                             of the cut of 1
    marked      no      no      no     no|yes     yes     yes  2: yes  3: no
    """
    view = purchases("late", ["1h", "24h", None], retention="2d")
    start_us = MIDNIGHT_US - 6 * DAY_US
    orders = [Order(PEOPLE[i % 3], start_us + i * 5 * HOUR_US, i, i) for i in range(28)]
    lane = Lane(client, namespace, [view], ALL_SLOTS)
    lane.take_over()
    applied: list[Order] = []

    def stream(until_us: int) -> None:
        new = [order for order in orders[len(applied) :] if order.ts < until_us]
        lane.commit([Stretch("0", new[-1].offset + 1, new[-1].ts, {view.key: as_events(new)})])
        applied.extend(new)

    def marked(at_us: int) -> set[bool]:
        """Which of those with events are marked; the law, and that marks and metadata agree, is asserted."""
        people = [*PEOPLE[:3], "nobody", None]
        found = OnlineReader(client, namespace).read([view], {view.key: people}, at_us, 0)
        for entity, row in zip(people, values(found, view), strict=True):
            assert row == expected(applied, view, entity or "nobody", at_us)
        read = found.views[view.key]
        for column in read.columns:
            present = column.status[np.isin(column.status, (Status.PRESENT, Status.STALE))]
            assert len(present) <= 3, "defaults keep their status"
            late = read.overdue[np.isin(column.status, (Status.PRESENT, Status.STALE))]
            assert ((present == Status.STALE) == late).all()
        return set(read.overdue[:3].tolist())

    stream(start_us + DAY_US)
    assert marked(start_us + 9 * DAY_US) == {False}, "never published"
    publish(client, namespace, applied, start_us + DAY_US, view)
    edge_us = start_us + 3 * DAY_US
    stream(edge_us)
    assert marked(edge_us) == {False}, "as late as it may be"
    assert marked(edge_us + 1) == {True}
    stream(MIDNIGHT_US)
    assert marked(MIDNIGHT_US) == {True}, "five days late"
    steps.clear()
    steps.after = lambda number: marked(MIDNIGHT_US) and None
    publish(client, namespace, applied, start_us + 2 * DAY_US, view)
    assert marked(MIDNIGHT_US) == {True}, "not far enough"
    publish(client, namespace, applied, MIDNIGHT_US, view)
    assert steps.count > 10
    assert marked(MIDNIGHT_US + 2 * DAY_US) == {False}


def test_streaming_while_batch_publishes_changes_nothing_at_any_step(
    client: redis.Redis, namespace: str, steps: Steps
) -> None:
    """At every step of the publications the lane commits an order, rolls up, and so trims what it may."""
    lane = lane_of(client, namespace)
    lane.commit([stretch(BEFORE)])
    applied = list(BEFORE)
    waiting = iter(AFTER)

    def go_on(number: int) -> None:
        steps.after = lambda number: None
        order = next(waiting, None)
        if order is not None:
            lane.commit([stretch([order])])
            applied.append(order)
        assert_law(client, namespace, applied)
        steps.after = go_on

    steps.clear()
    steps.after = go_on
    for cut_us in (MIDNIGHT_US - DAY_US, MIDNIGHT_US, MIDNIGHT_US):
        publish_all(client, namespace, BEFORE, cut_us)
    steps.clear()
    assert applied == [*BEFORE, *AFTER]
    assert client.exists(Keys(namespace).stream(recent.key, "dan")) == 1  # nothing rolled it up since
    lane.commit([stretch([Order("dan", NOON_US, 80)])])
    assert_law(client, namespace, [*applied, Order("dan", NOON_US, 80)])


@pytest.mark.parametrize("connections", [1, 2])
def test_a_publication_killed_at_any_step_leaves_the_values_as_they_were(
    client: redis.Redis, namespace: str, steps: Steps, monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    """Killed, then read; then the stream goes on and trims what it may; then another publishes."""
    monkeypatch.setattr(lease_module, "CONNECTIONS", connections)
    zoe = Order("zoe", MIDNIGHT_US - 50 * HOUR_US, 0, partition="1")  # in the first publication, expired by the second
    orders = [zoe, *BEFORE, *AFTER]
    more = [Order(person, NOON_US + i, 80 + i) for i, person in enumerate((*PEOPLE, "zoe"))]
    lease, lists, blobs, cut, emptied = 3 + connections, 5, 4, 1, 1
    sends = lease + 1 + lists + blobs + cut + emptied + lists + 1
    for step, arrived in itertools.product(range(1, sends + 1), (False, True)):
        base = f"{namespace}-{step}-{arrived}"
        steps.clear()
        lane = lane_of(client, base)
        lane.commit([stretch([zoe], partition="1"), stretch(orders[1:])])
        publish(client, base, [zoe], MIDNIGHT_US - 2 * DAY_US)
        steps.kill(step, arrived=arrived)
        with pytest.raises(Killed):
            publish(client, base, orders, MIDNIGHT_US)
        steps.clear()
        assert_law(client, base, orders)
        lane.commit([stretch(more)])
        assert_law(client, base, [*orders, *more])
        client.delete(Keys(base).lease(recent.key))  # it has run out
        steps.clear()
        assert publish(client, base, orders, MIDNIGHT_US).rows == len(PEOPLE)
        assert_law(client, base, [*orders, *more])
        assert client.exists(Keys(base).batch(recent.key, "zoe")) == 0
    assert steps.count <= sends


def test_a_re_run_without_an_entity_takes_it_away_once_and_for_all(
    client: redis.Redis, namespace: str, steps: Steps
) -> None:
    """dan's orders turn out to be wrong: the archive is repaired and the dates are published again."""
    lane = lane_of(client, namespace)
    orders = [*BEFORE, *AFTER]
    lane.commit([stretch(orders)])
    publish_all(client, namespace, BEFORE, MIDNIGHT_US - DAY_US)
    repaired = [order for order in orders if order.entity != "dan"]
    instant = AFTER[-1].ts + 1
    seen = []

    def look(number: int) -> None:
        row = values(read(client, namespace, ["dan"], instant), recent)[0]
        assert row in (expected(orders, recent, "dan", instant), expected(repaired, recent, "dan", instant))
        seen.append(row == expected(repaired, recent, "dan", instant))

    steps.clear()
    steps.after = look
    publish_all(client, namespace, repaired, MIDNIGHT_US)
    steps.clear()
    assert seen == sorted(seen)  # once gone it stays gone
    assert set(seen) == {False, True}
    assert client.exists(Keys(namespace).batch(recent.key, "dan")) == 0
    assert_law(client, namespace, repaired, instant)
    lane.commit([stretch([Order("dan", NOON_US, 80)])])
    assert_law(client, namespace, [*repaired, Order("dan", NOON_US, 80)])


def test_the_blob_of_an_emptied_entity_counts_no_more_once_the_cut_has_moved(
    client: redis.Redis, namespace: str
) -> None:
    """A publication that died between moving the cut and deleting what it emptied."""
    blob = Keys(namespace).batch(ever.key, "dan")
    publish_all(client, namespace, BEFORE, MIDNIGHT_US - DAY_US)
    left = client.get(blob)
    assert left is not None
    repaired = [order for order in BEFORE if order.entity != "dan"]
    publish_all(client, namespace, repaired, MIDNIGHT_US)
    client.set(blob, left)
    assert_law(client, namespace, repaired, MIDNIGHT_US)


def test_a_re_run_at_the_same_cut_replaces_what_was_there(client: redis.Redis, namespace: str) -> None:
    publish_all(client, namespace, BEFORE, MIDNIGHT_US)
    repaired = [order for order in BEFORE if order.entity != "dan"][3:]
    publish_all(client, namespace, repaired, MIDNIGHT_US)
    assert_law(client, namespace, repaired, NOON_US)


def test_a_view_that_streams_from_the_start_again_is_not_counted_twice(client: redis.Redis, namespace: str) -> None:
    publish_all(client, namespace, BEFORE, MIDNIGHT_US)
    lane = lane_of(client, namespace)
    for low in range(0, 80, 16):
        lane.commit([stretch([*BEFORE, *AFTER][low : low + 16])])
        assert_law(client, namespace, [*BEFORE, *AFTER][: max(60, low + 16)], AFTER[-1].ts + 1)


STREAMS = st.tuples(st.just("stream"), st.integers(1, 25), st.integers(0, 10))
PUBLISHES = st.tuples(st.just("publish"), st.integers(0, 2), st.sampled_from(list(VIEWS)))
DEATHS = st.tuples(st.just("replace"), st.just(0), st.just(0))


@hypothesis.settings(
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
@hypothesis.given(acts=st.lists(st.one_of(STREAMS, PUBLISHES, DEATHS), max_size=12), seed=st.integers(0, 2**32))
def test_whatever_happens_the_law_holds(
    valkey: Valkey, namespace: str, acts: list[tuple[str, int, object]], seed: int
) -> None:
    """Commits with replays, lanes that are replaced, publications at any of three midnights, in any order."""
    orders = [*BEFORE, *AFTER]
    with valkey.connect() as client:
        client.delete(*client.keys(f"{namespace}:*"), "x")
        lane = lane_of(client, namespace)
        applied = 0
        cuts = dict.fromkeys(VIEWS, MIDNIGHT_US - 2 * DAY_US)
        for act, number, detail in acts:
            if act == "stream":
                assert isinstance(detail, int)
                lane.commit([stretch(orders[max(0, applied - detail) : applied + number])])
                applied = min(len(orders), applied + number)
            elif act == "replace":
                lane = _replaced(lane, client, namespace)
            else:
                seen_us = max((order.ts for order in orders[:applied]), default=0)
                cut_us = MIDNIGHT_US - (2 - number) * DAY_US
                if cuts[str(detail)] <= cut_us <= seen_us:
                    publish(client, namespace, orders[:applied], cut_us, VIEWS[str(detail)])
                    cuts[str(detail)] = cut_us
            assert_law(client, namespace, orders[:applied])
        lane.close()


def _replaced(lane: Lane, client: redis.Redis, namespace: str) -> Lane:
    lane.close()
    return lane_of(client, namespace)
