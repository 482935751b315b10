"""The writer of a worker: what is there at once is committed at once, in order, and passed on piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
import redis

from forebay.errors import StoreError
from forebay.online import pending
from forebay.online.lane import Lane, wall_clock_us
from streaming import lane_writer
from streaming.heartbeat import Heartbeat, Quiet
from streaming.lane_writer import LaneWriter
from streaming.metrics import Metrics
from streaming.partials import Partials
from streaming.retry import Patience
from streaming.routing import lanes_of
from streaming.split import Piece
from tests.stores.online_world import ALL_SLOTS, MIDNIGHT_US, VIEWS, Order, as_events, assert_law, recent

ORDERS = [Order(("ann", "bob")[i % 2], MIDNIGHT_US + i, i, i) for i in range(12)]
Writer = tuple[LaneWriter, list[Partials]]


@pytest.fixture
def client(online_url: str) -> Iterator[redis.Redis]:
    """A client of the online store."""
    with redis.Redis.from_url(online_url, protocol=2) as client:
        yield client


def _ignore(*what: object) -> None:
    pass


@pytest.fixture
def writer(client: redis.Redis, namespace: str) -> Writer:
    """One over an empty store, and what it passes on."""
    lane = Lane(client, namespace, list(VIEWS.values()), ALL_SLOTS)
    lane.take_over()
    passed: list[Partials] = []
    told = (passed.append, _ignore, _ignore)
    return LaneWriter(lane, lanes_of(0, 1), VIEWS, Patience(), *told, Metrics(), wall_clock_us), passed


def piece(orders: Sequence[Order], first: int, partition: str = "0") -> Piece:
    """Orders of one partition, from an offset on."""
    newest_us = max(order.ts for order in orders)
    views = dict.fromkeys(VIEWS, as_events(orders))
    return Piece(0, recent.source, partition, first, orders[-1].offset + 1, newest_us, views, len(orders))


@pytest.mark.parametrize("large", [False, True])
def test_pieces_that_are_there_at_once_are_one_commit(
    client: redis.Redis, namespace: str, writer: Writer, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """chunks    0…3 | 4…7 of partition 0, 0…3 of partition 1       one commit, three rows of streamed/

    Small pieces are folded at once, and the table folds a second's worth of them; large ones are folded each by itself.
    """
    monkeypatch.setattr(pending, "APART_MIN", 1 if large else 512)
    to, passed = writer
    others = [Order(order.entity, order.ts, order.offset, 7, partition="1") for order in ORDERS[:4]]
    to.write([piece(ORDERS[:4], 0), piece(ORDERS[4:8], 4), piece(others, 0, "1")])
    assert {known.commit for known in to.lane.progress[recent.key].values()} == {1}
    stretches = [(one.partition, one.first_offset, one.next_offset) for one in passed if one.view.key == recent.key]
    assert stretches == [("0", 0, 4), ("0", 4, 8), ("1", 0, 4)]
    folded = [int(one.tiles.records["events"].sum()) for one in passed if one.tiles is not None]
    assert folded == ([4] * len(passed) if large else [])
    assert_law(client, namespace, [*ORDERS[:8], *others])


def test_a_commit_holds_no_more_than_it_may(
    client: redis.Redis, namespace: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_writer, "COMMIT_EVENTS_MAX", 8)
    to, passed = writer
    to.write([piece(ORDERS[n : n + 4], n) for n in range(0, 12, 4)])
    assert [one.commit for one in passed if one.view.key == recent.key] == [1, 1, 2]
    assert_law(client, namespace, ORDERS)


def test_a_heartbeat_moves_what_came_before_it(client: redis.Redis, namespace: str, writer: Writer) -> None:
    to, _ = writer
    seen_us = ORDERS[-1].ts + 60_000_000
    beat = Heartbeat(recent.source, seen_us, {"0": Quiet(8, seen_us)})
    to.write([piece(ORDERS[:8], 0), beat, piece(ORDERS[8:], 8)])
    assert {known.watermark_us for known in to.lane.progress[recent.key].values()} == {seen_us}
    assert_law(client, namespace, ORDERS)


def test_a_heartbeat_moves_no_partition_of_which_something_is_not_applied(writer: Writer) -> None:
    to, _ = writer
    seen_us, others = ORDERS[-1].ts + 60_000_000, [Order("ann", MIDNIGHT_US + 1, 0, 7, partition="1")]
    ends = {"0": Quiet(8, seen_us), "1": Quiet(1, seen_us)}
    to.write([piece(ORDERS[:4], 0), piece(others, 0, "1"), Heartbeat(recent.source, seen_us, ends)])
    for known in to.lane.progress[recent.key].values():
        assert {name: one.newest_us for name, one in known.partitions.items()} == {"0": ORDERS[3].ts, "1": seen_us}


def test_events_are_as_fresh_as_the_clock_says_when_they_are_committed(client: redis.Redis, namespace: str) -> None:
    lane, metrics, now_us = Lane(client, namespace, [recent], ALL_SLOTS), Metrics(), ORDERS[-1].ts + 3_000_000
    lane.take_over()
    told = (_ignore, _ignore, _ignore)
    to = LaneWriter(lane, lanes_of(0, 1), {recent.key: recent}, Patience(), *told, metrics, lambda: now_us)
    events = {recent.key: as_events(ORDERS)}
    to.write([Piece(0, recent.source, "0", 0, len(ORDERS), ORDERS[-1].ts, events, len(ORDERS))])
    found = metrics.registry.get_sample_value("forebay_stream_freshness_seconds_sum", {"view": recent.key})
    assert found == pytest.approx(sum(now_us - order.ts for order in ORDERS) / 1e6)


def test_entities_that_are_rolled_up_are_counted(
    client: redis.Redis, namespace: str, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "ROLL_BYTES", 1)
    monkeypatch.setattr(pending, "ROLL_RECORDS", 0)
    to, _ = writer
    for n in range(0, 12, 2):
        to.write([piece(ORDERS[n : n + 2], n)])
    found = to.metrics.registry.get_sample_value("forebay_stream_rollups_total")
    assert found is not None
    assert found >= len(VIEWS) * 2
    assert_law(client, namespace, ORDERS)


def test_a_gap_within_a_batch_is_refused(client: redis.Redis, namespace: str, writer: Writer) -> None:
    to, passed = writer
    with pytest.raises(StoreError, match="continues at offset 8, but was applied up to 4: events would be lost"):
        to.write([piece(ORDERS[:4], 0), piece(ORDERS[8:], 8)])
    assert not passed
    assert not any(to.lane.progress.values())
