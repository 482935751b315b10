"""answer(tiles) == answer(events) == oracle, for any events, however they are cut, ordered, rolled up and packed."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from forebay.algebra.ragged import Ragged
from forebay.core import codec
from forebay.core.answer import answer
from forebay.core.layout import PENDING, Layout
from forebay.core.ranges import answer_events
from forebay.core.tiles import Tiles, expire, fold, merge, roll_up
from tests.laws.world import EVENTS, INSTANTS, MIDNIGHT_US, VIEW, Event, as_events, check

LAYOUT = Layout.of(VIEW)
ONE = Event(
    "ann",
    MIDNIGHT_US,
    "a",
    {"whole": 1, "wide": 2**63 - 1, "money": 5, "real": 0.1, "flag": True, "moment": 0, "word": "a"},
)


def tiles_before(events: list[Event], instant_us: int, seed: int, keys: list[str]) -> Tiles:
    """Tiles of the events before an instant, arrived in random order and batches, some rolled up, some pending."""
    chance = random.Random(seed)
    arrived = [event for event in events if event.ts < instant_us]
    chance.shuffle(arrived)
    pieces: list[Tiles] = [Tiles.empty(LAYOUT)]
    while arrived:
        size = chance.randint(1, len(arrived))
        batch, arrived = as_events(arrived[:size]), arrived[size:]
        folded = fold(LAYOUT, batch)
        code = np.array([keys.index(key) for key in batch.keys.to_pylist()], np.int64)[folded.code]
        if chance.random() < 0.5:
            pieces.append(roll_up(LAYOUT, folded.recoded(code)))
        else:
            records = folded.records.copy()
            records["ring"] = PENDING
            pieces.append(Tiles(code, records, folded.cells))
    chance.shuffle(pieces)
    return Tiles.joined(pieces)


@settings(max_examples=150)
@given(EVENTS, INSTANTS, st.integers(0, 2**32))
@example([ONE, ONE], MIDNIGHT_US + 1, 0)
def test_answer_from_tiles_is_the_oracle(events: list[Event], instant_us: int, seed: int) -> None:
    keys = ["ann", "bob", "eve", "nobody"]
    tiles = tiles_before(events, instant_us, seed, keys)
    check(answer(LAYOUT, tiles, np.full(len(keys), instant_us, np.int64)), events, [(key, instant_us) for key in keys])


@settings(max_examples=150)
@given(EVENTS, st.lists(INSTANTS, min_size=1, max_size=6))
@example([ONE, ONE], [MIDNIGHT_US, MIDNIGHT_US + 1])
def test_answer_from_events_is_the_oracle(events: list[Event], instants_us: list[int]) -> None:
    batch = as_events(events)
    rows = [(key, instant_us) for instant_us in instants_us for key in ("bob", "nobody", "ann", "eve")]
    names = batch.keys.to_pylist()
    code = np.array([names.index(key) if key in names else -1 for key, _ in rows], np.int64)
    check(answer_events(LAYOUT, batch, code, np.array([at for _, at in rows], np.int64)), events, rows)


@settings(max_examples=50)
@given(EVENTS, st.integers(0, 2**32))
def test_expired_tiles_change_nothing(events: list[Event], seed: int) -> None:
    keys = ["ann", "bob", "eve"]
    instant_us = max((event.ts for event in events), default=0) + 1
    whole = roll_up(LAYOUT, merge(LAYOUT, *_pending(tiles_before(events, instant_us, seed, keys))))
    newest = codec.newest_of(whole, len(keys))
    newest[newest == codec.NO_CUT] = 0
    kept = expire(LAYOUT, whole, newest + 1)
    check(answer(LAYOUT, kept, newest + 1), events, [(key, int(at)) for key, at in zip(keys, newest + 1, strict=True)])


@settings(max_examples=50)
@given(EVENTS, st.integers(0, 2**32))
def test_packed_tiles_come_back(events: list[Event], seed: int) -> None:
    keys = ["ann", "bob", "eve"]
    tiles = merge(LAYOUT, *_parts(tiles_before(events, 2**62, seed, keys)))
    headers, back = codec.unpack(LAYOUT, codec.pack(LAYOUT, tiles, len(keys), kind=codec.STREAM, commit=3, cut_us=5))
    assert back.records.tobytes() == tiles.records.tobytes()
    assert back.code.tolist() == tiles.code.tolist()
    same_cells(back, tiles)
    assert headers["commit"].tolist() == [3, 3, 3]
    pending = codec.unpack_records(LAYOUT, codec.pack_pending(LAYOUT, tiles, len(keys)).to_pylist())
    assert (pending.records["ring"] == PENDING).all()
    assert len(pending) == len(tiles)
    same_cells(pending, tiles)


def same_cells(one: Tiles, other: Tiles) -> None:
    """The cells of both are the same bytes."""
    assert set(one.cells) == set(other.cells) == {partial.name for partial in LAYOUT.ragged}
    for name, ragged in one.cells.items():
        assert ragged.counts.tolist() == other.cells[name].counts.tolist(), name
        assert ragged.cells.tobytes() == other.cells[name].cells.tobytes(), name


def _parts(tiles: Tiles) -> tuple[np.ndarray, np.ndarray, Any]:
    return tiles.code, tiles.records, tiles.cells


def _pending(tiles: Tiles) -> tuple[np.ndarray, np.ndarray, Any]:
    """The finest tiles alone, whether they are rolled up or not."""
    finest = (tiles.records["ring"] == 0) | (tiles.records["ring"] == PENDING)
    tiles = tiles.take(finest)
    records = tiles.records.copy()
    records["ring"] = 0
    return tiles.code, records, tiles.cells


@settings(max_examples=50)
@given(EVENTS, st.integers(0, 2**32))
def test_merging_with_zero_changes_nothing(events: list[Event], seed: int) -> None:
    tiles = tiles_before(events, 2**62, seed, ["ann", "bob", "eve"])
    count = len(tiles)
    for partial in LAYOUT.partials:
        if partial.is_ragged:
            mine = tiles.cells[partial.name]
            both = Ragged.joined([mine, Ragged.nothing(count, mine.cells.dtype)])
            order = np.arange(2 * count).reshape(2, count).T.ravel()
            merged = partial.merge_cells(both.take(order), np.arange(0, 2 * count, 2))
            assert (merged.counts.tolist(), merged.cells.tobytes()) == (mine.counts.tolist(), mine.cells.tobytes())
            continue
        zero = LAYOUT.zero(partial, count)
        mine = {name: tiles.records[name] for name in zero}
        counts = np.concatenate((tiles.records[partial.present], np.zeros(count, np.int64)))
        both = {name: np.concatenate((mine[name], zero[name])) for name in zero}
        order = np.arange(2 * count).reshape(2, count).T.ravel()
        starts = np.arange(0, 2 * count, 2)
        if count:
            merged = partial.merge({name: array[order] for name, array in both.items()}, counts[order], starts)
            assert all((merged[name] == mine[name]).all() for name in zero), partial
