"""What the processes of a flow tell each other while they run: a few numbers in memory that all of them see.

    worker                 0    1    2      stopping     waiting for a store = added − done, over all workers
    added, done online     ●    ●    ●         ●         each cell but `stopping` has one writer, so nothing is locked
    added, done offline    ●    ●    ●
    added, done streamed   ●    ●    ●
    polled_us              ●    ●    ●

Lives here: the board. Invariant: it is a matter of pace alone. What is read late costs time, and no event: what decides
which events are in a store is in the store.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from multiprocessing import get_context
from typing import Literal, get_args

Store = Literal["online", "offline", "streamed"]
"""What is waited for: Redis; the archive, and dead letters; the tables of partials, for each view by itself."""
STORES: tuple[Store, ...] = get_args(Store)
_CELLS = 2 * len(STORES) + 1
_STOPPED, _FAILED = 1, 2
_PLACES: dict[Store, int] = {store: 2 * n for n, store in enumerate(STORES)}
_POLLED = _CELLS - 1


class Board:
    """The board of a flow of some workers, in `cells` that its processes share, or in its own memory."""

    def __init__(self, workers: int, cells: MutableSequence[int] | None = None) -> None:
        self.workers = workers
        self._cells: MutableSequence[int] = [0] * _size(workers) if cells is None else cells

    @property
    def stopping(self) -> bool:
        """Whether some process wants all of them to end."""
        return self._cells[0] != 0

    @property
    def failing(self) -> bool:
        """Whether they are to end because something failed."""
        return self._cells[0] == _FAILED

    def stop(self) -> None:
        """Let all processes end."""
        self._cells[0] = self._cells[0] or _STOPPED

    def fail(self) -> None:
        """Let all processes end, because something failed: nobody waits for another any more."""
        self._cells[0] = _FAILED

    def add(self, worker: int, store: Store, events: int) -> None:
        """A worker has read more. Threads of one worker take turns."""
        self._cells[_first(worker) + _PLACES[store]] += events

    def done(self, worker: int, store: Store, events: int) -> None:
        """A worker has written what it or another has read."""
        self._cells[_first(worker) + _PLACES[store] + 1] += events

    def waiting(self, store: Store) -> int:
        """Events that are read and not yet in a store, over all workers."""
        firsts = [_first(worker) + _PLACES[store] for worker in range(self.workers)]
        return sum(self._cells[first] - self._cells[first + 1] for first in firsts)

    def polled(self, worker: int, now_us: int) -> None:
        """A worker's reader was at work."""
        self._cells[_first(worker) + _POLLED] = now_us

    def polled_us(self) -> int | None:
        """When the slowest reader was at work last; `None` while one has never been."""
        return min(self._cells[_first(worker) + _POLLED] for worker in range(self.workers)) or None


def shared_board(workers: int) -> Board:
    """A board that processes see as well, if it is handed to them when they are started."""
    return Board(workers, get_context("spawn").RawArray("q", _size(workers)))  # type: ignore[arg-type]  # it is one


def _size(workers: int) -> int:
    return _first(workers)


def _first(worker: int) -> int:
    return 1 + worker * _CELLS
