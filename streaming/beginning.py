"""What is said when a flow begins: what it found, and whom it replaced.

Lives here: reading that out of what was found. It decides nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import redis

from forebay.language.source import EventSource
from forebay.online.signs import Signs
from streaming.begun import Begun
from streaming.logs import LOG, POSITIONS_MAX
from streaming.parts import Task
from streaming.status import QUIET, state_of


def running_flows(task: Task, online: redis.Redis) -> Mapping[int, Sequence[str]]:
    """The flows that stream some of the task's sources now, by number: what else they stream, which ends with them."""
    signs, flows = Signs(online, task.settings.namespace), dict[str, int]()
    for source in task.definitions.sources.values():
        some = signs.read(source.name) if isinstance(source, EventSource) and source.stream is not None else []
        if some and state_of(some, task.now_us()) == QUIET:
            flows[source.name] = some[0].flow
    mine = {source.name for source in task.sources}
    replaced = sorted({number for name, number in flows.items() if name in mine})
    return {number: sorted(name for name in flows.keys() - mine if flows[name] == number) for number in replaced}


def say_begin(begun: Begun, replaced: Mapping[int, Sequence[str]]) -> None:
    """Say that a flow has begun, which flows it took over from, and what nobody streams any more."""
    for number, others in replaced.items():
        LOG.info("takeover", flow=begun.number, taken_over=number)
        if others:
            names, flags = ", ".join(others), " ".join(f"--source {name}" for name in others)
            LOG.warning(
                "sources_left",
                warning=f"flow {number}, which this one replaces, also streamed {names}, and ends: nobody streams that "
                f"now. Start `forebay stream {flags}` beside this one, or one flow for all",
                flow=begun.number,
                taken_over=number,
                sources=list(others),
            )
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
