"""What the flow decides by itself: which event is late, who reads a partition, who writes a slot, what a table
lacks.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from forebay import Count, Entity, EventSource, Int64, Last, String, Sum, Timestamp, WindowedView
from forebay.core.events import Column, Events
from forebay.core.identity import LANES, SLOTS
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge
from forebay.instants import MINUTE_US, day_us
from forebay.offline.tiles_table import app_id
from streaming.lateness import INT64_MIN, dates_of, late_rows
from streaming.partials import Partials, ends, missing
from streaming.routing import lane_of_events, lanes_of, reader_of, slots_of_worker, split

SOURCE = EventSource(
    "clicks",
    schema={"event_id": String, "user": String, "n": Int64, "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
)
VIEW = WindowedView(
    "click_counts",
    version=1,
    entity=Entity("user", keys={"user": String}),
    source=SOURCE,
    features=[
        Count("clicks", windows=["1h"], default=0),
        Sum("sum", of="n", windows=["1h"], default=0),
        Last("last", of="n", windows=["1h"], default=0),
    ],
)
LAYOUT = Layout.of(VIEW)


def events_of(users: list[int], first_offset: int = 0) -> Events:
    count = len(users)
    offset = np.arange(first_offset, first_offset + count, dtype=np.int64)
    ids = np.array([f"e{n}".encode() for n in offset.tolist()], f"S{SOURCE.event_id_bytes}")
    code = np.array(users, np.int64)
    events = Events(pa.array([f"u{i}" for i in range(64)]), code, offset * MINUTE_US // 7, ids, offset, {})
    column = Column(offset + 1, np.ones(count, np.bool_))
    return Events(events.keys, code, events.ts, ids, offset, {"n": column}).take(np.arange(count))


def test_late_is_behind_the_newest_event_before_it_in_its_partition() -> None:
    """
    offset     0     1     2     3     4
    minute     0    20     5    12    21      lateness 10m
    newest     –     0    20    20    20
    late                   ×
    """
    ts = np.array([0, 20, 5, 12, 21], np.int64) * MINUTE_US
    assert late_rows(ts, INT64_MIN, 10 * MINUTE_US).tolist() == [False, False, True, False, False]
    assert late_rows(ts, 100 * MINUTE_US, 10 * MINUTE_US).all()
    exactly = np.array([20, 10, 9], np.int64) * MINUTE_US
    assert late_rows(exactly, INT64_MIN, 10 * MINUTE_US).tolist() == [False, False, True]


@given(st.lists(st.integers(0, 60), max_size=30), st.integers(0, 30))
def test_lateness_does_not_depend_on_how_the_log_is_cut(minutes: list[int], at: int) -> None:
    ts = np.array(minutes, np.int64) * MINUTE_US
    whole = late_rows(ts, INT64_MIN, 10 * MINUTE_US)
    head, tail = ts[:at], ts[at:]
    newest = int(head.max(initial=INT64_MIN))
    cut = np.concatenate((late_rows(head, INT64_MIN, 10 * MINUTE_US), late_rows(tail, newest, 10 * MINUTE_US)))
    assert whole.tolist() == cut.tolist()


def test_dates_are_utc_and_named_once() -> None:
    instants = [day_us("2024-02-29"), day_us("2024-03-01") - 1, day_us("2024-03-01"), day_us("1969-12-31") + 5]
    assert dates_of(np.array(instants, np.int64)) == ["1969-12-31", "2024-02-29", "2024-03-01"]


def test_every_slot_and_lane_has_one_writer_and_numbered_partitions_are_dealt_in_turn() -> None:
    for workers in range(1, LANES + 1):
        assert sorted(slot for n in range(workers) for slot in slots_of_worker(n, workers)) == list(range(SLOTS))
        assert sorted(lane for n in range(workers) for lane in lanes_of(n, workers)) == list(range(LANES))
        assert {slot % LANES for slot in slots_of_worker(0, workers)} == set(lanes_of(0, workers))
        readers = [reader_of("orders", f"orders:{i}", workers) for i in range(workers)]
        assert sorted(readers) == list(range(workers))


def test_a_split_gives_each_writer_the_events_of_its_lanes() -> None:
    events = events_of([n % 50 for n in range(200)])
    for workers in (1, 2, 3, 8):
        parts = split(events, workers)
        assert sorted(np.concatenate([part.offset for part in parts]).tolist()) == list(range(200))
        for worker, part in enumerate(parts):
            assert set(lane_of_events(part).tolist()) <= set(lanes_of(worker, workers))


def total(keys: list[str], tiles: Tiles) -> list[tuple[str, int, int, int]]:
    """Tiles by entity, merged: what a table's rows add up to."""
    names = sorted(set(keys))
    code = np.array([names.index(keys[i]) for i in tiles.code.tolist()], np.int64)
    merged = merge(LAYOUT, code, tiles.records)
    return [
        (names[c], int(r["start"]), int(r["events"]), int(r["total_n"]["lo"]))
        for c, r in zip(merged.code.tolist(), merged.records, strict=True)
    ]


@given(st.lists(st.integers(0, 63), min_size=1, max_size=40), st.data())
def test_a_table_gets_exactly_the_events_it_lacks_whatever_each_lane_has(users: list[int], data: st.DataObject) -> None:
    first = 100
    events = events_of(users, first)
    floors = {lane: data.draw(st.integers(first - 5, first + len(users) + 5)) for lane in range(LANES)}
    positions = {app_id(lane, "p"): offset for lane, offset in floors.items()}
    partials = Partials(VIEW, "p", first, first + len(users), range(LANES), events, commit=7)
    other = events_of(data.draw(st.lists(st.integers(0, 63), min_size=1, max_size=5)), 3)
    beside = Partials(VIEW, "q", 3, 3 + len(other), range(LANES), other, commit=8)
    found = {rows.partition: rows for rows in missing([beside, partials], positions)}
    assert total(found["q"].keys.to_pylist(), found["q"].tiles) == total(other.keys.to_pylist(), fold(LAYOUT, other))
    assert (found["q"].commit, found["q"].next_offset) == (8, beside.next_offset)
    rows = found.get("p")
    lane = lane_of_events(events)
    lacking = events.take(np.flatnonzero(events.offset >= np.array([floors[n] for n in range(LANES)])[lane]))
    got = [] if rows is None else total(rows.keys.to_pylist(), rows.tiles)
    assert got == total(lacking.keys.to_pylist(), fold(LAYOUT, lacking))
    assert all(offset >= positions[name] for name, offset in ends([partials], positions).items())


def test_what_went_online_is_taken_as_it_is_where_the_table_lacks_all_of_it() -> None:
    events = events_of([1, 2, 3], 10)
    tiles = fold(LAYOUT, events)
    partials = Partials(VIEW, "p", 10, 13, range(LANES), events, 7, tiles)
    (rows,) = missing([partials], {app_id(0, "p"): 10})
    assert rows.tiles is tiles
    assert ends([partials], {app_id(0, "p"): 20}) == {app_id(lane, "p"): 13 for lane in range(1, LANES)}
    assert missing([partials], {app_id(lane, "p"): 13 for lane in range(LANES)}) == []
