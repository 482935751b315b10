"""What a flow says of itself while it runs: its sign of life, and how far behind it is.

    reader   poll  poll  poll ………(stuck)              whose worker waits for Redis does not poll
    sign       ●     ●     ●                          `seen_us` is the last poll of the slowest reader

Lives here: what is said, and how often. Invariants: it decides nothing and stops nobody; what it cannot write is left
out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import redis
from msgspec.structs import replace

from forebay.backfill.losses import Loss
from forebay.deploy.outdated import digest
from forebay.errors import ForebayError
from forebay.offline.tables import OfflineStore
from forebay.online.signs import Sign, Signs
from streaming.aside import ask_aside
from streaming.begun import Begun
from streaming.log_ends import LogEnds
from streaming.metrics import Metrics
from streaming.parts import Task
from streaming.status import PartitionStatus, Status
from streaming.stop import Stop
from streaming.turns import END_WAIT_S, taken_every

SIGN_INTERVAL_S = 2.0
"""A hash of some hundred bytes every two seconds; whoever asks takes several of them missing for a dead flow."""
LAG_INTERVAL_S = 10.0
"""Prometheus asks every 15 s or so. Each look asks the logs for their ends and the archive for its positions."""


@contextlib.contextmanager
def alive(
    begun: Begun, online: redis.Redis, stop: Stop, losses: Sequence[Loss], metrics_port: int | None = None
) -> Iterator[None]:
    """Within the block the flow's sign is written, from what its readers put on the board."""
    task, now_us = begun.task, begun.task.now_us
    signs = Signs(online, task.settings.namespace)
    judges_by = {source.name: digest(task.definitions, source) for source in task.sources}
    sign = Sign(
        begun.number,
        now_us(),
        now_us(),
        workers=task.workers,
        views=tuple(view.key for view in task.views),
        losses=tuple(map(str, losses)),
        metrics_port=metrics_port,
    )

    def say(ended_us: int | None = None, why: str = "") -> None:
        last_us = begun.board.polled_us() or sign.seen_us
        for source, by in judges_by.items():
            signs.write(source, replace(sign, judges_by=by, seen_us=last_us, ended_us=ended_us, why=why))

    try:
        with contextlib.suppress(ForebayError):
            say()  # before its forerunners' are removed: at no instant is there none
            for source in judges_by:
                signs.forget_before(source, begun.number)
        with taken_every(SIGN_INTERVAL_S, "alive", say):
            yield
    finally:
        why = "" if stop.error is None else str(stop.error)
        with contextlib.suppress(ForebayError, TimeoutError):
            ask_aside(lambda: say(now_us(), why)).result(END_WAIT_S)


@contextlib.contextmanager
def lag_measured(task: Task, online: redis.Redis, metrics: Metrics) -> Iterator[None]:
    """Within the block it is measured how far the flow is behind; where it cannot be, that is not told."""
    status = Status(
        online, task.settings.namespace, OfflineStore(task.settings), LogEnds(task.settings, lambda: online)
    )

    def look() -> None:
        for source in task.sources:
            known: Sequence[PartitionStatus] = ()
            with contextlib.suppress(ForebayError):
                known = status.partitions(source, task.definitions.windowed_views(source), task.now_us())[0]
            metrics.lagging(source.name, known)

    with taken_every(LAG_INTERVAL_S, "lag", look):
        yield
