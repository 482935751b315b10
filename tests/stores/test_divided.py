"""A large commit on one server: a transaction for each lane, of which some may be missing.

lane      0     1     2     3    …
commit    ●     ●     ×     ·         dies, or is refused: the lanes say themselves what they have
repeated  drop  drop  ●     ●
"""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable

import hiredis
import numpy as np
import pytest
import redis

from forebay.core.identity import LANES, SLOTS, slot_of
from forebay.errors import FencedError, StoreUnavailableError
from forebay.instants import MINUTE_US
from forebay.online import shares
from forebay.online.division import Division
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.online.shares import DIVIDED_MIN, TURNS
from forebay.online.wire import Wire
from tests.stores.conftest import Steps
from tests.stores.online_world import (
    ALL_SLOTS,
    MIDNIGHT_US,
    Order,
    assert_law,
    commit_each,
    ever,
    killed_and_repeated,
    lane_of,
    recent,
    stretch,
)

ORDERS = [Order(f"u{i % 30}", MIDNIGHT_US + i * 7 * MINUTE_US, i, i) for i in range(90)]
PARTS = [ORDERS[:40], ORDERS[40:60], ORDERS[60:]]


def progress_of(client: redis.Redis, namespace: str, view: str) -> list[Progress]:
    found = client.mget(Keys(namespace).progress(view, ALL_SLOTS))
    return [Progress() if blob is None else Progress.decode(blob) for blob in found]


@pytest.mark.parametrize("slots", [range(SLOTS), [5], [3, 11, 4, 12, 60]])
def test_a_division_puts_each_row_into_the_share_of_its_slot(slots: list[int]) -> None:
    lanes = [tuple(slot for slot in slots if slot % LANES == lane) for lane in range(LANES)]
    division = Division([share for share in lanes if share])
    rows = np.random.default_rng(1).choice(list(slots), 200)
    order = division.order(rows)
    in_order = rows if order is None else rows[order]
    found = {place: in_order[span] for place, span in division.spans(in_order)}
    assert sorted(np.concatenate([*found.values()]).tolist()) == sorted(rows.tolist())
    for place, some in found.items():
        assert set(some.tolist()) <= set(division.shares[place])
    assert division.spans(np.empty(0, np.int64)) == []


def test_a_commit_of_many_keys_is_a_transaction_for_each_lane(
    client: redis.Redis,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fewer keys are one transaction."""
    keys, lane, sent = Keys(namespace), lane_of(client, namespace), []
    send = Wire.send

    def watched(wire: Wire, commands: Iterable[bytes]) -> None:
        reader = hiredis.Reader()
        reader.feed(b"".join(commands := list(commands)))
        names = [command[1] for command in iter(reader.gets, False) if command[0] in (b"APPEND", b"MSET")]
        sent.append({int(name.decode().partition("{")[2][:2]) % LANES for name in names})
        send(wire, commands)

    monkeypatch.setattr(Wire, "send", watched)
    many = [Order(f"u{n}", MIDNIGHT_US + n, n) for n in range(DIVIDED_MIN // 2)]
    lane.commit([stretch(many)])
    assert sorted(map(tuple, filter(None, sent))) == [(lane,) for lane in range(LANES)]
    sent.clear()
    more = [Order("u1", MIDNIGHT_US + MINUTE_US, len(many))]
    lane.commit([stretch(more)])
    assert len(sent) == 1
    assert {known.next_offset("0") for known in progress_of(client, namespace, ever.key)} == {len(many) + 1}
    assert client.exists(keys.pending(recent.key, "u1")) == 1
    assert_law(client, namespace, [*many, *more])


def test_connections_that_the_server_closed_while_commits_were_small_do_not_fail_a_large_one(
    client: redis.Redis, namespace: str, divided: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = lane_of(client, namespace)
    lane.commit([stretch(PARTS[0])])
    for wire in lane._shares._turns:
        wire._connection._sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(StoreUnavailableError):
        lane.commit([stretch(PARTS[1])])
    lane.commit([stretch(PARTS[1])])
    monkeypatch.setattr(shares, "TURNS_REST_S", -1.0)
    for wire in lane._shares._turns:
        wire._connection._sock.shutdown(socket.SHUT_RDWR)
    lane.commit([stretch(PARTS[2])])
    assert_law(client, namespace, ORDERS)
    lane.close()


def test_killed_between_any_two_lanes_nothing_is_lost_or_doubled(
    client: redis.Redis,
    namespace: str,
    steps: Steps,
    eager: None,
    divided: None,
) -> None:
    """The second commit reads what is long, the third rolls it up; each is a send for each of 8 lanes."""
    for step, arrived in itertools.product(range(1, 2 * LANES + 1), (False, True)):
        killed_and_repeated(client, f"{namespace}-{step}-{arrived}", steps, PARTS, step, arrived=arrived)


@pytest.mark.parametrize(
    ("step", "arrived"), [*((n, False) for n in range(1, LANES + 1)), *((n, True) for n in range(TURNS, LANES + 1))]
)
def test_a_commit_that_arrived_in_some_lanes_is_repeated_in_the_others_alone(
    client: redis.Redis,
    namespace: str,
    steps: Steps,
    eager: None,
    divided: None,
    step: int,
    arrived: bool,
) -> None:
    lane = lane_of(client, namespace)
    commit_each(lane, PARTS[:2])

    def fail(number: int) -> None:
        if number == step:
            raise StoreUnavailableError("it cannot be reached")

    steps.clear()
    steps.before, steps.after = (lambda number: None, fail) if arrived else (fail, lambda number: None)
    with pytest.raises(StoreUnavailableError):
        lane.commit([stretch(PARTS[2])])
    steps.clear()
    reached = {slot for slot, known in enumerate(progress_of(client, namespace, recent.key)) if known.commit == 3}
    lanes = {slot % LANES for slot in reached}
    assert reached == {slot for slot in range(SLOTS) if slot % LANES in lanes}
    assert step - TURNS <= len(lanes) <= step
    applied = lane.commit([stretch(PARTS[2])])
    new = {slot_of(key) for one in applied.values() for some in one.folded for key in some.events.keys.to_pylist()}
    assert new == {slot_of(order.entity) for order in PARTS[2]} - reached
    assert_law(client, namespace, ORDERS)
    assert {known.next_offset("0") for known in progress_of(client, namespace, ever.key)} == {len(ORDERS)}
    lane.close()


@pytest.mark.parametrize("step", range(1, LANES + 1))
def test_a_lane_that_is_replaced_within_a_large_commit_writes_nothing_more(
    client: redis.Redis,
    namespace: str,
    steps: Steps,
    divided: None,
    step: int,
) -> None:
    lane, heirs = lane_of(client, namespace), []
    commit_each(lane, PARTS[:2])

    def replace(number: int) -> None:
        if number == step:
            steps.clear()
            heirs.append(lane_of(client, namespace))

    steps.clear()
    steps.before = replace
    with pytest.raises(FencedError, match="nothing of this commit was written in some of its lanes"):
        lane.commit([stretch(PARTS[2])])
    with pytest.raises(FencedError):
        lane.commit([stretch(PARTS[2])])
    assert_law(client, namespace, [*PARTS[0], *PARTS[1], *_written(client, namespace)])
    heirs[0].commit([stretch(PARTS[2])])
    assert_law(client, namespace, ORDERS)


def _written(client: redis.Redis, namespace: str) -> list[Order]:
    """The orders of the last part in lanes that have it."""
    known = progress_of(client, namespace, recent.key)
    return [order for order in PARTS[2] if known[slot_of(order.entity)].next_offset("0") == len(ORDERS)]
