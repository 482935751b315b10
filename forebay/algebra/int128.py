"""Exact 128-bit integers in NumPy.

A sum of 64-bit integers needs up to 96 bits, a sum of squares up to 126; float64 holds 53. An array of `INT128` holds
each number in two's complement as a low and a high word, which is also the layout of Arrow's decimal128. Addition goes
through four 32-bit limbs in int64 lanes: up to 2^31 numbers can be added before a carry is needed, so a reduction is
four `np.add.reduceat` and one carry. Where everything fits into 64 bits, one is enough.

Nothing here can overflow silently: values that enter are bounded (`VARIANCE_UNITS_MAX`, `EVENTS_MAX`), so that no sum
of them leaves 127 bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra import rounding

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Wide = npt.NDArray[Any]

INT128 = np.dtype([("lo", "<u8"), ("hi", "<i8")])
EVENTS_MAX = 2**31
"""Events that one reduction may add: the limbs carry only once, at its end."""
VARIANCE_UNITS_MAX = 2**47
"""A squared value stays below 2^94, and 2^31 of them below 2^126."""
EXACT_FLOAT_MAX = 2**53
"""Up to here every integer is a float64, so one float division rounds once."""

FEW = 200
"""So few rows are divided in Python's integers faster than in the many array operations of `rounding`."""
_SQUARES_HI_MAX = 2**31
"""A sum of squares below 2^95 times a count of at most 2^31 keeps 127 bits."""
_MASK = np.int64(0xFFFFFFFF)


def zeros(count: int) -> Wide:
    """`count` zeros."""
    return np.zeros(count, INT128)


def widen(values: Ints) -> Wide:
    """The same numbers as INT128."""
    out = np.empty(len(values), INT128)
    out["lo"] = values.view(np.uint64) if values.flags.c_contiguous else values.astype(np.int64).view(np.uint64)
    out["hi"] = values >> 63
    return out


def squares(values: Ints) -> Wide:
    """The exact square of each value; |value| ≤ VARIANCE_UNITS_MAX."""
    size = np.abs(values).astype(np.uint64)
    low, high = size & np.uint64(0xFFFFFFFF), size >> np.uint64(32)
    cross = low * high << np.uint64(1)
    out = np.empty(len(values), INT128)
    out["lo"] = low * low + (cross << np.uint64(32))
    carry = out["lo"] < low * low
    out["hi"] = (high * high + (cross >> np.uint64(32)) + carry).astype(np.int64)
    return out


def narrow(numbers: Wide) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The numbers as int64, and which of them fit."""
    low = numbers["lo"].astype(np.int64)
    return low, numbers["hi"] == low >> 63


def sum_groups(numbers: Wide, starts: npt.NDArray[np.intp]) -> Wide:
    """The sum of each group; group i is `numbers[starts[i]:starts[i + 1]]`, none of them empty."""
    if len(starts) == len(numbers):
        return numbers
    low, fits = narrow(numbers)
    if fits.all() and _largest(low) < 2**62 // len(numbers):
        return widen(np.add.reduceat(low, starts))
    return _carry(*(np.add.reduceat(limb, starts) for limb in _limbs(numbers)))


def running_sums(numbers: Wide) -> Wide:
    """The sums of the first 0, 1, … len(numbers) numbers: one more than there are numbers."""
    out = zeros(len(numbers) + 1)
    low, fits = narrow(numbers)
    if len(numbers) and fits.all() and _largest(low) < 2**62 // len(numbers):
        out[1:] = widen(np.cumsum(low))
    else:
        out[1:] = _carry(*(np.cumsum(limb) for limb in _limbs(numbers)))
    return out


def subtract(left: Wide, right: Wide) -> Wide:
    """left - right, element by element."""
    out = np.empty(len(left), INT128)
    out["lo"] = left["lo"] - right["lo"]
    out["hi"] = left["hi"] - right["hi"] - (left["lo"] < right["lo"])
    return out


def integers(numbers: Wide) -> list[int]:
    """The numbers as Python integers."""
    return [(high << 64) | low for low, high in zip(numbers["lo"].tolist(), numbers["hi"].tolist(), strict=True)]


def quotients(numerators: Wide, denominators: Ints, scale: int) -> Floats:
    """numerator / (denominator · 10^scale), correctly rounded once; denominators are positive."""
    low, fits = narrow(numerators)
    unit = 10**scale
    if fits.all() and _largest(low) <= EXACT_FLOAT_MAX and (denominators <= EXACT_FLOAT_MAX // unit).all():
        return np.asarray(low / (denominators * unit), np.float64)
    if len(numerators) <= FEW:
        return _divided(integers(numerators), denominators.tolist(), unit)
    whole = rounding.product((denominators.astype(np.float64), 0.0), rounding.of_integer(unit))
    rounded, sure = rounding.quotients(rounding.of_words(*_magnitudes(numerators)), whole)
    rounded = np.where(numerators["hi"] < 0, -rounded, rounded)
    rest = ~sure | (denominators > EVENTS_MAX)
    rounded[rest] = _divided(integers(numerators[rest]), denominators[rest].tolist(), unit)
    return rounded


def variances(counts: Ints, totals: Wide, square_totals: Wide, scale: int) -> Floats:
    """The population variance (n·Σx² − (Σx)²) / n², correctly rounded once from exact integers; counts are positive.

    Source: the definition of the variance; exact integers make the textbook formula safe from cancellation.
    """
    total, fits = narrow(totals)
    square, square_fits = narrow(square_totals)
    unit = 10 ** (2 * scale)
    count = counts.astype(np.float64)
    divisors = count * count * unit
    small = (count * square <= EXACT_FLOAT_MAX / 2) & (divisors <= EXACT_FLOAT_MAX / 2)  # far from where they round
    small &= fits & square_fits
    if small.all():
        return np.asarray((counts * square - total * total) / divisors, np.float64)
    rounded = np.empty(len(counts), np.float64)
    rounded[small] = (counts[small] * square[small] - total[small] * total[small]) / divisors[small]
    rest = np.flatnonzero(~small)
    rounded[rest] = _large_variances(counts[rest], totals[rest], square_totals[rest], unit)
    return rounded


def _large_variances(counts: Ints, totals: Wide, square_totals: Wide, unit: int) -> Floats:
    if len(counts) <= FEW:
        rows = zip(counts.tolist(), integers(totals), integers(square_totals), strict=True)
        return np.array([(n * q - s * s) / (n * n * unit) for n, s, q in rows], np.float64)
    total, fits = narrow(totals)
    numerators = subtract(_times(counts, square_totals), _squared(total))
    once = (counts.astype(np.float64), 0.0)
    whole = rounding.product(rounding.product(once, once), rounding.of_integer(unit))
    rounded, sure = rounding.quotients(rounding.of_words(*_magnitudes(numerators)), whole)
    rest = np.flatnonzero(~(sure & fits & (square_totals["hi"] < _SQUARES_HI_MAX) & (counts <= EVENTS_MAX)))
    for some in np.split(rest, range(FEW, len(rest), FEW)):
        rounded[some] = _large_variances(counts[some], totals[some], square_totals[some], unit)
    return rounded


def _divided(numerators: list[int], denominators: list[int], unit: int) -> Floats:
    return np.array([n / (count * unit) for n, count in zip(numerators, denominators, strict=True)], np.float64)


def _times(counts: Ints, numbers: Wide) -> Wide:
    """count · number, for counts below 2^32 and numbers in [0, 2^95)."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    count = counts.astype(np.uint64)
    low, middle = count * (numbers["lo"] & mask), count * (numbers["lo"] >> half)
    out = np.empty(len(numbers), INT128)
    out["lo"] = low + (middle << half)
    out["hi"] = (count * numbers["hi"].view(np.uint64) + (middle >> half) + (out["lo"] < low)).view(np.int64)
    return out


def _squared(values: Ints) -> Wide:
    """The square of any int64 but −2^63."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    size = np.abs(values).astype(np.uint64)
    low, high = size & mask, size >> half
    cross = low * high  # below 2^63, and counts twice
    out = np.empty(len(values), INT128)
    out["lo"] = low * low + (cross << np.uint64(33))
    carry = out["lo"] < low * low
    out["hi"] = (high * high + (cross >> np.uint64(31)) + carry).view(np.int64)
    return out


def _magnitudes(numbers: Wide) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """The sizes of numbers, as a low and a high word."""
    negative = numbers["hi"] < 0
    size = np.where(negative, subtract(zeros(len(numbers)), numbers), numbers)
    return size["lo"].copy(), size["hi"].astype(np.uint64)


def _largest(values: Ints) -> int:
    """The largest size of some int64; |−2^63| has no int64, so not by `np.abs`."""
    return max(int(values.max()), -int(values.min())) if len(values) else 0


def _limbs(numbers: Wide) -> tuple[Ints, Ints, Ints, Ints]:
    low, high = numbers["lo"], numbers["hi"]
    mask = np.uint64(0xFFFFFFFF)
    return (low & mask).astype(np.int64), (low >> np.uint64(32)).astype(np.int64), high & _MASK, high >> 32


def _carry(limb0: Ints, limb1: Ints, limb2: Ints, limb3: Ints) -> Wide:
    """The INT128 of four sums of limbs."""
    limb1 = limb1 + (limb0 >> 32)
    limb2 = limb2 + (limb1 >> 32)
    out = np.empty(len(limb0), INT128)
    out["lo"] = (limb0 & _MASK).view(np.uint64) | ((limb1 & _MASK).view(np.uint64) << np.uint64(32))
    out["hi"] = (limb2 & _MASK) | ((limb3 + (limb2 >> 32)) << 32)
    return out
