"""The reckoning: both stores, whole, against the reference, when nothing runs any more.

Lives here: what must be so at the end of any run, simulated or real. Each check takes what it compares and nothing
else: the log, line by line, and a store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.client.feature_store import FeatureStore
from forebay.core.codec import NO_CUT
from forebay.core.layout import Layout
from forebay.core.tiles import fold, merge
from forebay.ingest.batch import FUTURE
from forebay.ingest.select import Selector
from forebay.instants import day_text, moment
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import LOAD, SOURCE_PARTITION
from forebay.offline.tables import OfflineStore
from streaming.offline import LATE
from tests.simulation.expected import check_answer
from tests.simulation.shop import Event, Log, Place


def counted(log: Log, refused: frozenset[Place]) -> dict[Place, Event]:
    """The events of the log that count, where they stand."""
    judged = {name: log.judge(name, refused) for name in log.lines}
    return {(name, offset): event for name, one in judged.items() for offset, event in one.counts.items()}


def check_dead_letters(store: OfflineStore, source: EventSource, log: Log) -> frozenset[Place]:
    """What is no event is a dead letter once, for its reason, with its bytes; which were refused by the clock."""
    table = store.dead_letters().scan(source.name).to_pylist()
    found = Counter((row["source_partition"], row["source_offset"]) for row in table)
    twice = [place for place, count in found.items() if count > 1]
    assert not twice, f"dead letters are there twice: {twice}"
    refused = {(row["source_partition"], row["source_offset"]) for row in table if row["reason"] == FUTURE}
    lines = dict(log.places())
    assert all(lines[place].depends_on_clock for place in refused), "an event was refused that was not ahead"
    broken = {place for place, line in lines.items() if line.event is None}
    assert set(found) - refused == broken, "dead letters are not those of the log"
    for row in table:
        line = lines[row["source_partition"], row["source_offset"]]
        assert (row["raw"], row["reason"]) == (line.raw, line.broken or FUTURE), f"a dead letter of {line}: {row}"
    return frozenset(refused)


def check_archive(store: OfflineStore, source: EventSource, counts: Mapping[Place, Event], loaded: int) -> None:
    """Every event that counts is in the archive once, at its place; beside them what was loaded."""
    rows = store.archive(source).scan(["event_id", SOURCE_PARTITION, "source_offset"]).to_pylist()
    streamed = [row for row in rows if not row[SOURCE_PARTITION].startswith(LOAD)]
    found = Counter((row[SOURCE_PARTITION], row["source_offset"]) for row in streamed)
    assert found == Counter(counts.keys()), f"archive: more {found - Counter(counts)}, less {Counter(counts) - found}"
    assert all(counts[row[SOURCE_PARTITION], row["source_offset"]].id == row["event_id"] for row in streamed)
    assert len(rows) - len(streamed) == loaded


def check_repairs(store: OfflineStore, source: EventSource, log: Log, refused: frozenset[Place]) -> None:
    """Every late event's date is marked, as late."""
    rows = store.repairs().scan(source.name).to_pylist()
    judged = {name: log.judge(name, refused) for name in log.lines}
    late = {day_text(one.counts[offset].ts) for one in judged.values() for offset in one.late}
    marked = {row["day"] for row in rows if row["reason"] == LATE}
    assert late <= marked, f"late dates {sorted(late - marked)} were not recorded"


def check_streamed(store: OfflineStore, source: EventSource, view: WindowedView, since_us: int = NO_CUT) -> None:
    """The streamed tiles add up to the fold of what the archive holds of the stream."""
    selector, layout = Selector(view), Layout.of(view)
    archive = store.archive(source).scan([*selector.columns, SOURCE_PARTITION])
    rows = archive.filter(pc.invert(pc.starts_with(archive[SOURCE_PARTITION], LOAD)))
    events = selector.select(rows)
    expected = fold(layout, events)
    expected = expected.take(expected.records["start"] >= since_us)
    keys, tiles = store.streamed(view).read()
    tiles = tiles.take(tiles.records["start"] >= since_us)
    names = {name: n for n, name in enumerate(events.keys.to_pylist())}
    code = np.array([names[keys[i]] for i in tiles.code.tolist()], np.int64)
    merged = merge(layout, code, tiles.records, tiles.cells)
    assert merged.code.tolist() == expected.code.tolist(), f"streamed/{view.key} is not the fold of the archive"
    for n, (found, wanted) in enumerate(zip(merged.records, expected.records, strict=True)):
        where = f"streamed/{view.key} of {events.keys[int(merged.code[n])].as_py()!r}"
        assert found.tobytes() == wanted.tobytes(), f"{where} is not the fold: {found} instead of {wanted}"
    for name, ragged in expected.cells.items():
        assert merged.cells[name].cells.tobytes() == ragged.cells.tobytes(), f"{name} of streamed/{view.key}"


def check_online(
    features: FeatureStore, view: WindowedView, entities: Sequence[str], events: Sequence[Event], at_us: int
) -> None:
    """Every feature of every entity, online at an instant, equals the oracle's."""
    key = next(iter(view.entity.keys))
    rows: Any = [{key: entity} for entity in entities]
    answer = features.get_online_features(_names(view), entity_rows=rows, at=moment(at_us))
    values, statuses = answer.to_dict(), answer.statuses
    for row, entity in enumerate(entities):
        check_answer(view, _of(view, entity, events), entity, at_us, values, statuses, row)


def check_training(
    features: FeatureStore, view: WindowedView, spine: Sequence[tuple[str, int]], events: Sequence[Event]
) -> None:
    """A training set of (entity, instant) rows equals the oracle's."""
    key = next(iter(view.entity.keys))
    ats = pa.array([at_us for _, at_us in spine], pa.timestamp("us", "UTC"))
    table = pa.table({key: [entity for entity, _ in spine], "event_timestamp": ats})
    answer = features.get_historical_features(table, features=_names(view), with_statuses=True)
    found = answer.to_arrow().to_pydict()
    statuses = {name: found[f"{name}__status"] for name in view.outputs()}
    for row, (entity, at_us) in enumerate(spine):
        check_answer(view, _of(view, entity, events), entity, at_us, found, statuses, row)


def _names(view: WindowedView) -> list[str]:
    return [f"{view.key}:{output}" for output in view.outputs()]


def _of(view: WindowedView, entity: str, events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.entity(view) == entity]
