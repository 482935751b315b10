"""Marks of what was loaded, made again where Redis forgot them: an older copy was put in its place, and no number of it
shows that something is lost.

Lives here: looking now and then, beside the flow, because it takes the archive to know what is to be marked. A flow
that begins and finds a loss marks the views concerned before it goes on (`streaming/parts.py`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import redis

from forebay.backfill.gaps import mark_gaps
from forebay.offline.tables import OfflineStore
from streaming.parts import Task
from streaming.turns import taken_every

LOOK_INTERVAL_S = 3600.0


@contextlib.contextmanager
def gaps_marked(task: Task, online: redis.Redis) -> Iterator[None]:
    """Within the block the views of a flow are marked where they lack what was loaded, at once and every hour."""
    store = OfflineStore(task.settings)

    def mark() -> None:
        mark_gaps(online, task.settings.namespace, store, task.views)

    with taken_every(LOOK_INTERVAL_S, "gaps", mark):
        yield
