"""128-bit integers equal Python's."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from forebay.algebra import int128

INT64 = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5) | st.sampled_from([-(2**63), 2**63 - 1, 2**53, -(2**53) - 1])
)
SMALL = st.integers(-int128.VARIANCE_UNITS_MAX, int128.VARIANCE_UNITS_MAX)


def wide(numbers: list[int]) -> int128.Wide:
    return int128.widen(np.array(numbers, np.int64))


@given(st.lists(INT64, min_size=1, max_size=40), st.data())
def test_sums_of_groups_and_running_sums(numbers: list[int], data: st.DataObject) -> None:
    cuts = sorted({0, *data.draw(st.lists(st.integers(0, len(numbers) - 1)))})
    groups = [numbers[a:b] for a, b in zip(cuts, [*cuts[1:], len(numbers)], strict=True)]
    summed = int128.sum_groups(wide(numbers), np.array(cuts))
    assert int128.integers(summed) == [sum(group) for group in groups]
    running = int128.running_sums(wide(numbers))
    assert int128.integers(running) == [sum(numbers[:i]) for i in range(len(numbers) + 1)]
    assert int128.integers(int128.subtract(running[1:], running[:-1])) == numbers
    assert int128.integers(int128.sum_groups(summed, np.array([0]))) == [sum(numbers)]


@given(st.lists(SMALL, min_size=1, max_size=30))
def test_squares_and_variances_are_exact(numbers: list[int]) -> None:
    squares = int128.squares(np.array(numbers, np.int64))
    assert int128.integers(squares) == [number * number for number in numbers]
    first = np.array([0])
    total, square = int128.sum_groups(wide(numbers), first), int128.sum_groups(squares, first)
    count = np.array([len(numbers)])
    mean = Fraction(sum(numbers), len(numbers))
    for scale in (0, 2):
        unit = 10**scale
        expected = sum(((number - mean) / unit) ** 2 for number in numbers) / len(numbers)
        assert int128.variances(count, total, square, scale).tolist() == [float(expected)]
        assert int128.quotients(total, count, scale).tolist() == [float(mean / unit)]


@given(st.lists(INT64, min_size=1))
def test_narrow_says_which_fit(numbers: list[int]) -> None:
    doubled = int128.sum_groups(
        wide([number for number in numbers for _ in range(2)]), np.arange(0, 2 * len(numbers), 2)
    )
    values, fits = int128.narrow(doubled)
    for number, value, fit in zip(numbers, values.tolist(), fits.tolist(), strict=True):
        assert fit == (-(2**63) <= 2 * number < 2**63)
        assert not fit or value == 2 * number
