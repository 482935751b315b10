"""What a flow has read and not yet written: the bound on its memory.

Lives here: the count, by the store that is waited for. Readers stop reading while it is full; nothing else in the flow
waits for anything. A reader looks before each poll, so the count goes beyond its bound by at most one poll of each
reader (some chunks of each of its logs).
"""

from __future__ import annotations

import threading
from typing import Literal

EVENTS_MAX = 200_000
"""Some hundred megabytes of columns at most, and a second or two of work for a slow store to fall behind by."""
Store = Literal["online", "offline"]


class Backlog:
    """Events that were handed to writers and are not in their stores yet, over all threads of a flow."""

    def __init__(self, events_max: int = EVENTS_MAX) -> None:
        self._lock, self.events_max = threading.Lock(), events_max
        self._events: dict[Store, int] = {"online": 0, "offline": 0}
        self.most = 0
        """The most that it has held."""

    def add(self, store: Store, events: int) -> None:
        """More to write."""
        with self._lock:
            self._events[store] += events
            self.most = max(self.most, sum(self._events.values()))

    def done(self, store: Store, events: int) -> None:
        """Written."""
        with self._lock:
            self._events[store] -= events

    def waiting(self, store: Store) -> int:
        """Events that wait for a store."""
        return self._events[store]

    def full(self) -> bool:
        """Whether readers should wait."""
        return sum(self._events.values()) > self.events_max
