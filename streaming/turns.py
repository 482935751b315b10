"""A step that is taken again and again beside a flow, in a thread of its own.

Lives here: the thread. Invariants: a step that fails is left out, and taken again at the next turn; whatever it does,
the flow goes on. What Forebay refuses on purpose (a store that is away) is not told here: the flow tells that.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from forebay.errors import ForebayError
from streaming.logs import LOG

END_WAIT_S = 5.0
"""A step that waits for a store that is away holds up the end of a flow no longer than this."""


@contextlib.contextmanager
def taken_every(interval_s: float, name: str, step: Callable[[], None]) -> Iterator[None]:
    """Within the block a step is taken, at once and then at each interval."""
    closing = threading.Event()

    def run() -> None:
        while True:
            try:
                step()
            except ForebayError:
                pass
            except BaseException as error:  # noqa: BLE001  whatever it is, the next turn may do better
                LOG.error("step_failed", step=name, why=f"{type(error).__name__}: {error}")
            if closing.wait(interval_s):
                return

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()
        thread.join(END_WAIT_S)
