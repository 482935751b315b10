"""What is gone through as one is what it would be by itself: the law of `streaming.numbered`, for decoder and splitter.

chunks of some partitions, small and large, with gaps,      decoded and cut at once
malformed, late, doubled, settled by others, without    ==  decoded and cut one by one, by another decoder
a key, of another entity
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import Count, Decimal, Entity, EventSource, Last, String, Sum, Timestamp, WindowedView
from forebay.core.events import Events
from forebay.core.identity import SLOTS
from forebay.ingest.batch import FUTURE, WRONG_TYPE
from forebay.ingest.json import decode_json
from forebay.ingest.select import Selector
from forebay.instants import MINUTE_US, day_us, instant_text
from forebay.offline.archive import REVIVED
from streaming import chunk as chunks
from streaming import decode, numbered
from streaming.backlog import Backlog
from streaming.chunk import Chunk
from streaming.decode import Decoded, Decoder
from streaming.heartbeat import Heartbeat, Quiet
from streaming.numbered import Numbered, together
from streaming.remembered import Remembered, Settled
from streaming.split import Piece, Splitter

NOW_US = day_us("2024-03-02")
SOURCE = EventSource(
    "orders",
    schema={"id": String, "user": String, "shop": String, "amount": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="id",
    lateness="10m",
    dedupe="10m",
)
FEATURES = [
    Count("n", windows=["1h"], default=0),
    Sum("sum", of="amount", windows=["1h"], default=0),
    Last("last", of="amount", windows=["1h"], default=None),
]
BY_USER = WindowedView(
    "by_user", 1, Entity("user", keys={"user": String}), SOURCE, features=FEATURES, where="amount > 1"
)
BY_SHOP = WindowedView("by_shop", 1, Entity("shop", keys={"shop": String}), SOURCE, features=FEATURES)
VIEWS = [BY_USER, BY_SHOP]
SETTLED = {"p2": Remembered(NOW_US - 20 * MINUTE_US, settled=Settled(2, {1: FUTURE, 4: WRONG_TYPE}))}


def line(id_: str, user: str | None, amount: int, minute: int) -> bytes:
    instant = instant_text(NOW_US + minute * MINUTE_US)
    return json.dumps({"id": id_, "user": user, "shop": f"s{amount % 3}", "amount": amount, "ts": instant}).encode()


LINES = st.one_of(
    st.builds(
        line,
        st.sampled_from("abcdefgh"),
        st.sampled_from(["ann", "bob", "cem", None]),
        st.integers(0, 5),
        st.integers(-40, 3),
    ),
    st.sampled_from([b"{", b"[]", None]),
)
RUNS = st.lists(st.tuples(st.integers(0, 3), st.lists(LINES, max_size=6), st.integers(1, 3)), max_size=8)


def log(runs: Sequence[tuple[int, list[bytes | None], int]]) -> list[Chunk]:
    """Chunks of partitions, one of which is what was revived, whose offsets are some apart."""
    ends: Counter[str] = Counter()
    found = []
    for number, lines, apart in runs:
        partition = REVIVED if number == 3 else f"p{number}"
        first = ends[partition]
        ends[partition] += max(1, len(lines)) * apart
        offsets = None if apart == 1 else np.arange(len(lines), dtype=np.int64) * apart + first
        found.append(Chunk(SOURCE, partition, first, ends[partition], lines=lines, offsets=offsets))
    return found


def fresh() -> Decoder:
    return Decoder({}, lambda source, partition: SETTLED.get(partition, Remembered()), lambda: NOW_US)


def said(decoded: Decoded) -> tuple[Any, ...]:
    batch = decoded.batch
    where = (batch.partition, batch.first_offset, batch.next_offset)
    return (
        *where,
        batch.table.to_pylist(),
        decoded.dead,
        decoded.ts.tolist(),
        decoded.late.tolist(),
        decoded.duplicates,
    )


def rows(events: Events) -> list[tuple[Any, ...]]:
    columns = [list(zip(one.values.tolist(), one.valid.tolist(), strict=True)) for one in events.columns.values()]
    names = [events.keys[code].as_py() for code in events.code.tolist()]
    slots = events.slots[events.code].tolist()
    return list(
        zip(names, slots, events.ts.tolist(), events.ids.tolist(), events.offset.tolist(), *columns, strict=True)
    )


def told(piece: Piece | Heartbeat) -> tuple[Any, ...]:
    if isinstance(piece, Heartbeat):
        return (piece.writer, piece.ends)
    where = (piece.writer, piece.partition, piece.first_offset, piece.next_offset, piece.newest_us)
    return (*where, {key: rows(events) for key, events in piece.events.items()}, piece.size, piece.refused)


@given(RUNS)
def test_chunks_that_are_decoded_at_once_are_what_they_are_by_themselves(
    runs: Sequence[tuple[int, list[bytes | None], int]],
) -> None:
    found, alone = fresh(), fresh()
    assert [said(one) for one in found(log(runs))] == [said(one) for chunk in log(runs) for one in alone([chunk])]


@given(RUNS, st.integers(1, 3), st.integers(0, 8))
def test_chunks_that_are_cut_at_once_are_what_they_are_by_themselves(
    runs: Sequence[tuple[int, list[bytes | None], int]], writers: int, at: int
) -> None:
    decoded: list[Decoded | Heartbeat] = [*fresh()(log(runs))]
    decoded.insert(at, Heartbeat(SOURCE, NOW_US, {"p0": Quiet(1, NOW_US)}))
    whole, alone = Splitter(VIEWS, writers, Backlog()), Splitter(VIEWS, writers, Backlog())
    found = whole(decoded)
    assert [told(piece) for piece in found] == [told(piece) for one in decoded for piece in alone([one])]
    for piece in found:
        if isinstance(piece, Piece):
            slots = {slot for events in piece.events.values() for slot in events.slots[events.code].tolist()}
            assert slots <= set(range(SLOTS))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a decoder and a splitter work on columns."""
    counted: Counter[str] = Counter()

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            counted[name] += 1
            return call(*arguments, **named)

        return run

    monkeypatch.setattr(decode, "decode_json", counting("decode", decode_json))
    monkeypatch.setattr(Selector, "select", counting("select", Selector.select))
    return counted


def poll(partitions: int, events: int) -> list[Chunk]:
    return [
        Chunk(SOURCE, f"p{n}", 0, events, lines=[line(f"{n}-{i}", "ann", 2, -(i % 5)) for i in range(events)])
        for n in range(partitions)
    ]


def test_what_a_poll_finds_of_many_partitions_costs_what_it_costs_of_one(calls: Counter[str]) -> None:
    Splitter(VIEWS, 2, Backlog())([*fresh()(poll(50, 3))])
    assert calls == {"decode": 1, "select": len(VIEWS)}


def test_pieces_for_other_workers_hold_no_more_than_theirs() -> None:
    """Each is pickled by itself: entities of the others in it would make that quadratic."""
    lines = [[line(f"{n}-{i}", f"user {n}-{i}", 2, -(i % 5)) for i in range(20)] for n in range(40)]
    found = fresh()([Chunk(SOURCE, f"p{n}", 0, 20, lines=some) for n, some in enumerate(lines)])
    pieces = Splitter(VIEWS, 2, Backlog())(found)
    alone = [piece for one in found for piece in Splitter(VIEWS, 2, Backlog())([one])]
    assert sum(map(size, pieces)) <= 1.1 * sum(map(size, alone))


def size(piece: Piece | Heartbeat) -> int:
    assert isinstance(piece, Piece)
    return len(pickle.dumps(piece.events))


def test_large_events_stay_apart(calls: Counter[str]) -> None:
    long = "x" * 60_000
    found = [Chunk(SOURCE, f"p{n}", 0, 20, lines=[line(f"{n}-{i}", long, 2, 0) for i in range(20)]) for n in range(8)]
    assert sum(map(len, (one.lines for one in found))) < chunks.EVENTS_MAX
    fresh()(found)
    assert calls["decode"] >= 5, "two megabytes at a time, by and large"
    assert chunks.enough(found)
    assert not chunks.enough(poll(chunks.CHUNKS_MAX, 20))


def test_large_chunks_stay_apart(calls: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbered, "EVENTS_MAX", 8)
    Splitter(VIEWS, 1, Backlog())([*fresh()(poll(5, 4))])
    assert calls == {"decode": 3, "select": 3 * len(VIEWS)}
    assert chunks.EVENTS_MAX > 8


def test_what_goes_together_is_alike_follows_one_another_and_fills_no_more_than_a_chunk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numbered, "EVENTS_MAX", 4)
    kinds: Mapping[str, str | None] = {"a": "a", "b": "b", "-": None}
    found = ["".join(some) for some in together("aaaaaabb--abba", lambda one: kinds[one], lambda one: 1)]
    assert found == ["aaaa", "aa", "bb", "-", "-", "a", "bb", "a"]
    assert [*together("", lambda one: one, len)] == []


@given(st.lists(st.lists(st.integers(0, 100), max_size=5), min_size=1, max_size=5), st.data())
def test_rows_know_where_they_are_from_by_their_number(stretches: list[list[int]], data: st.DataObject) -> None:
    given_ = [np.array(some, np.int64) for some in stretches]
    whole = Numbered.of(given_)
    kept = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(whole.rows), max_size=len(whole.rows))))
    expected = [(n, offset) for n, some in enumerate(stretches) for offset in some]
    assert [whole.place(row) for row in kept.tolist()] == [expected[row] for row in kept.tolist()]
    spans = whole.spans(kept)
    assert [whole.offsets[kept[span]].tolist() for span in spans] == [
        [expected[row][1] for row in kept.tolist() if expected[row][0] == n] for n in range(len(stretches))
    ]
