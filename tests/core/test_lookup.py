"""Rows find the entity that the text of their key names, whatever the key's columns are and hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import Entity, Int64, String
from forebay.core import hash_table, lookup, threads
from forebay.core.events import Column, Events, is_unused, unused
from forebay.core.hash_table import HashTable
from forebay.core.identity import entity_keys
from forebay.core.lookup import KeyLookup, Known
from forebay.core.threads import on_threads, worked_ahead

ENTITIES = [
    Entity("user", keys={"a": String}),
    Entity("till", keys={"n": Int64}),
    Entity("shop", keys={"a": String, "n": Int64, "b": String}),
]
TEXTS = st.none() | st.sampled_from(["", "x", "y", "x|y", "50%", "b o", "%25", "ça", "~"])
NUMBERS = st.none() | st.integers(-3, 3) | st.sampled_from([-(2**63), 2**63 - 1])
ROWS = st.lists(st.tuples(TEXTS, NUMBERS, TEXTS), max_size=12)


@given(st.sampled_from(ENTITIES), ROWS, st.data())
def test_a_row_finds_the_entity_of_its_key(entity: Entity, rows: list[tuple], data: st.DataObject) -> None:
    names = {"a": (0, pa.string()), "n": (1, pa.int64()), "b": (2, pa.string())}
    columns = {name: pa.array([row[i] for row in rows], kind) for name, (i, kind) in names.items()}
    texts = entity_keys(entity, {name: columns[name] for name in entity.keys}).to_pylist()
    known = sorted({text for text in texts if text is not None})
    keys = data.draw(st.lists(st.sampled_from(known), unique=True)) if known else []
    places = KeyLookup(entity, keys).places({name: pa.chunked_array([columns[name]]) for name in entity.keys})
    assert places.tolist() == [keys.index(text) if text in keys else -1 for text in texts]


TEXT = st.text(st.sampled_from("ab\0\xe9"), max_size=18) | st.sampled_from(["abcdefg", "abcdefgh", "abcdefg\0", ""])
WHOLE = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)


@given(st.data(), st.sampled_from([(TEXT, pa.string()), (WHOLE, pa.int64())]))
def test_a_hash_table_finds_what_arrow_finds(data: st.DataObject, kind: tuple[st.SearchStrategy, pa.DataType]) -> None:
    values = pa.array(data.draw(st.lists(kind[0], unique=True, max_size=40)), kind[1])
    some = st.sampled_from(values.to_pylist()) if len(values) else st.nothing()
    rows = pa.array(data.draw(st.lists(st.none() | some | kind[0], max_size=60)), kind[1])
    first = data.draw(st.integers(0, 5))
    known, asked = values.slice(first), rows.slice(data.draw(st.integers(0, 5)))
    expected = pc.index_in(asked, value_set=known).fill_null(-1).to_pylist()
    assert HashTable(known).find(asked).tolist() == expected
    assert Known(known, compiled=True).places(pa.chunked_array([asked, asked])).tolist() == expected * 2


def test_texts_of_one_hash_are_told_apart_by_their_bytes() -> None:
    words = ["abcdefgh", "bbcdefgh", "abcdefghi", "cbcdefgh"]
    known, rows = pa.array(words[:3]), pa.array([*words, "abcdefgh"])
    slots = np.zeros((16, 2), np.uint64)
    hash_table.insert(np.zeros(3, np.uint64), np.zeros(3, np.uint64), slots)
    found = np.empty(5, np.int32)
    alike = np.zeros(5, np.uint64), np.zeros(5, np.uint64)
    hash_table.look_up(*alike, slots, *hash_table.text_of(known), *hash_table.text_of(rows), found)
    assert found.tolist() == [0, 1, 2, -1, 0]


def test_keys_of_many_rows_are_found_by_compiled_code_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = ENTITIES[2]
    keys = [f"a{i}|{i % 7}|b" for i in range(50)]
    columns = KeyLookup(shop, [*keys[::-2], "x|1|b"]).columns
    by_arrow = KeyLookup(shop, keys).places(columns)
    monkeypatch.setattr(lookup, "COMPILED_KEYS", 1)
    assert KeyLookup(shop, keys, lookup.COMPILED_ROWS).places(columns).tolist() == by_arrow.tolist()
    assert by_arrow.tolist() == [*range(49, 0, -2), -1]


def test_pieces_become_one_in_their_order() -> None:
    def piece(first: int, count: int) -> Events:
        rows = np.arange(first, first + count)
        column = Column(rows * 0.5, rows % 2 == 0)
        return Events(pa.array(["ann", ""]), rows % 2, rows, unused("S1", count), rows * 3, {"real": column})

    whole = piece(0, 9)
    for room in (0, 4, 100):
        joined = Events.joined([piece(0, 0), piece(0, 5), piece(5, 0), piece(5, 4)], room)
        assert joined.ids.strides == (0,)
        assert joined.keys == whole.keys
        for name in ("code", "ts", "ids", "offset"):
            assert getattr(joined, name).tolist() == getattr(whole, name).tolist(), name
        assert joined.columns["real"].values.tolist() == whole.columns["real"].values.tolist()
        assert joined.columns["real"].valid.tolist() == whole.columns["real"].valid.tolist()
    assert Events.joined([piece(0, 0)], 10).ts.tolist() == []


@pytest.mark.parametrize("room", [0, 4, 100])
def test_a_mask_is_stored_from_the_first_null_on(room: int) -> None:
    def piece(first: int, *valid: bool) -> Events:
        rows = np.arange(first, first + len(valid))
        mask = np.broadcast_to(np.True_, len(valid)) if all(valid) else np.array(valid)
        return Events(
            pa.array(["ann"]), rows * 0, rows, unused("S1", len(rows)), rows, {"real": Column(rows * 0.5, mask)}
        )

    whole = Events.joined([piece(0), piece(0, True, True), piece(2, True)], room).columns["real"]
    assert is_unused(whole.valid)
    assert whole.is_whole
    assert whole.valid.tolist() == [True] * 3
    some = Events.joined([piece(0, True, True), piece(2, False, True), piece(4, True)], room).columns["real"]
    assert some.valid.tolist() == [True, True, False, True, True]
    assert not some.is_whole
    assert some.values.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_pieces_that_are_worked_on_ahead_keep_their_order_and_their_errors() -> None:
    def half(number: int) -> float:
        if number == 7:
            raise ValueError(number)
        return number / 2

    assert list(worked_ahead(half, iter(range(7)), 3)) == [number / 2 for number in range(7)]
    found = worked_ahead(half, iter(range(100)), 3)
    assert [next(found) for _ in range(7)] == [number / 2 for number in range(7)]
    with pytest.raises(ValueError, match="7"):
        next(found)


def test_one_thread_is_that_of_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ThreadPoolExecutor", None)
    assert on_threads(str, [1, 2], 1) == ["1", "2"]
    assert list(worked_ahead(str, iter([1, 2]), 1)) == ["1", "2"]
    with pytest.raises(TypeError):
        on_threads(str, [1, 2], 2)
