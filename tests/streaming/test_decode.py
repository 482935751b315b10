"""What the decoder decides of a chunk, and what it leaves to the archive."""

from __future__ import annotations

import json
import random

import pytest
from msgspec.structs import replace

from forebay import EventSource, Float64, Int64, String, Timestamp
from forebay.errors import StoreUnavailableError
from forebay.ingest.batch import (
    BEFORE_HISTORY,
    EVENT_ID,
    FUTURE,
    INFINITE,
    MALFORMED,
    MISSING_TIMESTAMP,
    SOURCE_OFFSET,
    TOO_LARGE,
    WRONG_TYPE,
)
from forebay.ingest.dedupe import Dedupe
from forebay.instants import DAY_US, MINUTE_US, day_us, instant_text
from forebay.offline.archive import PartitionPosition
from forebay.offline.tables import OfflineStore
from streaming import decode as decode_module
from streaming.chunk import Chunk
from streaming.decode import Decoded, Decoder
from streaming.heartbeat import Heartbeat, Quiet
from streaming.offline import Offline
from streaming.remembered import Remembered, Settled
from streaming.retry import Patience

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
    (first,) = decode([chunk(0, [line("a", -30), line("a", -30), line("b", -5), line("c", -30)])])
    assert (kept(first), first.duplicates) == ([(0, "a"), (2, "b"), (3, "c")], 1)
    assert first.late.tolist() == [False, False, True]
    (again,) = decode([chunk(4, [line("b", -5), line("b", -4), line("a", -30)])])
    assert (kept(again), again.duplicates) == ([(5, "b"), (6, "a")], 1), "beyond the horizon it counts again"
    assert again.late.tolist() == [False, True]


def test_dead_letters_weigh_what_they_hold() -> None:
    (decoded,) = fresh()([chunk(0, [line("a", -30), b"not json", b"x" * 3000, line("b", -5)])])
    assert (len(decoded.batch), decoded.weight) == (2, 2 + 1 + 3)


def test_what_comes_from_the_archive_is_not_judged_again() -> None:
    """An event that is archived counts, though by now a clock or the memory of duplicates would say otherwise."""
    (judged,) = fresh()([chunk(0, [line("a", 0), line("b", 1)])])
    archived = Chunk(SOURCE, "p", 0, 5, archived=True, table=judged.batch.table)
    decode = fresh(NOW_US - 60 * MINUTE_US)
    again = decode([archived, archived])
    assert [(kept(one), one.batch.next_offset) for one in again] == [([(0, "a"), (1, "b")], 5)] * 2
    assert all((one.dead, one.duplicates, one.archived) == ([], 0, True) for one in again)


def test_what_was_settled_is_not_for_the_clock_to_say() -> None:
    """
    offset     0       1       2       3       4
    minute     0      +5      +5      +5      +5     ahead of the clock; one is allowed
    settled   ├─ passed online ────┤
    refused            ×               ×             the last one in the dead letters alone
    """
    settled = Remembered(settled=Settled(3, {1: FUTURE, 3: FUTURE}))
    lines = [line("a", 0), *(line(f"b{n}", 5) for n in range(4))]
    (found,) = fresh(NOW_US, settled)([chunk(0, lines)])
    assert ([n for n, _ in kept(found)], [letter.offset for letter in found.dead]) == ([0, 2], [1, 3, 4])
    (later,) = fresh(NOW_US + 60 * MINUTE_US, settled)([chunk(0, lines)])
    assert ([n for n, _ in kept(later)], [letter.offset for letter in later.dead]) == ([0, 2, 4], [1, 3])
    assert {letter.reason for letter in [*found.dead, *later.dead]} == {FUTURE}


def test_what_was_settled_is_not_for_the_definitions_to_say() -> None:
    """
    offset     0       1       2       3       4       5
    now        ok      ok      odd     odd     ok      odd      odd: two columns are not of their types
    settled   ├─── passed online ─────────────┤
    refused            ×               ×
    """
    odd = {"n": "many", "real": "much"}
    lines = [json.dumps(json.loads(line(f"e{n}", 0)) | (odd if n in (2, 3, 5) else {})).encode() for n in range(6)]
    later = replace(SOURCE, schema={**SOURCE.schema, "n": Int64, "real": Float64})
    remembered = Remembered(settled=Settled(5, {1: TOO_LARGE, 3: INFINITE}))
    decode = Decoder({}, lambda source, partition: remembered, lambda: NOW_US)
    (found,) = decode([Chunk(later, "p", 0, len(lines), lines=lines)])
    assert [n for n, _ in kept(found)] == [0, 2, 4]
    assert found.batch.table["n"].null_count == found.batch.table["real"].null_count == 3
    assert [(letter.offset, letter.reason) for letter in found.dead] == [
        (1, TOO_LARGE),
        (3, WRONG_TYPE),
        (5, WRONG_TYPE),
    ]
    assert "refused when it was read first" in found.dead[0].detail
    assert [letter.raw for letter in found.dead] == [lines[1], lines[3], lines[5]]


def test_what_counts_already_is_an_event_however_large_it_is_or_old() -> None:
    lines = [line("a", 0), line("b", -60 * 24 * 400)]
    settled = Remembered(settled=Settled(1))
    decode = Decoder({}, lambda source, partition: settled, lambda: NOW_US)
    later = replace(SOURCE, history_start=instant_text(NOW_US + DAY_US)[:10])
    (found,) = decode([Chunk(later, "p", 0, 2, lines=lines)])
    assert ([n for n, _ in kept(found)], [letter.reason for letter in found.dead]) == ([0], [BEFORE_HISTORY])
    unreadable = [b"{", json.dumps(json.loads(lines[0]) | {"ts": None}).encode()]
    settled = Remembered(settled=Settled(9))
    decode = Decoder({}, lambda source, partition: settled, lambda: NOW_US)
    (found,) = decode([Chunk(SOURCE, "p", 0, 2, lines=unreadable)])
    assert [letter.reason for letter in found.dead] == [MALFORMED, MISSING_TIMESTAMP]


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
    offline.append_events(first([chunk(0, lines[:3]), chunk(3, lines[3:6]), chunk(0, lines[:1], "q")]))
    offline.beat(Heartbeat(SOURCE, NOW_US + MINUTE_US, {"p": Quiet(6, 0)}))
    first([chunk(6, lines[6:8])])

    offline = Offline(OfflineStore(offline_url), lambda source: -(2**63), lambda: NOW_US)
    positions = offline.archived(SOURCE)
    assert positions["p"].next_offset == 6
    assert positions["p"].heartbeat_us == NOW_US + MINUTE_US, "it must not move the horizon of duplicates"
    remembered = offline.remembered(SOURCE, positions, {})
    decode = Decoder({}, lambda source, partition: remembered[partition], lambda: NOW_US)
    past = offline.replay(SOURCE, {"p": (resume, 6)}, Patience()).poll()
    found = [*decode(past), *(one for n in range(6, 10, 2) for one in decode([chunk(n, lines[n : n + 2])]))]
    offsets = [offset for one in found for offset, _ in kept(one)]
    assert offsets == [offset for offset in (0, 1, 2, 3, 5, 8, 9) if offset >= resume]
    assert sum(one.duplicates for one in found) == 2


def archiving(offline_url: str) -> Offline:
    offline = Offline(OfflineStore(offline_url), lambda source: -(2**63), lambda: NOW_US)
    offline.archived(SOURCE)
    return offline


@pytest.mark.parametrize("seed", range(8))
def test_what_was_let_go_of_is_known_again_when_something_comes(
    offline_url: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A decoder that lets go after each call judges as one that never does."""
    chance, offline = random.Random(seed), archiving(offline_url)
    keeping, recalled = fresh(), list[str]()

    def recall(source: EventSource, partition: str, position: PartitionPosition) -> Dedupe:
        recalled.append(partition)
        return offline.recalled(source, partition, position)

    forgetting = Decoder({}, lambda source, partition: Remembered(), lambda: NOW_US, recall=recall)
    ends = dict.fromkeys("pqr", 0)
    for n in range(12):
        monkeypatch.setattr(decode_module, "DORMANT_S", -1.0 if n % 3 else 600.0)
        chunks = []
        for name in chance.sample("pqr", chance.randint(1, 3)):
            count = chance.randint(1, 6)
            lines = [line(chance.choice("abcdef"), chance.randint(n - 12, n) - 60) for _ in range(count)]
            chunks.append(chunk(ends[name], lines, name))
            ends[name] += count
        found = forgetting(chunks)
        expected = keeping(chunks)
        assert [(kept(one), one.duplicates, one.late.tolist()) for one in found] == [
            (kept(one), one.duplicates, one.late.tolist()) for one in expected
        ]
        offline.append_events(found)
    assert len(recalled) > 5


def test_of_a_partition_that_is_dormant_at_the_start_nothing_is_read(offline_url: str) -> None:
    offline = archiving(offline_url)
    old, new = [line("a", -60 * 24 * 4), line("b", -60 * 24 * 4)], [line("c", -60)]
    first = fresh()
    offline.append_events(first([chunk(0, old, "old"), chunk(0, new, "new")]))
    offline = archiving(offline_url)
    positions = offline.archived(SOURCE)
    remembered = offline.remembered(SOURCE, positions, {})
    assert {name: one.dedupe is not None for name, one in remembered.items()} == {"old": False, "new": True}
    decode = Decoder({}, lambda source, partition: remembered[partition], lambda: NOW_US, recall=offline.recalled)
    again = [line("b", -60 * 24 * 4), line("d", -60 * 24 * 4)]
    assert [(kept(one), one.duplicates) for one in decode([chunk(2, again, "old")])] == [([(3, "d")], 1)]


def test_what_is_not_archived_yet_is_waited_for(offline_url: str) -> None:
    offline = archiving(offline_url)
    with pytest.raises(StoreUnavailableError, match=r"has 'p' up to offset 0, not yet 4"):
        offline.recalled(SOURCE, "p", PartitionPosition(4, NOW_US))
