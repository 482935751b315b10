"""A question to a store that is asked aside: one that hangs holds up neither who asks nor the end of the process.

Lives here: the thread. Readers and lanes must go on while S3 does not answer, which it may do for a minute; the threads
of `concurrent.futures` would be waited for when the interpreter ends.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def ask_aside(question: Callable[[], T]) -> Future[T]:
    """The answer, once it is there; whatever the question raises is its exception."""
    asked: Future[T] = Future()

    def run() -> None:
        try:
            asked.set_result(question())
        except BaseException as error:  # noqa: BLE001  who reads the answer gets it
            asked.set_exception(error)

    threading.Thread(target=run, name="aside", daemon=True).start()
    return asked
