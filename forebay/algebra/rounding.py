"""Quotients of large exact integers, rounded to the nearest double once, for whole arrays.

A double holds 53 bits of a number, a pair of doubles (`hi + lo`, |lo| at most half a unit in the last place of hi) some
106. A quotient computed in pairs is off by less than 2^-100 of itself, so its `hi` is the correctly rounded quotient,
unless what is exact lies that close to the middle between two doubles. Whoever calls divides those few in Python's
integers: the answer never depends on this file, only its speed does.

Sources: T. J. Dekker, "A floating-point technique for extending the available precision" (1971), for the product and
the quotient; D. E. Knuth, The Art of Computer Programming 2, 4.2.2, theorem B, for the sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Words = npt.NDArray[np.uint64]
Pair = tuple[Any, Any]

_SPLITTER = 2.0**27 + 1.0
_DOUBT = 2.0**-95
"""Closer to the middle than this share of the quotient, and it isn't decided here; the error is below 2^-100."""


def of_words(low: Words, high: Words) -> Pair:
    """The numbers high · 2^64 + low as pairs, off by less than 2^-104 of themselves."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    hi, lo = _sum((high >> half) * 2.0**96, (high & mask) * 2.0**64)
    for limb, weight in ((low >> half, 2.0**32), (low & mask, 1.0)):
        hi, rest = _sum(hi, limb * weight)
        lo = lo + rest
    return _sum(hi, lo)


def of_integer(number: int) -> Pair:
    """A number below 2^106 as a pair; a larger one is off by less than 2^-104 of itself."""
    hi = float(number)
    return hi, float(number - int(hi))


def product(left: Pair, right: Pair) -> Pair:
    """The product of two pairs, off by less than 2^-102 of itself."""
    hi, lo = _product(left[0], right[0])
    return _sum(hi, lo + (left[0] * right[1] + left[1] * right[0]))


def quotients(numerators: Pair, denominators: Pair) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """The nearest doubles of numerator / denominator, and which of them are beyond doubt. Denominators are positive."""
    first = numerators[0] / denominators[0]
    whole, part = _product(first, denominators[0])
    rest, lost = _sum(numerators[0], -whole)
    second = (rest + (lost - part + numerators[1] - first * denominators[1])) / denominators[0]
    hi, lo = _sum(first, second)
    size, far = np.abs(hi), np.abs(lo)
    unit = np.spacing(size)  # below a power of two the next double is half as far
    doubt = size * _DOUBT
    sure = (np.abs(far - unit / 2) > doubt) & (np.abs(far - unit / 4) > doubt)
    return hi, sure | (numerators[0] == 0)


def _sum(left: Any, right: Any) -> Pair:
    """left + right, exactly."""
    hi = left + right
    back = hi - left
    return hi, (left - (hi - back)) + (right - back)


def _product(left: Any, right: Any) -> Pair:
    """left · right, exactly; both below 2^900."""
    hi = left * right
    (a, b), (c, d) = _halves(left), _halves(right)
    return hi, ((a * c - hi) + a * d + b * c) + b * d


def _halves(number: Any) -> Pair:
    """A number as two of 26 bits each."""
    wide = number * _SPLITTER
    high = wide - (wide - number)
    return high, number - high
