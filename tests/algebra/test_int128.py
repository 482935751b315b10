"""128-bit integers equal Python's."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

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


@given(st.lists(st.tuples(st.integers(-(2**126), 2**126) | INT64, st.integers(1, 2**31)), min_size=1, max_size=20))
def test_quotients_of_large_numbers_are_rounded_once(pairs: list[tuple[int, int]]) -> None:
    numerators = words([number for number, _ in pairs])
    denominators = np.array([count for _, count in pairs])
    for scale in (0, 2, 12):
        expected = [number / (count * 10**scale) for number, count in pairs]
        assert few_and_many(int128.quotients, numerators, denominators, scale) == [expected] * 2


@given(st.integers(2**52, 2**53), st.integers(0, 40), st.sampled_from([-1, 0, 1]), st.integers(1, 2**20))
def test_quotients_in_the_middle_of_two_doubles_go_to_the_even_one(odd: int, shift: int, off: int, count: int) -> None:
    number = (2 * odd + 1) * 2**shift * count + off
    assert few_and_many(int128.quotients, words([number]), np.array([count]), 0) == [[number / count]] * 2


SAMPLES = st.lists(
    st.tuples(st.integers(1, 2**31), st.integers(-(2**47), 2**47), st.integers(0, 2**50)), min_size=1, max_size=20
)


@given(SAMPLES)
def test_variances_of_many_large_values_are_rounded_once(samples: list[tuple[int, int, int]]) -> None:
    """A sample of `count` values about `mean` has at least count · mean² as its sum of squares."""
    rows = [(n, n * mean, n * mean * mean + more) for n, mean, more in samples]
    counts, totals, squares = (np.array([row[0] for row in rows]), *(words([row[i] for row in rows]) for i in (1, 2)))
    for scale in (0, 2, 12):
        expected = [(n * q - s * s) / (n * n * 10 ** (2 * scale)) for n, s, q in rows]
        assert few_and_many(int128.variances, counts, totals, squares, scale) == [expected] * 2


def few_and_many(compute: Callable[..., np.ndarray], *arguments: Any) -> list[list[float]]:
    """What is computed of some rows, and of so many like them that they are computed in another way."""
    times = int128.FEW + 1
    many = [np.repeat(a, times) if isinstance(a, np.ndarray) else a for a in arguments]
    return [compute(*arguments).tolist(), compute(*many)[::times].tolist()]


def words(numbers: list[int]) -> int128.Wide:
    out = int128.zeros(len(numbers))
    out["lo"], out["hi"] = [number & 2**64 - 1 for number in numbers], [number >> 64 for number in numbers]
    return out
