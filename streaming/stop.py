"""Why and when a flow ends: one flag that all of its threads look at, and all of its processes.

Lives here: the flag. Nothing in a flow raises through Bytewax, whose threads would each print a stack; a step that
fails puts its error here, the readers end at their next turn, and `run.py` says the error once. Invariants: the first
error is the one kept; after one of a log, which is of what comes next, all that was read before becomes durable.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from streaming.board import Board

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Set once, by a signal or by the first error; read by every thread of the flow.

    With a `board`, what one process sets ends the readers of all.
    """

    def __init__(self, board: Board | None = None) -> None:
        self._requested, self._board = False, board
        self.has_begun = False
        """Whether the flow has taken over: what it reads from then on is to be written, however long that takes."""
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._of_log: BaseException | None = None

    @property
    def requested(self) -> bool:
        """Whether readers should end, so that what was read drains into the stores."""
        return self._requested or (self._board is not None and self._board.stopping)

    @property
    def before_begin(self) -> bool:
        """Whether the flow should end and has not begun: nothing is worth waiting for."""
        return self.requested and not self.has_begun

    @property
    def error(self) -> BaseException | None:
        """The first error of the flow."""
        return self._of_log or self._error

    @property
    def failed(self) -> bool:
        """Whether nothing may be written to a store any more."""
        return self._error is not None

    @property
    def has_drained(self) -> bool:
        """Whether a flow that ended with an error has written all that it had read."""
        return self._of_log is not None and not self.failed

    def request(self) -> None:
        """End the flow after what was read is durable."""
        self._requested = True  # no lock: a signal comes wherever the main thread is
        if self._board is not None:
            self._board.stop()

    def join(self, board: Board) -> None:
        """Stop with the processes of a flow from now on."""
        self._board = board
        if self._requested:
            board.stop()

    def fail(self, error: BaseException) -> None:
        """End the flow at once; what is not in the stores yet is read again by the next flow."""
        with self._lock:
            self._error = self._error or error
        if self._board is not None:
            self._board.fail()
        self.request()

    def drain(self, error: BaseException) -> None:
        """End the flow by an error of a log after what was read before is durable: the log may not have it any more."""
        with self._lock:
            self._of_log = self._of_log or error
        self.request()

    @contextmanager
    def draining(self) -> Iterator[None]:
        """Keep an error of the block, which reads a log, instead of raising it, and drain."""
        try:
            yield
        except BaseException as error:  # noqa: BLE001  as in `failing`
            if not self.failed:
                self.drain(error)

    @contextmanager
    def failing(self, kind: type[BaseException] = Exception) -> Iterator[None]:
        """Keep an error of the block instead of raising it. A panic of a library in Rust is a `BaseException` alone."""
        try:
            yield
        except kind as error:  # whatever it is, it ends the flow and is said once, by run.py
            self.fail(error)

    @staticmethod
    @contextmanager
    def signals_held() -> Iterator[None]:
        """Within the block SIGTERM and SIGINT wait, also for a process that is started in it, until `on_signals`."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Within the block SIGTERM and SIGINT drain the flow; a second one of either ends the process at once.

        It does so by the system's own way: an exception in the main thread would wait for all others.
        """
        before = {number: signal.getsignal(number) for number in SIGNALS}

        def handle(number: int, frame: FrameType | None) -> None:
            for each in SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            self.request()

        for number in SIGNALS:
            signal.signal(number, handle)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for number in SIGNALS:
                signal.signal(number, before[number])
