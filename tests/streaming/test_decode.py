"""What the decoder decides of a chunk, and what it leaves to the archive."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import EventSource, String, Timestamp
from forebay.ingest.batch import EVENT_ID, FUTURE, SOURCE_OFFSET
from forebay.instants import MINUTE_US, day_us, instant_text
from forebay.stores.archived_offsets import NONE, ArchivedOffsets
from forebay.stores.tables import OfflineStore
from streaming.chunk import Chunk
from streaming.decode import Decoded, Decoder
from streaming.heartbeat import Heartbeat, Quiet
from streaming.offline import Offline
from streaming.remembered import Remembered

NOW_US = day_us("2024-03-02")
SOURCE = EventSource(
    "clicks", schema={"id": String, "ts": Timestamp}, timestamp="ts", event_id="id", lateness="10m", dedupe="10m"
)


def line(name: str, minute: int) -> bytes:
    return json.dumps({"id": name, "ts": instant_text(NOW_US + minute * MINUTE_US)}).encode()


def chunk(first: int, lines: list[bytes], partition: str = "p") -> Chunk:
    return Chunk(SOURCE, partition, first, first + len(lines), lines=lines)


def kept(decoded: Decoded) -> list[tuple[int, str]]:
    table = decoded.batch.table
    return list(zip(table[SOURCE_OFFSET].to_pylist(), table[EVENT_ID].to_pylist(), strict=True))


def fresh(now_us: int = NOW_US, remembered: Remembered | None = None) -> Decoder:
    return Decoder({}, lambda source, partition: remembered or Remembered(), lambda: now_us)


def test_duplicates_go_and_are_counted_and_are_not_late() -> None:
    decode = fresh()
    first = decode(chunk(0, [line("a", -30), line("a", -30), line("b", -5), line("c", -30)]))
    assert (kept(first), first.duplicates) == ([(0, "a"), (2, "b"), (3, "c")], 1)
    assert first.late.tolist() == [False, False, True]
    again = decode(chunk(4, [line("b", -5), line("b", -4), line("a", -30)]))
    assert (kept(again), again.duplicates) == ([(5, "b"), (6, "a")], 1), "beyond the horizon it counts again"
    assert again.late.tolist() == [False, True]


def test_below_the_archives_position_an_event_is_what_the_archive_holds() -> None:
    """An event that was dated ahead of the clock when it was read first stays a dead letter, though it isn't now."""
    lines = [line("a", 0), line("ahead", 5), line("b", 1), line("b", 1)]
    first = fresh()(chunk(0, lines))
    assert [letter.reason for letter in first.dead] == [FUTURE]
    held = ArchivedOffsets.of([np.array([offset for offset, _ in kept(first)])])
    remembered = Remembered(3, NOW_US + MINUTE_US, held)
    again = fresh(NOW_US + 60 * MINUTE_US, remembered)(chunk(0, [*lines, line("c", 2)]))
    assert kept(again) == [(0, "a"), (2, "b"), (3, "b"), (4, "c")], "no memory of duplicates was given"
    assert (again.dead, again.duplicates) == ([], 0)


@given(st.sets(st.integers(0, 60)), st.lists(st.integers(0, 60), max_size=4))
def test_runs_hold_what_they_are_made_of(offsets: set[int], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 61]
    parts = [[n for n in offsets if low <= n < high] for low, high in itertools.pairwise(edges)]
    runs = ArchivedOffsets.of(np.array(part, np.int64) for part in [*parts, *parts[:1]])
    asked = np.arange(-1, 63)
    assert runs.hold(asked).tolist() == [n in offsets for n in asked.tolist()]
    assert (runs.firsts[1:] > runs.ends[:-1]).all()
    assert not NONE.hold(asked).any()


@pytest.mark.parametrize("resume", [0, 2, 5])
def test_a_successor_goes_on_with_what_the_archive_remembers(offline_url: str, resume: int) -> None:
    """
    offset     0      1      2      3      4      5 │    6      7      8      9
    event     a 0    b 30   a 0    c 31   b 30   a 0│  c 31   b 30   b 21   a 0
    first run                            dup        │  crashed before these were archived
    now                                             │  dup    dup
    """
    log = [("a", 0), ("b", 30), ("a", 0), ("c", 31), ("b", 30), ("a", 0), ("c", 31), ("b", 30), ("b", 21), ("a", 0)]
    lines = [line(name, minute - 60) for name, minute in log]
    first = fresh()
    offline = Offline(OfflineStore(offline_url), lambda source: -(2**63), lambda: NOW_US)
    offline.archived(SOURCE)
    offline.append_events([first(chunk(0, lines[:3])), first(chunk(3, lines[3:6])), first(chunk(0, lines[:1], "q"))])
    offline.beat(Heartbeat(SOURCE, NOW_US + MINUTE_US, {"p": Quiet(6, 0)}))
    first(chunk(6, lines[6:8]))

    offline = Offline(OfflineStore(offline_url), lambda source: -(2**63), lambda: NOW_US)
    positions = offline.archived(SOURCE)
    assert positions["p"].next_offset == 6
    assert positions["p"].heartbeat_us == NOW_US + MINUTE_US, "it must not move the horizon of duplicates"
    remembered = offline.remembered(SOURCE, positions, {"p": resume, "q": 1})
    decode = Decoder({}, lambda source, partition: remembered[partition], lambda: NOW_US)
    found = [decode(chunk(n, lines[n : n + 2])) for n in range(resume, 10, 2)]
    offsets = [offset for one in found for offset, _ in kept(one)]
    assert offsets == [offset for offset in (0, 1, 2, 3, 5, 8, 9) if offset >= resume]
    assert sum(one.duplicates for one in found) == 2
