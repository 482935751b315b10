"""The sign of life of a flow: written beside it, from what its readers do.

    reader   poll  poll  poll ………(stuck)              a reader that waits for a store does not poll
    sign       ●     ●     ●                          `seen_us` is the last poll of the slowest reader

Lives here: the thread that says so. Invariants: it decides nothing and stops nobody; what it cannot write is left out.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence

import redis
from msgspec.structs import replace

from forebay.errors import ForebayError
from forebay.stores.signs import Sign, Signs
from streaming.parts import Parts

SIGN_INTERVAL_S = 2.0
"""A hash of some hundred bytes every two seconds; whoever asks takes several of them missing for a dead flow."""


@contextlib.contextmanager
def alive(parts: Parts, online: redis.Redis) -> Iterator[Callable[[int], None]]:
    """Within the block the flow's sign is written; gives what its readers call."""
    task, now_us = parts.task, parts.task.now_us()
    views, losses = tuple(parts.views), tuple(map(str, parts.summary.losses))
    sign = Sign(parts.number, now_us, now_us, workers=task.workers, views=views, losses=losses)
    signs = Signs(online, task.settings.namespace)
    one = Alive(signs, [source.name for source in task.sources], sign, task.now_us)
    one.start()
    try:
        yield one.polled
    finally:
        one.close("" if parts.stop.error is None else str(parts.stop.error))


class Alive:
    """Writes the sign of one process of a flow, for each of its sources, until it is closed."""

    def __init__(self, signs: Signs, sources: Sequence[str], sign: Sign, now_us: Callable[[], int]) -> None:
        self._signs, self._sources, self._sign, self._now_us = signs, sources, sign, now_us
        self._seen: dict[int, int] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alive", daemon=True)
        self.also: list[Callable[[], None]] = []
        """What else is done at each turn."""

    def start(self) -> None:
        """Begin to say so."""
        self._thread.start()

    def polled(self, reader: int) -> None:
        """A reader was at work just now."""
        self._seen[reader] = self._now_us()

    def close(self, why: str) -> None:
        """The flow has ended; `why` is empty where it ended in order."""
        self._closing.set()
        self._thread.join()
        self._write(replace(self._sign, seen_us=self._last(), ended_us=self._now_us(), why=why))

    def _run(self) -> None:
        while True:
            self._write(replace(self._sign, seen_us=self._last()))
            for step in self.also:
                with contextlib.suppress(ForebayError):
                    step()
            if self._closing.wait(SIGN_INTERVAL_S):
                return

    def _last(self) -> int:
        return min(self._seen.copy().values(), default=self._sign.seen_us)

    def _write(self, sign: Sign) -> None:
        for source in self._sources:
            with contextlib.suppress(ForebayError):
                self._signs.write(source, sign)
