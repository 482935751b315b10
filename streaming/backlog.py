"""What a flow has read and not yet written: the bound on its memory.

Lives here: the count. Readers stop reading while it is full; nothing else in the flow waits for anything.
"""

from __future__ import annotations

import threading

EVENTS_MAX = 200_000
"""Some hundred megabytes of columns at most, and a second or two of work for a slow store to fall behind by."""


class Backlog:
    """Events that were handed to writers and are not in their stores yet, over all threads of a flow."""

    def __init__(self, events_max: int = EVENTS_MAX) -> None:
        self._lock, self._events, self._events_max = threading.Lock(), 0, events_max

    def add(self, events: int) -> None:
        """More to write."""
        with self._lock:
            self._events += events

    def done(self, events: int) -> None:
        """Written."""
        with self._lock:
            self._events -= events

    def full(self) -> bool:
        """Whether readers should wait."""
        return self._events > self._events_max
