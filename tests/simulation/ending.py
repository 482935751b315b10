"""The end of a run: everything heals, what is left is applied, marked dates are folded again, and all must be equal.

Lives here: the last steps and the comparison of both stores, whole, with the reference. Only dates that were marked, or
never folded, are folded: so a late event whose date was not recorded fails here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from forebay.backfill.publication import read_cut
from forebay.core.layout import Layout
from forebay.core.tiles import fold, merge
from forebay.ingest.batch import FUTURE
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, day_text, day_us, floor_us, moment
from forebay.language.view import WindowedView
from streaming.offline import LATE
from tests.simulation.expected import check_answer
from tests.simulation.shop import START_US, Event, Place
from tests.simulation.simulation import Simulation

STARTS_MAX = 6
SPINE_ROWS = 12


def finish(run: Simulation) -> None:
    """Heal, drain, repair, compare."""
    faults = run.faults
    faults.kill = faults.lose = faults.others = 0.0
    faults.away = 0
    _drain(run)
    while run.zombies:
        zombie = run.zombies[-1]
        for n in range(zombie.workers):
            run._as(zombie, lambda zombie=zombie, n=n: zombie.write(n))
        run._as(zombie, zombie.flush)
        run._dies(zombie)
    refused = _check_dead_letters(run)
    counts = dict(_counted(run, refused))
    _check_archive(run, counts)
    _check_repairs(run, refused)
    for view in run.shop.views:
        _check_streamed(run, view)
    _repair(run)
    for view in run.shop.views:
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


def _counted(run: Simulation, refused: frozenset[Place]) -> list[tuple[Place, Event]]:
    judged = {partition: run.log.judge(partition, refused) for partition in run.log.lines}
    return [((name, offset), event) for name, one in judged.items() for offset, event in one.counts.items()]


def _check_dead_letters(run: Simulation) -> frozenset[Place]:
    """What is no event is a dead letter once; which events were refused because of the clock."""
    table = run.store.dead_letters().scan().to_pylist()
    found = Counter((row["source_partition"], row["source_offset"]) for row in table)
    twice = [place for place, count in found.items() if count > 1]
    assert not twice, f"dead letters are there twice: {twice}"
    refused = {(row["source_partition"], row["source_offset"]) for row in table if row["reason"] == FUTURE}
    lines = dict(run.log.places())
    assert all(lines[place].depends_on_clock for place in refused), "an event was refused that was not ahead"
    broken = {place for place, line in lines.items() if line.event is None}
    assert set(found) - refused == broken, "dead letters are not those of the log"
    online = {place for place, is_refused in run.expected.memory.refused.items() if is_refused}
    passed = run.expected.memory.refused.keys()
    assert refused & passed == online, f"refused offline {refused & passed}, online {online}"
    return frozenset(refused)


def _check_archive(run: Simulation, counts: dict[Place, Event]) -> None:
    archive = run.store.archive(run.shop.source)
    rows = archive.scan(["event_id", "source_partition", "source_offset"]).to_pylist()
    streamed = [row for row in rows if not row["source_partition"].startswith("load:")]
    found = Counter((row["source_partition"], row["source_offset"]) for row in streamed)
    assert found == Counter(counts.keys()), f"archive: more {found - Counter(counts)}, less {Counter(counts) - found}"
    assert all(counts[row["source_partition"], row["source_offset"]].id == row["event_id"] for row in streamed)
    assert len(rows) - len(streamed) == len(run.expected.history)


def _check_repairs(run: Simulation, refused: frozenset[Place]) -> None:
    """Every late event's date is marked, as late, and nothing else is."""
    rows = run.store.repairs().scan().to_pylist()
    judged = {name: run.log.judge(name, refused) for name in run.log.lines}
    late = {day_text(one.counts[offset].ts) for one in judged.values() for offset in one.late}
    marked = {row["day"] for row in rows if row["reason"] == LATE}
    assert late <= marked, f"late dates {sorted(late - marked)} were not recorded"


def _check_streamed(run: Simulation, view: WindowedView) -> None:
    """The streamed tiles add up to the fold of what the archive holds of the stream."""
    selector, layout = Selector(view), Layout.of(view)
    archive = run.store.archive(run.shop.source).scan([*selector.columns, "source_partition"])
    rows = archive.filter(pa.compute.invert(pa.compute.starts_with(archive["source_partition"], "load:")))
    events = selector.select(rows)
    expected = fold(layout, events)
    expected = expected.take(expected.records["start"] >= run.starts[view.key])
    keys, tiles = run.store.streamed(view).read()
    tiles = tiles.take(tiles.records["start"] >= run.starts[view.key])
    names = {name: n for n, name in enumerate(events.keys)}
    code = np.array([names[keys[i]] for i in tiles.code.tolist()], np.int64)
    merged = merge(layout, code, tiles.records)
    assert merged.code.tolist() == expected.code.tolist(), f"streamed/{view.key} is not the fold of the archive"
    assert merged.records.tobytes() == expected.records.tobytes(), f"streamed/{view.key} is not the fold"


def _repair(run: Simulation) -> None:
    """Fold the dates that are marked, were never folded or are of today, and publish."""
    end_us = floor_us(run.now_us, DAY_US)
    days = [day_text(us) for us in range(START_US, end_us, DAY_US)]
    marked = {row["day"] for row in run.store.repairs().scan().to_pylist()}
    archived = run.store.archive(run.shop.source).events_by_date()
    for view in run.shop.views:
        folded, cut_us = run.store.tiles(view).folded(), read_cut(run.online, run.namespace, view)
        open_ = {day for day in days if day not in folded or day_us(day) >= cut_us}
        for first, last in _runs(days, open_ | marked):
            run._publish(view, day_us(first), day_us(last) + DAY_US)
        folded = run.store.tiles(view).folded()
        behind = {day for day in days if folded[day] != archived.get(day, 0)}
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
    key = next(iter(view.entity.keys))
    names = [f"{view.key}:{output}" for output in view.outputs()]
    features = run.expected.features
    entities = run.expected.entities(view)
    for at_us in (max(newest + 1, run.now_us), newest + 7 * HOUR_US + 1 + DAY_US):
        rows: Any = [{key: entity} for entity in entities]
        answer = features.get_online_features(names, entity_rows=rows, at=moment(at_us))
        values, statuses = answer.to_dict(), answer.statuses
        for row, entity in enumerate(entities):
            run.expected.last = (view, entity)
            mine = [event for event in events if event.entity(view) == entity]
            check_answer(view, mine, entity, at_us, values, statuses, row)
    ats = [START_US + run.chance.randrange(newest - START_US + DAY_US) for _ in range(SPINE_ROWS)]
    who = [run.chance.choice(entities) for _ in ats]
    spine = pa.table({key: who, "event_timestamp": pa.array(ats, pa.timestamp("us", "UTC"))})
    found = features.get_historical_features(spine, features=names, with_statuses=True).to_arrow().to_pydict()
    statuses = {name: found[f"{name}__status"] for name in view.outputs()}
    for row, (entity, at_us) in enumerate(zip(who, ats, strict=True)):
        mine = [event for event in events if event.entity(view) == entity]
        check_answer(view, mine, entity, at_us, found, statuses, row)
