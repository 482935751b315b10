"""A store that hangs holds up whoever asked it, and nobody else: readers and lanes ask aside."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Event
from types import SimpleNamespace
from typing import Any, TypeVar, cast

from forebay.offline.archive import PartitionPosition
from forebay.offline.revived import Revived
from streaming.aside import ask_aside
from streaming.revived_log import RevivedLog
from streaming.settling import Settling
from tests.streaming.world import WAIT_S, orders

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
