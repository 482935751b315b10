"""Dead letters that are judged again: each becomes an event once, with the values that its first judgement saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from forebay import Bool, Decimal, EventSource, FileStream, Float64, Int64, String, Timestamp
from forebay.ingest.batch import EVENT_BYTES_MAX, LETTER_BYTES_MAX, MALFORMED, DeadLetter
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Unreadable
from forebay.instants import DAY_US, day_us, instant_text
from forebay.offline import revived, upkeep
from forebay.offline.archive import REVIVED
from forebay.offline.commit import Commit
from forebay.offline.revived import Judge, Outcome
from forebay.offline.tables import OfflineStore
from tests.stores.conftest import Killed

NOW_US = day_us("2024-03-01")
SOURCE = EventSource(
    "shop",
    schema={
        "id": String,
        "ts": Timestamp,
        "n": Int64,
        "x": Float64,
        "cents": Decimal(2),
        "flag": Bool,
        "at": Timestamp,
    },
    timestamp="ts",
    event_id="id",
    stream=FileStream("shop.ndjson"),
)
VALUES: list[dict[str, Any]] = [
    {"n": 2**53 + 1, "x": 0.1, "cents": "17.505", "flag": True, "at": "2024-02-29T01:02:03.456789+05:30"},
    {"n": -(2**63), "x": 1e308, "cents": 0.125, "flag": False, "at": None},
    {"n": None, "x": 5, "cents": -90071992547409.91, "flag": None, "at": "0001-01-01T00:00:00Z"},
    {"n": 7.0, "x": None, "cents": None, "flag": None, "at": 1},
]


def event(n: int, days: int = 0) -> bytes:
    values = VALUES[n % len(VALUES)]
    return json.dumps({"id": f"ü{n}", "ts": instant_text(NOW_US + days * DAY_US + n), **values}).encode()


def letters(store: OfflineStore, raws: list[bytes], partition: str = "a", reason: str = "future") -> None:
    found = [
        DeadLetter("shop", partition, 2 * n, reason, "why", raw[:LETTER_BYTES_MAX], len(raw))
        for n, raw in enumerate(raws)
    ]
    store.dead_letters().append(found, NOW_US)


def revive(store: OfflineStore, source: EventSource = SOURCE, days: int = 0, reason: str | None = None) -> Outcome:
    judge = Judge(source, NOW_US + days * DAY_US)
    return store.revived().revive(judge, store.dead_letters(), store.archive(source), reason)


def events(store: OfflineStore, source: str = "shop") -> list[bytes | None]:
    rows = store.revived().read(source, 0)
    assert rows["revived_offset"].to_pylist() == list(range(len(rows)))
    found: list[bytes | None] = rows["event"].to_pylist()
    return found


def test_a_letter_is_revived_once_and_the_others_stay(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    assert revive(store) == Outcome(0, 0, {})
    letters(store, [event(0, days=1), b"not json", event(1, days=3), b" " * (LETTER_BYTES_MAX + 1)])
    letters(store, [event(2)], "b", "wrong_type")
    cut = [("a", 6, LETTER_BYTES_MAX + 1)]
    assert revive(store, reason="wrong_type") == Outcome(1, 0, {})
    assert revive(store) == Outcome(0, 0, {"future": 3, "malformed": 1}, cut), "the clock is not there yet"
    assert revive(store, days=1) == Outcome(1, 0, {"future": 2, "malformed": 1}, cut)
    assert revive(store, days=1) == Outcome(0, 0, {"future": 2, "malformed": 1}, cut)
    assert revive(store, days=5) == Outcome(1, 0, {"future": 1, "malformed": 1}, cut)
    assert [json.loads(raw or b"")["id"] for raw in events(store)] == ["ü2", "ü0", "ü1"]
    assert store.revived().settled() == {("shop", "b", 0), ("shop", "a", 0), ("shop", "a", 4)}


def test_whole_letters_of_any_size_are_judged(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store, whole = OfflineStore(str(tmp_path)), event(0)
    sizes = [EVENT_BYTES_MAX - 1, EVENT_BYTES_MAX, EVENT_BYTES_MAX + 1, LETTER_BYTES_MAX]
    letters(store, [whole + b" " * (size - len(whole)) for size in sizes])
    monkeypatch.setattr(revived, "BYTES_MAX", 3 * EVENT_BYTES_MAX)
    assert revive(store) == Outcome(2, 0, {"too_large": 2})
    rows = store.dead_letters().scan().sort_by("source_offset")
    assert [len(raw) for raw in rows["raw"].to_pylist()] == rows["size"].to_pylist() == sizes


def test_letters_of_before_that_may_be_cut_are_not_judged(tmp_path: Any) -> None:
    store = OfflineStore(str(tmp_path))
    letters(store, [event(0), event(1) + b" " * EVENT_BYTES_MAX])
    rows = store.dead_letters().table
    old = rows.reading(rows.schema.names).table()
    raws = pa.array([raw[:EVENT_BYTES_MAX] for raw in old["raw"].to_pylist()], pa.binary())
    unsized = old.set_column(5, "raw", raws).set_column(6, "size", pa.nulls(2, pa.int64()))
    rows.overwrite("true", Commit(unsized))
    assert revive(store) == Outcome(1, 0, {"future": 1}, [("a", 2, None)])


def test_a_revived_event_is_the_event_that_its_letter_is(tmp_path: Any) -> None:
    store = OfflineStore(str(tmp_path))
    raws = [event(n) for n in range(len(VALUES))]
    letters(store, raws)
    assert revive(store).revived == len(raws)
    first, dead = decode_json(SOURCE, "p", 0, raws, NOW_US)
    again, _ = decode_json(SOURCE, "p", 0, events(store), NOW_US)
    assert (dead, len(first)) == ([], len(raws))
    assert again.table.equals(first.table)


@pytest.mark.parametrize("killed_at", range(3))
def test_a_replay_that_was_killed_is_repeated_and_two_at_once_revive_what_one_would(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    monkeypatch.setattr(revived, "LETTERS_MAX", 2)
    store, commits = OfflineStore(str(tmp_path)), 0
    letters(store, [event(n) for n in range(6)])
    mine = store.revived()
    append = mine.table.append

    def dying(prepare: Any) -> bool:
        nonlocal commits
        if commits == killed_at:
            revive(store)  # another one comes in between, and does all of it
            assert append(prepare) is False, "nothing is left to this one"
            raise Killed
        commits += 1
        return append(prepare)

    monkeypatch.setattr(mine.table, "append", dying)
    with pytest.raises(Killed):
        mine.revive(Judge(SOURCE, NOW_US), store.dead_letters(), store.archive(SOURCE))
    assert revive(store) == Outcome(0, 0, {})
    assert [json.loads(raw or b"")["id"] for raw in events(store)] == [f"ü{n}" for n in range(6)]


def test_where_duplicates_are_dropped_an_event_that_is_archived_is_not_revived(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    source = EventSource("shop", schema=SOURCE.schema, timestamp="ts", event_id="id", stream=SOURCE.stream, dedupe="1h")
    store.archive(source).append([decode_json(source, "a", 100, [event(1)], NOW_US)[0]], NOW_US)
    letters(store, [event(0), event(1), event(0), event(2)])
    assert revive(store, source) == Outcome(2, 2, {})
    assert [raw is None for raw in events(store)] == [False, True, True, False]
    letters(store, [event(2), event(3)], "b")
    assert revive(store, source) == Outcome(1, 1, {}), "revived before, though not archived yet"


@pytest.mark.parametrize(
    ("partition", "coded"), [("a", True), ("load:0", True), ("load:00ff00ff00ff00ff", False), (REVIVED, False)]
)
def test_letters_of_a_topic_are_read_by_its_codec_whatever_its_name(partition: str, coded: bool) -> None:
    """Those of the topic `load` are messages of it; those of a loaded file are lines of JSON."""
    asked: list[bytes | None] = []

    def codec(messages: Sequence[bytes | None]) -> list[Unreadable]:
        asked.extend(messages)
        return [Unreadable(MALFORMED, "not Avro") for _ in messages]

    _, reasons = Judge(SOURCE, NOW_US, codec=codec)(partition, [(0, event(0))])
    assert (asked, reasons) == (([event(0)], {MALFORMED: 1}) if coded else ([], {}))


def test_upkeep_merges_its_files_and_changes_nothing(offline_url: str) -> None:
    """Each replay is a file or more, and whoever begins a flow reads all of them."""
    store = OfflineStore(offline_url)
    for n in range(upkeep.SMALL_FILES + 1):
        letters(store, [event(n)], partition=f"p{n}")
        assert revive(store).revived == 1
    table = store.revived().table
    before = store.revived().read("shop", 0), store.revived().settled(), store.revived().end("shop")
    kept = upkeep.keep_up(table, None)
    assert (kept.compacted, kept.files_before > kept.files_after) == (1, True), kept
    assert (store.revived().read("shop", 0), store.revived().settled(), store.revived().end("shop")) == before
    assert revive(store) == Outcome(0, 0, {})
