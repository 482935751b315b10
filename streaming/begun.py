"""A flow that has taken over and is ready to run: one worker in this process, several as processes under it.

Lives here: the choice between the two, and what is the same for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import redis

from streaming.backlog import Backlog
from streaming.board import Board, shared_board
from streaming.engine import drive
from streaming.parts import Task, fences_of, take_for_processes, take_over
from streaming.positions import Found
from streaming.processes import run_processes
from streaming.stop import Stop
from streaming.summary import Summary


@dataclass(frozen=True)
class Begun:
    """A flow: what it is to do, the number of its take-over, where its workers say how they are, and its run."""

    task: Task
    number: int
    board: Board
    found: Found
    """What the stores said."""
    to_the_end: Callable[[], None]
    fences: Mapping[str, bytes] = field(default_factory=dict)
    """What makes it the writer of its slots, by their keys."""


def begin(
    task: Task,
    online: redis.Redis,
    stop: Stop,
    summary: Summary,
    metrics_port: int = 0,
    log_format: str | None = None,
) -> Begun:
    """Take over both stores. Raises `FencedError` where another flow of these sources begins meanwhile."""
    if task.workers == 1:
        parts = take_over(task, online, stop, summary)
        return Begun(
            task, parts.number, parts.board, parts.found, partial(drive, parts), fences_of(parts.lanes.values())
        )
    taken, board = take_for_processes(task, online), shared_board(task.workers)
    summary.losses = list(taken.losses)
    summary.metrics.watch(Backlog(board=board))
    run = partial(run_processes, task, taken, board, stop, summary, metrics_port, log_format)
    return Begun(task, taken.number, board, taken.found, run, taken.fences)
