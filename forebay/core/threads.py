"""The same work on many pieces, by several threads. With one thread, nobody is asked but who asks.

May live here: handing pieces out. Invariants: what is made comes in the order of the pieces; with one thread no other
is started, so that who asks for one processor's work gets that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Given = TypeVar("Given")
Made = TypeVar("Made")


def on_threads(work: Callable[[Given], Made], pieces: Iterable[Given], threads: int) -> list[Made]:
    """What is made of each piece, in their order."""
    if threads <= 1:
        return [work(piece) for piece in pieces]
    with ThreadPoolExecutor(threads) as pool:
        return [done.result() for done in [pool.submit(work, piece) for piece in pieces]]


def worked_ahead(work: Callable[[Given], Made], pieces: Iterator[Given], threads: int) -> Iterator[Made]:
    """What is made of each piece, in their order, by so many threads that work ahead of whoever takes it."""
    if threads <= 1:
        yield from map(work, pieces)
        return
    with ThreadPoolExecutor(threads) as pool:
        coming: deque[Future[Made]] = deque()
        for piece in pieces:
            coming.append(pool.submit(work, piece))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
