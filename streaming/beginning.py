"""What is said when a flow begins: what it found, and whom it replaced.

Lives here: reading that out of what was found. It decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import redis

from forebay.online.signs import Signs
from streaming.begun import Begun
from streaming.logs import LOG, POSITIONS_MAX
from streaming.parts import Task
from streaming.status import QUIET, state_of


def running_flows(task: Task, online: redis.Redis) -> Sequence[int]:
    """The numbers of the flows that stream some of the task's sources now."""
    signs = Signs(online, task.settings.namespace)
    found = [signs.read(source.name) for source in task.sources]
    return sorted({some[0].flow for some in found if state_of(some, task.now_us()) == QUIET})


def say_begin(begun: Begun, replaced: Sequence[int]) -> None:
    """Say that a flow has begun, and which flows it took over from."""
    for number in replaced:
        LOG.info("takeover", flow=begun.number, taken_over=number)
    task, positions = begun.task, _positions(begun)
    LOG.info(
        "begin",
        flow=begun.number,
        sources=[source.name for source in task.sources],
        views=[view.key for view in task.views],
        workers=task.workers,
        positions=dict(list(positions.items())[:POSITIONS_MAX]),
        partitions=len(positions),
    )


def _positions(begun: Begun) -> dict[str, dict[str, int]]:
    """How far each partition is archived, and applied in the slot that is furthest behind."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for (source, name), position in begun.found.archived.items():
        found[f"{source}/{name}"]["archived"] = position.next_offset
    for view in begun.task.views:
        slots = begun.found.progress[view.key]
        for name in {name for slot in slots for name in slot.partitions}:
            mine, end = found[f"{view.source.name}/{name}"], min(slot.next_offset(name) for slot in slots)
            mine["online"] = min(end, mine.get("online", end))
    return dict(sorted(found.items()))
