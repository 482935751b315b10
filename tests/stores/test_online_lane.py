"""The lane: what is applied once is applied once, whoever dies or is replaced on the way."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import pytest
import redis

from forebay.core.codec import unpack
from forebay.core.identity import slot_of
from forebay.core.layout import Layout
from forebay.errors import FencedError, StoreError, StoreUnavailableError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online import long_blobs
from forebay.online import pending as pending_module
from forebay.online.keys import Keys
from forebay.online.lane import Lane, Stretch
from forebay.online.progress import PartitionProgress
from tests.infra.valkey import Valkey
from tests.stores.conftest import Killed, Steps
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    VIEWS,
    Order,
    as_events,
    assert_law,
    commit_each,
    ever,
    expected,
    lane_of,
    publish,
    read,
    recent,
    stretch,
    values,
)

ORDERS = [
    Order(("ann", "bob", "eve")[i % 3], MIDNIGHT_US + i * 7 * MINUTE_US, i, None if i % 5 == 0 else i)
    for i in range(40)
]


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every commit rolls up."""
    monkeypatch.setattr(pending_module, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending_module, "ROLL_RECORDS", 0)


def image(client: redis.Redis, namespace: str) -> dict[bytes, bytes | None]:
    """Everything in a namespace."""
    return {name: client.get(name) for name in sorted(client.keys(f"{namespace}:*"))}


def test_what_is_committed_can_be_read(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    applied = lane.commit([stretch(ORDERS)])
    assert_law(client, namespace, ORDERS)
    assert {
        key: (new.commit, [sorted(one.events.keys.to_pylist()) for one in new.folded]) for key, new in applied.items()
    } == {key: (1, [["ann", "bob", "eve"]]) for key in VIEWS}
    assert len(applied[recent.key].folded[0].events) == len(ORDERS)


def test_progress_covers_every_slot_and_never_moves_back(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    assert lane.next_offset(recent.key, "0") == 0
    assert not any(lane.progress.values())
    lane.commit([stretch(ORDERS[:10])])
    lane.commit([stretch(ORDERS[:3])])
    again = lane_of(client, namespace)
    for view in VIEWS:
        assert again.next_offset(view, "0") == 10
        assert set(again.progress[view]) == set(ALL_SLOTS)
        assert {known.watermark_us for known in again.progress[view].values()} == {ORDERS[9].ts}


def test_a_piece_without_events_moves_the_views_it_names(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    nothing = as_events([])
    assert lane.commit([Stretch("0", 5, MIDNIGHT_US, {recent.key: nothing})]) == {}
    assert (lane.next_offset(recent.key, "0"), lane.next_offset(ever.key, "0")) == (5, 0)
    lane.commit([Stretch("1", 2, None, {recent.key: nothing})])
    assert lane.progress[recent.key][0].partitions["0"] == PartitionProgress(5, MIDNIGHT_US)


@pytest.mark.parametrize("cuts", [(0, 40), (0, 1, 2, 40), (0, 13, 13, 26, 40), (0, 20, 40)])
def test_replays_in_other_pieces_add_nothing(client: redis.Redis, namespace: str, cuts: Sequence[int]) -> None:
    lane = lane_of(client, namespace)
    for low, high in ((0, 9), (9, 17), (17, 23)):
        lane.commit([stretch(ORDERS[low:high])])
    for low, high in itertools.pairwise(cuts):
        lane.commit([stretch(ORDERS[max(0, low - 4) : high]), stretch(ORDERS[low:high])])
    assert_law(client, namespace, ORDERS)


def test_partitions_are_counted_apart(client: redis.Redis, namespace: str) -> None:
    others = [Order("ann", order.ts + 1, order.offset, 5, partition="1") for order in ORDERS]
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:20]), stretch(others[:5], partition="1")])
    lane.commit([stretch(others[:30], partition="1"), stretch(ORDERS[10:])])
    assert_law(client, namespace, [*ORDERS, *others[:30]])


def test_lanes_of_other_slots_do_not_meet(client: redis.Redis, namespace: str) -> None:
    slots = [[slot for slot in ALL_SLOTS if slot % 2 == half] for half in (0, 1)]
    lanes = [lane_of(client, namespace, mine) for mine in slots]
    for lane, half in zip(lanes, (0, 1), strict=True):
        lane.commit([stretch([order for order in ORDERS if slot_of(order.entity) % 2 == half])])
    assert_law(client, namespace, ORDERS)
    foreign = next(order for order in ORDERS if slot_of(order.entity) % 2 == 1)
    with pytest.raises(StoreError, match=f"was given entity {foreign.entity!r} of another lane"):
        lanes[0].commit([stretch([foreign])])


def test_slots_of_a_lane_share_one_progress_and_are_written_by_one_writer(client: redis.Redis, namespace: str) -> None:
    lane_of(client, namespace, range(1, 64, 2)).commit([stretch([])])
    names = sorted(name.decode() for name in client.scan_iter(f"{namespace}:*:progress:*", 1000))
    assert names == sorted(name for view in VIEWS for name in Keys(namespace).progress(view, [1, 3, 5, 7]))
    with pytest.raises(ValueError, match="are not whole lanes"):
        lane_of(client, namespace, range(32))


def test_a_lane_that_was_replaced_writes_nothing(client: redis.Redis, namespace: str) -> None:
    first = lane_of(client, namespace)
    first.commit([stretch(ORDERS[:10])])
    second = lane_of(client, namespace)
    before = image(client, namespace)
    for _ in range(2):
        with pytest.raises(FencedError, match=r"took over 64 slots of shop .* nothing of this commit was written"):
            first.commit([stretch(ORDERS[10:20])])
    assert image(client, namespace) == before
    second.commit([stretch(ORDERS[10:])])
    assert_law(client, namespace, ORDERS)


def test_a_lane_replaced_before_it_rolls_up_what_it_has_read_writes_nothing(
    client: redis.Redis, namespace: str, eager: None
) -> None:
    first = lane_of(client, namespace)
    first.commit([stretch(ORDERS[:20])])
    first.commit([stretch(ORDERS[20:30])])  # reads what the next one is to roll up
    lane_of(client, namespace)
    before = image(client, namespace)
    with pytest.raises(FencedError):
        first.commit([stretch(ORDERS[30:])])
    assert image(client, namespace) == before
    assert_law(client, namespace, ORDERS[:30])


def test_killed_at_any_step_nothing_is_lost_or_doubled(
    client: redis.Redis, namespace: str, steps: Steps, eager: None
) -> None:
    """Before and after every single send, the process dies; another takes over and replays from its progress."""
    parts = [ORDERS[first : first + 8] for first in range(0, 40, 8)]
    for step, arrived in itertools.product(range(1, len(parts) + 1), (False, True)):
        base = f"{namespace}-{step}-{arrived}"
        lane = lane_of(client, base)
        steps.kill(step, arrived=arrived)
        with pytest.raises(Killed):
            commit_each(lane, parts)
        steps.clear()
        lane.close()
        heir = lane_of(client, base)
        commit_each(heir, parts)
        assert_law(client, base, ORDERS)
        assert client.exists(Keys(base).stream(recent.key, "ann"))


def test_a_roll_up_has_no_round_trip_of_its_own(client: redis.Redis, namespace: str, steps: Steps, eager: None) -> None:
    """What is long is read at the end of a commit, and rolled up at the beginning of the next."""
    keys, lane = Keys(namespace), lane_of(client, namespace)
    steps.clear()
    for count, order in enumerate(ORDERS, start=1):
        lane.commit([stretch([order])])
        assert steps.count == count
    assert lane.long.rolled_up > len(ORDERS)
    assert client.exists(keys.stream(recent.key, "ann"), keys.stream(ever.key, "ann")) == 2
    assert_law(client, namespace, ORDERS)


def test_of_many_that_are_long_those_wait_that_are_too_many_for_a_commit(
    client: redis.Redis, namespace: str, eager: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(long_blobs, "ROLL_ENTITIES_MAX", 2)
    people = [f"u{n}" for n in range(5)]
    orders = [Order(one, MIDNIGHT_US + n * MINUTE_US, n) for n, one in enumerate(people)]
    keys, lane, found = Keys(namespace), lane_of(client, namespace), []
    lane.commit([stretch(orders)])
    for offset in range(5, 9):
        orders.append(Order("zed", MIDNIGHT_US, offset))
        lane.commit([stretch([orders[-1]])])
        found.append(client.exists(*(keys.pending(recent.key, one) for one in people)))
    assert found == [5, 3, 1, 0]
    assert_law(client, namespace, orders)


def test_what_was_read_before_a_connection_broke_is_read_anew(
    client: redis.Redis, namespace: str, steps: Steps, eager: None
) -> None:
    """A commit that rolled up has arrived, its reply is lost: its roll-up must not be written over what it wrote."""
    for lost in (2, 3, 4):
        base = f"{namespace}-{lost}"
        lane = lane_of(client, base)

        def lose(number: int, lost: int = lost, lane: Lane = lane) -> None:
            if number == lost:
                steps.clear()
                lane.close()
                raise StoreUnavailableError("the connection broke after EXEC")

        steps.clear()
        steps.after = lose
        for first in range(0, 40, 5):
            for _ in range(2):
                with contextlib.suppress(StoreUnavailableError):
                    lane.commit([stretch(ORDERS[first : first + 5])])
            assert_law(client, base, ORDERS[: first + 5])


def test_a_reply_that_is_lost_is_made_good_by_the_same_call(client: redis.Redis, namespace: str, steps: Steps) -> None:
    lane = lane_of(client, namespace)

    def lose(number: int) -> None:
        steps.clear()
        lane.close()
        raise StoreUnavailableError("the connection broke after EXEC")

    steps.after = lose
    with pytest.raises(StoreUnavailableError):
        lane.commit([stretch(ORDERS)])
    assert lane.commit([stretch(ORDERS)]) == {}
    assert_law(client, namespace, ORDERS)


def test_a_dead_server_is_unavailable_and_back_when_it_is(own_valkey: Valkey, namespace: str) -> None:
    with own_valkey.connect() as client:
        lane = lane_of(client, namespace)
        lane.commit([stretch(ORDERS[:10])])
        own_valkey.kill()
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="cannot be reached"):
                lane.commit([stretch(ORDERS[10:20])])
        own_valkey.restart()
        lane.commit([stretch(ORDERS[10:])])
        assert_law(client, namespace, ORDERS)


def test_a_server_that_lost_acknowledged_writes_is_found_out(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:10])])
    older = {
        name: blob
        for name, blob in image(client, namespace).items()
        if name.endswith((b":p", b":s")) or b":progress:" in name
    }
    lane.commit([stretch(ORDERS[10:20])])
    client.mset(older)
    lane.close()
    for _ in range(2):
        with pytest.raises(StoreError, match=r"lost writes of view .* Start the stream again: it rewinds"):
            lane.commit([stretch(ORDERS[20:])])
    heir = lane_of(client, namespace)
    heir.commit([stretch(ORDERS[heir.next_offset(recent.key, "0") :])])
    assert_law(client, namespace, ORDERS)


def test_a_server_that_lost_everything_stops_its_lanes(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS[:10])])
    client.delete(*client.keys(f"{namespace}:*"))
    with pytest.raises(FencedError):
        lane.commit([stretch(ORDERS[10:])])
    with pytest.raises(FencedError, match="The store has lost its data"):
        lane.commit([stretch(ORDERS[10:])])


def test_pending_is_rolled_up_when_it_is_long_and_others_wait_too_or_else_when_it_is_twice_as_long(
    client: redis.Redis, namespace: str
) -> None:
    keys, lane = Keys(namespace), lane_of(client, namespace)
    limit = max(pending_module.ROLL_BYTES, pending_module.ROLL_RECORDS * Layout.of(recent).record.itemsize)
    offset = 0

    def lengths(entities: Sequence[str], commits: int) -> list[int]:
        nonlocal offset
        found = []
        for i in range(commits):
            orders = [Order(one, MIDNIGHT_US + i * MINUTE_US, offset + n) for n, one in enumerate(entities)]
            offset += len(orders)
            lane.commit([stretch(orders)])
            found.append(client.strlen(keys.pending(recent.key, entities[0])))
        return found

    def has_fallen(found: Sequence[int]) -> int:
        return sum(now < before for before, now in itertools.pairwise(found))

    step = Layout.of(recent).record.itemsize
    alone = lengths(["u1"], 120)
    assert limit < max(alone) < 2 * limit + 2 * step  # read by the next commit, rolled up by the one after it
    assert has_fallen(alone) >= 2
    assert client.strlen(keys.stream(recent.key, "u1")) > 0
    many = lengths([f"many{n}" for n in range(long_blobs.ROLL_ENTITIES_MIN)], 60)
    assert max(many) < limit + 2 * step
    assert has_fallen(many) >= 2


def test_pieces_that_share_their_entities_write_those_that_they_have_events_of(
    client: redis.Redis, namespace: str
) -> None:
    """events    ann 0   ann 1 │ bob 2   eve 3        one list of entities; the first stretch is applied already"""
    orders = [Order(entity, MIDNIGHT_US + n, n) for n, entity in enumerate(("ann", "ann", "bob", "eve"))]
    events = as_events(orders)
    first = Stretch("0", 2, MIDNIGHT_US + 1, dict.fromkeys(VIEWS, events.part(slice(0, 2))))
    second = Stretch("0", 4, MIDNIGHT_US + 3, dict.fromkeys(VIEWS, events.part(slice(2, 4))))
    lane, keys = lane_of(client, namespace), Keys(namespace)
    lane.commit([first])
    assert [client.exists(keys.pending(recent.key, one)) for one in ("ann", "bob", "eve")] == [1, 0, 0]
    before = client.strlen(keys.pending(recent.key, "ann"))
    lane.commit([first, second])
    assert client.strlen(keys.pending(recent.key, "ann")) == before
    assert_law(client, namespace, orders)


def test_rolling_up_drops_what_no_window_needs(client: redis.Redis, namespace: str, eager: None) -> None:
    orders = [Order("u1", MIDNIGHT_US + i * 3 * HOUR_US, i) for i in range(40)]
    lane = lane_of(client, namespace)
    kept = []
    for order in orders:
        lane.commit([stretch([order])])
        blob = client.get(Keys(namespace).stream(recent.key, "u1"))
        kept.append(len(unpack(Layout.of(recent), [blob])[1]))
    assert kept[-1] == kept[15]
    assert_law(client, namespace, orders)
    assert_law(client, namespace, orders, orders[-1].ts + 5 * HOUR_US)


def test_rolling_up_drops_what_a_finished_publication_covers(client: redis.Redis, namespace: str, eager: None) -> None:
    keys, lane = Keys(namespace), lane_of(client, namespace)
    early = [Order("u1", MIDNIGHT_US - HOUR_US + i, i) for i in range(5)]
    lane.commit([stretch(early)])
    publish(client, namespace, early, MIDNIGHT_US, recent)
    late = Order("u1", MIDNIGHT_US - 1, 5)  # behind the cut: archived, and its date repaired by a later publication
    for orders in ([late], []):  # it is read, then rolled up
        lane.commit([Stretch("0", 6, MIDNIGHT_US - 1, dict.fromkeys(VIEWS, as_events(orders)))])
    assert client.exists(keys.stream(recent.key, "u1"), keys.pending(recent.key, "u1")) == 0
    assert values(read(client, namespace, ["u1"]), recent)[0] == expected(early, recent, "u1", early[-1].ts + 1)
    publish(client, namespace, [*early, late], MIDNIGHT_US, recent)
    assert_law(client, namespace, [*early, late])


def test_keys_expire_when_no_window_can_need_them(client: redis.Redis, namespace: str) -> None:
    keys = Keys(namespace)
    now = MIDNIGHT_US + 30 * DAY_US
    lane = Lane(client, namespace, list(VIEWS.values()), ALL_SLOTS, clock_us=lambda: now)
    lane.take_over()
    lane.commit([stretch([Order("live", now - 1, 0), Order("old", MIDNIGHT_US, 1)])])
    window_s = (DAY_US + 15 * MINUTE_US) // 1_000_000
    live, old = (client.ttl(keys.pending(recent.key, entity)) for entity in ("live", "old"))
    assert window_s < live < window_s + 3 * 3600
    assert live + 29 * 86_400 < old < live + 31 * 86_400
    assert client.ttl(keys.pending(ever.key, "live")) == -1


def test_an_append_prolongs_what_it_grows_where_it_would_go_too_early(client: redis.Redis, namespace: str) -> None:
    """write    0 h        1 h          2 h        it is long, then read, then rolled up and written
    EXPIRE     told        known        told       known             known      told: the key is a new one"""
    pending, now = Keys(namespace).pending(recent.key, "u1"), [MIDNIGHT_US + 30 * DAY_US]
    lane = Lane(client, namespace, list(VIEWS.values()), ALL_SLOTS, clock_us=lambda: now[0])
    lane.take_over()
    window_s = (DAY_US + 15 * MINUTE_US) // 1_000_000

    def kept_s(after_us: int, orders: int = 1) -> int:
        now[0] += after_us
        told = _calls(client, "expire")
        offset = lane.next_offset(recent.key, "0")
        lane.commit([stretch([Order("u1", now[0] - 1 - n * MINUTE_US, offset + n) for n in range(orders)])])
        return client.ttl(pending) if _calls(client, "expire") > told else 0

    assert window_s + 15 * 60 < kept_s(0) < window_s + 3 * 3600
    assert kept_s(HOUR_US) == 0
    client.expire(pending, 60)
    assert kept_s(HOUR_US) > window_s
    assert kept_s(0, orders=60) == 0
    assert kept_s(MINUTE_US) == 0
    assert kept_s(MINUTE_US) > window_s
    assert client.strlen(pending) == Layout.of(recent).record.itemsize


def _calls(client: redis.Redis, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


def test_what_pieces_share_is_appended_once(client: redis.Redis, namespace: str) -> None:
    """partition 0   ann 00:00   bob 00:07
    partition 1   ann 00:00               one partial of ann: 00:00 holds both her orders"""
    orders, others = ORDERS[:2], [Order("ann", MIDNIGHT_US + 1, 0, 5, partition="1")]
    lane = lane_of(client, namespace)
    applied = lane.commit([stretch(orders), stretch(others, partition="1")])
    record = Layout.of(recent).record.itemsize
    assert [client.strlen(Keys(namespace).pending(recent.key, entity)) for entity in ("ann", "bob")] == [record, record]
    folded = applied[recent.key].folded
    assert [(one.events.keys.to_pylist(), len(one.events)) for one in folded] == [(["ann", "bob"], 2), (["ann"], 1)]
    assert_law(client, namespace, [*orders, *others])
