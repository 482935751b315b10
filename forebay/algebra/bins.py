"""Bins of numbers for quantiles: fixed, logarithmic, found by integer arithmetic alone.

Each octave [2^e, 2^(e+1)) from 2^-40 to 2^64 is cut into 64 bins of equal width, so a bin is at most a 64th as wide as
its lower edge, and its middle at most a 128th (0.79 %) off any number in it. The bin of a number is the exponent and
the six highest bits of the fraction of its double: no logarithm, whose last bit differs between machines.

    bin    0          |x| < 2^-40; its middle is 0
           1 … 6656   x > 0, and −1 … −6656 for x < 0
           ±6657      |x| ≥ 2^64; it has no middle

Whole numbers (Int64, units of a Decimal) below 128 have a bin each: there the middle is the number.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
FINE_BITS = 6
LEAST_EXPONENT, END_EXPONENT = -40, 64
BEYOND = ((END_EXPONENT - LEAST_EXPONENT) << FINE_BITS) + 1
"""The bin of what is too large to be told apart; also how many bins there are on either side of 0."""
RELATIVE_ERROR = 2.0 ** -(FINE_BITS + 1)
_FRACTION_BITS, _BIAS = 52, 1023
_FIRST = (_BIAS + LEAST_EXPONENT) << FINE_BITS


def bins_of(values: Array) -> npt.NDArray[np.int64]:
    """The bins of int64 or float64 numbers."""
    numbers = values.astype(np.float64)
    cut = np.abs(numbers).view(np.int64) >> (_FRACTION_BITS - FINE_BITS)
    bins = np.clip(cut - _FIRST + 1, 0, BEYOND)
    signed: npt.NDArray[np.int64] = np.where(numbers < 0, -bins, bins)
    return signed


def middles_of(bins: Array, *, whole: bool) -> npt.NDArray[np.float64]:
    """The middles of bins; of `whole` numbers the middle of those in it. NaN beyond the last bin."""
    size = np.abs(bins.astype(np.int64))
    low, high = _edge(size), _edge(size + 1)
    middle = (np.ceil(low) + np.ceil(high) - 1) / 2 if whole else (low + high) / 2
    middle = np.where(size == 0, 0.0, np.where(size >= BEYOND, np.nan, middle))
    return np.where(bins < 0, -middle, middle)


def _edge(size: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The lower edge of a bin on the positive side."""
    return ((size - 1 + _FIRST) << (_FRACTION_BITS - FINE_BITS)).view(np.float64)
