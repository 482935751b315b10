"""One stable 64-bit hash of a stored value, the same on every machine and for every width that text is stored in.

    words    Int64, Decimal, Timestamp: the value itself; Bool: 0 or 1; Float64: its 64 bits (−0.0 is 0.0); text: its
             UTF-8 bytes in little-endian words of eight, the last filled up with zeros
    hash     h = 0x9E3779B97F4A7C15; for each word: h = mix(h xor word); at last h = mix(h xor length in bytes)
    mix      the finalizer of SplitMix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014)

Nothing may change here: hashes are stored in tiles, and are merged with those of tomorrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Words = npt.NDArray[np.uint64]
SEED = np.uint64(0x9E3779B97F4A7C15)


def hashes_of(values: Array) -> Words:
    """The hashes of an array of int64, float64, bool or fixed bytes."""
    if values.dtype.kind == "S":
        return _of_bytes(values)
    if values.dtype.kind == "f":
        words = (values + 0.0).astype(np.float64).view(np.uint64)
    else:
        words = values.astype(np.int64).view(np.uint64)
    return _mixed(_mixed(SEED ^ words) ^ np.uint64(8))


def _of_bytes(values: Array) -> Words:
    width = values.dtype.itemsize
    count = -(-width // 8)
    padded = np.zeros((len(values), 8 * count), np.uint8)
    padded[:, :width] = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), width)
    words = padded.view("<u8").astype(np.uint64)
    lengths = np.char.str_len(values).astype(np.int64)
    found = np.full(len(values), SEED)
    for i in range(count):
        found = np.where(lengths > 8 * i, _mixed(found ^ words[:, i]), found)
    return _mixed(found ^ lengths.astype(np.uint64))


def _mixed(words: Words) -> Words:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
