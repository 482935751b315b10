"""How often a flow commits: at once, or with `--linger` what has come meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from streaming.backlog import Backlog
from streaming.board import Board
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.run import parse
from streaming.sources import POLL_INTERVAL, Reader
from streaming.stop import Stop
from tests.streaming.world import World, await_that, check, end, lines, orders


@dataclass
class Told:
    """A log that gives what it is told to, and its opening."""

    chunks: list[Chunk] = field(default_factory=list)
    source: Any = orders
    until_end: bool = False
    ended: bool = True
    unfinished: tuple[str, ...] = ()

    def open(self, reader: int, readers: int) -> list[Any]:
        return [self]

    def poll(self) -> list[Chunk]:
        found, self.chunks = self.chunks, []
        return found

    def ends(self) -> list[Any]:
        return []


def reader(told: Told, linger_s: float) -> Reader:
    return Reader(told, 0, 1, Stop(), Backlog(board=Board(1)), print, linger_s=linger_s)  # type: ignore[arg-type]  # what a reader asks of its logs


def chunk(events: int) -> Chunk:
    return Chunk(orders, "a.ndjson", 0, events, [b"{}"] * events)


def waits(told: Told, linger_s: float) -> timedelta | None:
    """How long the reader waits after its next poll."""
    one = reader(told, linger_s)
    began = datetime.now(UTC)
    one.next_batch()
    awake = one.next_awake()
    return None if awake is None else awake - began


def test_a_reader_that_lingers_waits_after_some_events() -> None:
    waited = waits(Told([chunk(3)]), 0.5)
    assert waited is not None
    assert waited >= timedelta(seconds=0.5)
    assert waits(Told([chunk(3)]), 0.0) is None


def test_a_reader_that_is_behind_or_is_to_end_does_not_wait() -> None:
    assert waits(Told([chunk(EVENTS_MAX)]), 0.5) is None
    assert waits(Told([chunk(EVENTS_MAX // 2), chunk(EVENTS_MAX // 2)]), 0.5) is None
    assert waits(Told([chunk(3)], until_end=True), 0.5) is None


def test_after_nothing_it_looks_again_soon() -> None:
    waited = waits(Told(), 0.0)
    assert waited is not None
    assert POLL_INTERVAL <= waited < timedelta(seconds=0.5)


@pytest.mark.parametrize("given", ["-0.1", "1.5", "nan", "soon"])
def test_what_is_no_time_to_linger_is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--linger", given])
    assert "--linger" in capsys.readouterr().err


def test_a_flow_that_lingers_loses_nothing(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    with world.flow("--linger", "0.3", "--workers", "2") as process:
        for n in range(3):
            await_that(lambda: world.archived() == len(world.log["a.ndjson"]), process)
            world.append("a.ndjson", lines(2 + n, 50, first=300 + 50 * n))
        assert end(process)[0] == 0
    world.run()
    check(world)


def test_flows_that_are_killed_or_replaced_while_they_linger_lose_nothing(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    with world.flow("--linger", "0.3") as first:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), first)
        world.append("a.ndjson", lines(2, 50, first=300))
        with world.flow("--linger", "0.3") as second:  # the first is killed while it lingers, or refused
            await_that(lambda: world.archived() == len(world.log["a.ndjson"]), second)
            world.append("a.ndjson", lines(3, 50, first=350))  # and so is the second
    world.run()
    check(world)
