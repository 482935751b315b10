"""A store that hangs holds up whoever asked it, and nobody else: readers and lanes ask aside."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from unittest import mock

from forebay.offline.archive import PartitionPosition
from forebay.offline.revived import Revived
from streaming.aside import ask_aside
from streaming.revived_log import RevivedLog
from streaming.settling import Settling
from tests.streaming.world import CHECKOUT, WAIT_S, World, await_that, end, lines, orders

T = TypeVar("T")


class Hanging:
    """A store that answers when the test says so."""

    def __init__(self) -> None:
        self.answers = Event()
        self.asked = 0

    def __call__(self, answer: T) -> T:
        self.asked += 1
        assert self.answers.wait(WAIT_S)
        return answer


ASKED_FOR_EVER = """
from forebay.offline.revived import Revived

end = Revived.end

def ask(revived, source):
    while True:
        end(revived, source)

Revived.end = ask
"""


def test_a_flow_ends_well_while_it_asks(world: World, tmp_path: Path) -> None:
    """A thread that comes back to Python within a library in Rust, while the interpreter ends, aborts the process."""
    (tmp_path / "sitecustomize.py").write_text(ASKED_FOR_EVER)
    world.append("a.ndjson", lines(1, 300))
    with mock.patch.dict(os.environ, {"PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}), world.flow() as process:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), process)
        code, said, errors = end(process, signal.SIGTERM)
    assert (code, errors) == (0, "")
    assert json.loads(said)["events"] > 0


def test_a_store_that_hangs_holds_up_no_reader() -> None:
    store = Hanging()
    revived = SimpleNamespace(end=lambda source: store(0))
    log = RevivedLog(orders, cast("Revived", revived), 0)
    assert [log.poll(), log.poll(), log.seen] == [[], [], False]
    store.answers.set()
    while not log.seen:
        assert log.poll() == []
    assert store.asked == 1


def test_a_store_that_hangs_holds_up_no_lane() -> None:
    store, now_s, asked = Hanging(), [0.0], list[Future[Any]]()
    known = {"a": PartitionPosition(3, 7, 5_000_000_000)}

    def ask(question: Callable[[], T]) -> Future[T]:
        asked.append(ask_aside(question))
        return cast("Future[T]", asked[-1])

    settled = Settling(lambda source: store(known), clock_s=lambda: now_s[0], ask=ask)
    unknown = settled(orders, lambda partition: 9)
    store.answers.set()
    asked[0].result(WAIT_S)
    first = settled(orders, lambda partition: 9)
    assert first > unknown
    store.answers.clear()
    now_s[0] = 61.0
    assert settled(orders, lambda partition: 9) == first, "what it heard last time"
    assert (store.asked, len(asked)) == (2, 2)
    store.answers.set()
