"""Rows find the entity that the text of their key names, whatever the key's columns are and hold."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import Entity, Int64, String
from forebay.core.events import Column, Events, is_unused, unused
from forebay.core.identity import entity_keys
from forebay.core.lookup import KeyLookup
from forebay.core.threads import worked_ahead

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


def test_pieces_become_one_in_their_order() -> None:
    def piece(first: int, count: int) -> Events:
        rows = np.arange(first, first + count)
        column = Column(rows * 0.5, rows % 2 == 0)
        return Events(["ann", ""], rows % 2, rows, unused("S1", count), rows * 3, {"real": column})

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
        return Events(["ann"], rows * 0, rows, unused("S1", len(rows)), rows, {"real": Column(rows * 0.5, mask)})

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
