"""What a flow has read and not yet written: the bound on its memory.

Lives here: the count, by the store that is waited for. Readers stop reading while it is full; nothing else in the flow
waits for anything. What one process has read another may write, so the numbers are on the board. A reader looks before
each poll, so the count goes beyond its bound by at most one poll of each reader (some chunks of each of its logs).

What the workers of a flow hold together may be so much for each of them, whichever holds it. The archive takes
what has come once a second, so a bound is also a speed that a flow cannot pass: one for all workers together held two
of them back where one was not (ADR 0230).

Partials for `streamed/` have a bound of their own. Mostly they follow an archive that has a bound; what is read from
the archive, or by another worker, follows none.
"""

from __future__ import annotations

import threading

from streaming.board import Board, Store

EVENTS_MAX = 200_000
"""For each worker: some hundred megabytes of columns at most, and a second or two of work for a slow store to fall
behind by.
"""
PARTIALS = 2
"""How many times as many events may wait for each table of partials: while those of one flush are written, the archive
takes the next.
"""


class Backlog:
    """Events that were handed to writers and are not in their stores yet, over all workers of a flow of some views."""

    def __init__(
        self, events_max: int = EVENTS_MAX, board: Board | None = None, worker: int = 0, views: int = 1
    ) -> None:
        self.board, self._worker = board or Board(1), worker
        self._lock, self.events_max = threading.Lock(), events_max * self.board.workers
        self.partials_max = PARTIALS * views * self.events_max
        self.most = 0
        """The most that it has held when this worker added to it."""

    def add(self, store: Store, events: int) -> None:
        """More to write."""
        with self._lock:
            self.board.add(self._worker, store, events)
            self.most = max(self.most, self._all())

    def done(self, store: Store, events: int) -> None:
        """Written."""
        with self._lock:
            self.board.done(self._worker, store, events)

    def waiting(self, store: Store) -> int:
        """Events that wait for a store."""
        return self.board.waiting(store)

    def full(self) -> bool:
        """Whether readers should wait."""
        return self._all() > self.events_max or self.waiting("streamed") > self.partials_max

    def _all(self) -> int:
        return self.board.waiting("online") + self.board.waiting("offline")
