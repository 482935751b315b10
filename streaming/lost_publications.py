"""A flow ends where Redis forgets a publication that it had finished: an older copy of it was put in its place.

A lane finds out when it reconnects that its own commits are gone (`forebay.online.lane`). Where none was made since the
copy it finds nothing; what was published meanwhile may be gone all the same. The flow that begins next publishes it
again (`streaming/parts.py`). Lives here: looking. What comes and goes between two looks is found by that next flow, or
by `forebay doctor`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis

from forebay.errors import StoreError
from forebay.online.connection import address
from forebay.online.slot_state import read_cuts
from streaming.parts import Task
from streaming.stop import Stop
from streaming.turns import taken_every

LOOK_INTERVAL_S = 5.0
"""A look is an MGET of 64 small values for each view."""


@contextlib.contextmanager
def publications_watched(task: Task, online: redis.Redis, stop: Stop) -> Iterator[None]:
    """Within the block the flow fails where a slot of a view is behind a publication that all of them had."""
    known: dict[str, int] = {}

    def look() -> None:
        for view in task.views:
            found = min(cut.publication for cut in read_cuts(online, task.settings.namespace, view))
            last = known.setdefault(view.key, found)
            if found < last:
                stop.fail(
                    StoreError(
                        f"Redis at {address(online)} lost publication number {last} of view {view.key!r}, which it had "
                        "acknowledged. Start the stream again: it publishes it again."
                    )
                )
            known[view.key] = max(found, last)

    with taken_every(LOOK_INTERVAL_S, "publications", look):
        yield
