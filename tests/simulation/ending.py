"""The end of a run: everything heals, what is left is applied, marked dates are folded again, and all must be equal.

Lives here: the last steps and the comparison of both stores, whole, with the reference. Only dates that were marked, or
never folded, are folded: so a late event whose date was not recorded fails here.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

from forebay.instants import DAY_US, HOUR_US, MINUTE_US, day_text, day_us, floor_us
from forebay.language.view import WindowedView
from forebay.online.slot_state import read_cut
from tests.simulation.reckoning import (
    check_archive,
    check_dead_letters,
    check_online,
    check_repairs,
    check_streamed,
    check_training,
    counted,
)
from tests.simulation.shop import START_US, Event
from tests.simulation.simulation import Simulation

STARTS_MAX = 6
SPINE_ROWS = 12


def finish(run: Simulation) -> None:
    """Heal, drain, repair, compare."""
    faults = run.faults
    faults.kill = faults.lose = faults.others = faults.hold = 0.0
    faults.away = 0
    _drain(run)
    while run.zombies:
        zombie = run.zombies[-1]
        for n in range(zombie.workers):
            run._as(zombie, lambda zombie=zombie, n=n: zombie.write(n))
        run._as(zombie, zombie.flush)
        run._dies(zombie)
    faults.deliver_all()
    store, source, memory = run.store, run.shop.source, run.expected.memory
    refused = check_dead_letters(store, source, run.log)
    online = {place for place, is_refused in memory.refused.items() if is_refused}
    offline = refused & memory.refused.keys()
    assert offline == online, f"refused offline {offline}, online {online}"
    counts = counted(run.log, refused)
    check_archive(store, source, counts, len(run.expected.history))
    check_repairs(store, source, run.log, refused)
    for view in run.shop.views:
        check_streamed(store, source, view, run.starts[view.key])
    _repair(run)
    for view in (*run.shop.views, run.shop.visits):
        _check_features(run, view, [*run.expected.history, *counts.values()])


def _drain(run: Simulation) -> None:
    """A last flow applies all there is."""
    for _ in range(STARTS_MAX):
        if run.process is None:
            run._start(run.chance.choice([1, 2, 4]))
        if run.process is not None and _to_the_end(run):
            return
    raise AssertionError(f"no flow gets to the end: {run.said[-3:]}")


def _to_the_end(run: Simulation) -> bool:
    """Read and write until nothing comes, and once more for the heartbeat that finds out what Redis has lost."""
    process = run.process
    assert process is not None
    found, quiet = {0: 1}, 0
    while quiet < 2 and run.process is process:
        for n in range(process.workers):
            run._as(process, lambda n=n: found.update({n: process.read(n)}))
        quiet = 0 if any(found.values()) else quiet + 1
        run.now_us += MINUTE_US * quiet
        while process.waiting and run.process is process:
            for n in range(process.workers):
                run._as(process, lambda n=n: process.write(n))
    run._as(process, process.flush)
    return run.process is process


def _repair(run: Simulation) -> None:
    """Fold the dates that are marked, were never folded or are of today, and publish."""
    end_us = floor_us(run.now_us, DAY_US)
    days = [day_text(us) for us in range(START_US, end_us, DAY_US)]
    marked = {row["day"] for row in run.store.repairs().scan().to_pylist()}
    archived = run.store.archive(run.shop.source).events_by_date()
    for view in (*run.shop.views, run.shop.visits):
        folded, cut_us = run.store.tiles(view).folded(), read_cut(run.online, run.namespace, view)
        open_ = {day for day in days if day not in folded or day_us(day) >= cut_us}
        for first, last in _runs(days, open_ | marked):
            run.batch.publish(view, day_us(first), day_us(last) + DAY_US)
        since = run.store.tiles(view).behind(archived)
        for day, first in since.items() if view.sessions is not None else ():
            assert any(first <= mark <= day for mark in marked), f"{view.key}: {day} is behind, and nothing marked"
            run.batch.publish(view, day_us(day), day_us(day) + DAY_US)
        if run.lost_nodes:  # what `forebay rebuild` does
            run.batch.publish(view, end_us - DAY_US, end_us)
        behind = set(run.store.tiles(view).behind(archived))
        assert not behind, f"{view.key}: {sorted(behind)} got events after they were folded, and are not marked"


def _runs(days: Sequence[str], chosen: Collection[str]) -> Iterator[tuple[str, str]]:
    """The first and last of each run of chosen days."""
    for is_chosen, run in itertools.groupby(days, lambda day: day in chosen):
        if is_chosen:
            found = list(run)
            yield found[0], found[-1]


def _check_features(run: Simulation, view: WindowedView, events: list[Event]) -> None:
    """Online and training equal the oracle, for everybody."""
    newest = max((event.ts for event in events), default=START_US)
    features, entities = run.expected.features, _whole(run, view)
    for at_us in (max(newest + 1, run.now_us), newest + 7 * HOUR_US + 1 + DAY_US):
        check_online(features, view, entities, events, at_us)
    ats = [START_US + run.chance.randrange(newest - START_US + DAY_US) for _ in range(SPINE_ROWS)]
    check_training(features, view, [(run.chance.choice(entities), at_us) for at_us in ats], events)


def _whole(run: Simulation, view: WindowedView) -> list[str]:
    """The entities that can be compared: of sessions those of which none can reach across the cut that has events of
    the history. These are loaded, so the stream knows nothing of them.
    """
    if view.sessions is None:
        return run.expected.entities(view)
    edge_us = read_cut(run.online, run.namespace, view) - view.sessions.reach_us
    torn = {event.entity(view) for event in run.expected.history if event.ts >= edge_us}
    return [entity for entity in run.expected.entities(view) if entity not in torn]
