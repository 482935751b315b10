"""Chunks of commands on their way to the online store: some at a time, each fenced, no faster than was asked for.

A transaction is answered once it was applied, and one connection holds one fenced transaction (`forebay.online.fence`).
So that neither side waits for the other, chunks go out on several connections in turn, each with a guard of its own
for the same token:

    here     pack 1   pack 2     pack 3     pack 4
    wire 1          └─ send 1, replies ─┘ └─ send 3 …
    wire 2                   └─ send 2, replies ─┘ └─ send 4 …

Some more wait, packed, for a connection to be free. Chunks that are under way together may be applied in either order;
`settle` waits for all of them. Whatever is sent on any of the connections once the token is gone isn't applied.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from forebay.online.resp import Chunk

AHEAD = 2
"""Chunks for each connection that are packed and wait, so that it has its next one without asking for it."""
UNIT_BYTES = 1024
"""A chunk counts as its keys or as its kilobytes, whichever are more: to the server both are work."""


class Throttle:
    """Lets `per_s` units pass in a second (0: any number), one chunk after another."""

    def __init__(
        self,
        per_s: int,
        clock_s: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._per_s, self._clock_s, self._sleep = per_s, clock_s, sleep
        self._free_s = clock_s()

    def wait(self, chunk: Chunk) -> None:
        """Return when the chunk may go: when those before it have had their time."""
        if not self._per_s:
            return
        now_s = self._clock_s()
        if self._free_s > now_s:
            self._sleep(self._free_s - now_s)
        units = max(chunk.keys, len(chunk.data) / UNIT_BYTES)
        self._free_s = max(self._free_s, now_s) + units / self._per_s


class Fenced(Protocol):
    """A connection on which a chunk is applied whole, or not at all (`forebay.online.fence`)."""

    def write(self, chunk: Chunk) -> None:
        """Run a chunk as one transaction. Raises `FencedError`, `StoreError`."""
        ...


class Bulk:
    """Sends chunks on the connections of some fences, which share a token and are armed."""

    def __init__(self, fences: Sequence[Fenced], throttle: Throttle) -> None:
        self._throttle, self._at_once = throttle, len(fences)
        self._free: queue.SimpleQueue[Fenced] = queue.SimpleQueue()
        for fence in fences:
            self._free.put(fence)
        self._pool = ThreadPoolExecutor(len(fences), "publication")
        self._under_way: deque[Future[None]] = deque()

    def send(self, chunk: Chunk) -> None:
        """Have a chunk sent as soon as a connection is free. Raises what an earlier one failed with."""
        if len(self._under_way) == self._at_once * (1 + AHEAD):
            self._under_way.popleft().result()
        self._throttle.wait(chunk)
        self._under_way.append(self._pool.submit(self._commit, chunk))

    def settle(self) -> None:
        """Wait until all that was sent is applied. Raises `FencedError`, `StoreError`."""
        while self._under_way:
            self._under_way.popleft().result()

    def close(self) -> None:
        """Wait until nothing is under way, whatever became of it; what has not begun is not sent."""
        self._pool.shutdown(cancel_futures=True)

    def _commit(self, chunk: Chunk) -> None:
        fence = self._free.get()
        try:
            fence.write(chunk)
        finally:
            self._free.put(fence)
