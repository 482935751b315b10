"""A flow's process without Bytewax: its real parts, driven one step at a time.

Lives here: what Bytewax does for the parts (calling them, queues between them) and what a process's end does to them.
The order of steps of one reader or writer is kept; everything else is the scheduler's to choose.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import redis

from forebay.errors import StoreUnavailableError
from forebay.ingest.batch import FUTURE
from streaming.flow import decoded
from streaming.heartbeat import Heartbeat
from streaming.parts import Task, take_over
from streaming.retry import Patience
from streaming.split import Piece
from streaming.stop import Stop
from streaming.summary import Summary
from tests.simulation.shop import Place

T = TypeVar("T")
TRIES_MAX = 4


@dataclass(frozen=True)
class Tries(Patience):
    """Patience that waits for nothing."""

    def __call__(self, call: Callable[[], T]) -> T:
        for _ in range(TRIES_MAX):
            try:
                return call()
            except StoreUnavailableError as error:
                last = error
        raise last


class Process:
    """One flow, from its take-over to its end."""

    def __init__(self, task: Task, online: redis.Redis) -> None:
        self.dead = False
        self.busy: set[str] = set()
        """The threads that stand in the middle of something."""
        self.refused: set[Place] = set()
        """What it found to be dated too far ahead."""
        self.stop = Stop()
        self.parts = take_over(task, online, self.stop, Summary())
        workers = range(task.workers)
        self._readers = [self.parts.reader(n) for n in workers]
        self._writers = [self.parts.writer(n) for n in workers]
        self._queues: list[deque[list[Piece | Heartbeat]]] = [deque() for _ in workers]

    @property
    def workers(self) -> int:
        return len(self._readers)

    @property
    def error(self) -> BaseException | None:
        """Why it stopped."""
        return self.stop.error

    @property
    def waiting(self) -> int:
        """Pieces that no writer has taken."""
        return sum(len(pieces) for queue in self._queues for pieces in queue)

    def read(self, n: int) -> int:
        """A reader polls; what it finds is decoded and goes to the archive's writer and into the queues."""
        found = 0
        with self.stop.failing():
            try:
                items = self._readers[n].next_batch()
            except StopIteration:
                return 0
            judged = decoded(self.parts.decode, items)
            for item in judged:
                if not isinstance(item, Heartbeat):
                    found += 1
                    self.refused |= {(one.partition, one.offset) for one in item.dead if one.reason == FUTURE}
                self.parts.delta.archive(item)
            pieces = self.parts.split(judged)
            for writer, queue in enumerate(self._queues):
                if mine := [piece for piece in pieces if piece.writer == writer]:
                    queue.append(mine)
        return found

    def write(self, n: int) -> None:
        """A writer takes the next pieces of its queue: those of one poll."""
        with self._thread(f"writer {n}") as free:
            if free and not self.stop.failed and self._queues[n]:
                self._writers[n].write(self._queues[n].popleft())

    def flush(self) -> None:
        """The background writer of the offline store takes its turn."""
        with self._thread("flush") as free:
            if free and not self.stop.failed:
                self.parts.delta.flush()

    @contextmanager
    def _thread(self, name: str) -> Iterator[bool]:
        """One thread does one thing at a time: whether this one is free."""
        free = name not in self.busy
        self.busy.add(name)
        try:
            with self.stop.failing():
                yield free
        finally:
            if free:
                self.busy.discard(name)

    def end(self) -> None:
        """What the death of the process does: its connections are gone."""
        self.dead = True
        for lane in self.parts.lanes.values():
            lane.close()
        for reader in self._readers:
            reader.close()
