"""What `streamed/` holds was judged by the archive: no worker writes there what another has read and not yet archived.

worker 0   reads and judges ─────────────────(dies before it archives)
worker 1          its lanes ─▶ Redis … ─▶ streamed/                 then Redis loses it all, and the clock goes on
"""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from forebay.errors import FencedError
from forebay.instants import MINUTE_US, instant_text
from forebay.language.definitions import Definitions
from streaming.board import Board
from streaming.chunk import Chunk
from streaming.parts import Parts, Task, take_for_processes, worker_parts
from streaming.routing import reader_of
from streaming.stop import Stop
from streaming.summary import Summary
from tests.streaming.test_losses import wipe
from tests.streaming.world import START_US, VIEWS, World, check_archive, check_online, check_streamed, lines, orders

AHEAD = 20


@pytest.fixture
def world(home: Path, online_url: str, namespace: str) -> World:
    """A log whose last events are dated ahead of the clock of whoever reads it first."""
    world = World.make(home, online_url, namespace)
    ahead = [
        {"event_id": f"ahead{n}", "user": f"u{n}", "merchant": f"m{n}", "amount": 1, "kind": "paid"}
        | {"ts": instant_text(START_US + 90 * MINUTE_US + n)}
        for n in range(AHEAD)
    ]
    world.append("a.ndjson", [*lines(1, 300), *(json.dumps(event).encode() for event in ahead)])
    return world


def two_workers(world: World) -> tuple[Parts, Parts]:
    """The worker that reads the log and the other one, at an instant before the last events."""
    task = Task(world.settings, Definitions.of(*VIEWS), [orders], 2, now_us=lambda: START_US + 88 * MINUTE_US)
    taken, board, stops = take_for_processes(task, world.online), Board(2), [Stop(), Stop()]
    parts = [worker_parts(task, taken, n, world.online, stops[n], Summary(), board) for n in range(2)]
    for stop in stops:
        stop.join(board)
    reads = reader_of(orders.name, "a.ndjson", 2)
    return parts[reads], parts[1 - reads]


def apply_all(first: Parts, second: Parts) -> None:
    """All that the log has is decoded by the first and applied online by both; nothing is archived."""
    by_writer = {n: parts.writer(n) for parts in (first, second) for n in parts.lanes}
    (reads,) = first.lanes
    for chunk in first.reader(reads).next_batch():
        if isinstance(chunk, Chunk):
            decoded = first.decode([chunk])[0]
            assert len(decoded.dead) >= AHEAD
            first.delta.archive(decoded)
            for piece in first.split([decoded]):
                by_writer[piece.writer].write([piece])  # type: ignore[union-attr]  # a chunk makes no heartbeats


def test_what_nobody_has_archived_is_not_in_streamed(world: World) -> None:
    first, second = two_workers(world)
    apply_all(first, second)
    second.delta.flush()
    assert all(world.offline.streamed(view).positions() == {} for view in VIEWS)
    wipe(world)
    world.run()
    check_archive(world)
    check_streamed(world)
    assert check_online(world) > 100


def test_it_is_there_once_it_is_archived_and_a_worker_that_ends_waits_for_that(world: World) -> None:
    first, second = two_workers(world)
    apply_all(first, second)
    second.delta.start()
    ending = threading.Thread(target=second.delta.close)
    ending.start()
    first.delta.flush()
    ending.join()
    assert second.stop.error is None
    positions = [world.offline.streamed(view).positions() for view in VIEWS]
    assert [set(found.values()) for found in positions] == [{len(world.log["a.ndjson"])}] * len(VIEWS)
    assert all(len(found) == 8 for found in positions)


@pytest.mark.parametrize("why", ["another flow", "a failure"])
def test_a_worker_does_not_wait_for_ever(world: World, why: str) -> None:
    first, second = two_workers(world)
    apply_all(first, second)
    if why == "another flow":
        world.run()
    else:
        first.stop.fail(ValueError("it failed"))
    second.delta.start()
    second.delta.close()
    assert isinstance(second.stop.error, FencedError) == (why == "another flow")
    if why == "a failure":
        world.run()
    check_streamed(world)
