"""Which batch row holds at an instant: against a loop that reads as the law does, by both clocks."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.core import asof, places
from forebay.core.asof import EARLIEST, NOBODY, AsOf
from forebay.core.places import Places

FOR_EVER = 2**63 - 1
INSTANTS = st.integers(-2, 8) | st.sampled_from([-(2**60), 2**60])
ROW = st.tuples(st.integers(0, 3), INSTANTS, INSTANTS, st.just(FOR_EVER) | INSTANTS)
"""Entity, event_timestamp, created_timestamp, and when a later computation took its place."""
Row = tuple[int, int, int, int]


def expected(rows: list[Row], entity: int, instant_us: int, *, known: bool) -> tuple[int, int]:
    """The number and event_timestamp of the row that holds."""
    held = [
        (event, created, n)
        for n, (mine, event, created, until) in enumerate(rows)
        if mine == entity and event <= instant_us
        if (created <= instant_us < until if known else until == FOR_EVER)
    ]
    return (max(held)[2], max(held)[0]) if held else (NOBODY, EARLIEST)


def offer(wanted: AsOf, rows: list[Row], seed: int, *, known: bool) -> None:
    """The rows in pieces, in any order."""
    chance = random.Random(seed)
    places = list(range(len(rows)))
    chance.shuffle(places)
    while places:
        size = chance.randint(1, len(places))
        piece, places = places[:size], places[size:]
        for current in (True, False):
            mine = [n for n in piece if (rows[n][3] == FOR_EVER) == current]
            code, event, created, until = (np.array([rows[n][i] for n in mine], np.int64) for i in range(4))
            counts = np.maximum(event, created) if known else event
            number = np.array(mine, np.int64)
            if current:
                wanted.offer(code, counts, event, created, number)
            elif known:
                wanted.offer_until(code, counts, until, event, created, number)


@pytest.mark.parametrize(("key_max", "few", "compiled"), [(2**62, 0, 99), (0, 0, 99), (2**62, 32, 99), (2**62, 0, 0)])
@given(
    st.lists(ROW, max_size=14),
    st.lists(st.tuples(st.integers(-1, 4), INSTANTS), max_size=14),
    st.booleans(),
    st.integers(0, 2**32),
)
@example([(0, 1, 2, FOR_EVER), (0, 1, 5, FOR_EVER)], [(0, 3), (0, 6)], True, 0)
@example([(0, 0, 0, FOR_EVER), (0, 0, 0, FOR_EVER), (0, 0, 0, 3), (0, 0, 1, 3)], [(0, 0), (0, 1), (0, 3)], True, 0)
def test_the_row_that_holds_is_the_loops(
    key_max: int, few: int, compiled: int, rows: list[Row], asked: list[tuple[int, int]], known: bool, seed: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "KEY_MAX", key_max)
        patch.setattr(places, "FEW", few)
        patch.setattr(asof, "COMPILED_ROWS", compiled)
        wanted = AsOf(Places(*(np.array([pair[i] for pair in asked], np.int64) for i in range(2))), len(rows))
        offer(wanted, rows, seed, known=known)
        found, event_us = wanted.holding()
    got = list(zip(found.tolist(), event_us.tolist(), strict=True))
    assert got == [expected(rows, entity, us, known=known) for entity, us in asked]
