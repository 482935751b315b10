"""Which of some values each of many rows has: a hash table that is made once and asked by compiled loops.

Arrow's `index_in` makes its table anew with each call: of a million keys that takes as long as a million rows take to
be found, so it pays only for pieces that no cache holds. Here a row costs about one cache miss.

    slots      [ 32 bits of the hash | number + 1 ][ word ]      two words of 64 bits, in one cache line
    word       of a whole number itself; of a text of up to 7 bytes these and their count; of a longer one more of its
               hash, below a byte that no shorter one has: its bytes are compared, too

May live here: text and whole numbers, by exact comparison. This module needs the extra `fast`. Sources: linear probing
(Knuth, The Art of Computer Programming 3, 6.4, algorithm L); the finalizer of SplitMix64 (Steele, Lea, Flood, 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.kernel import compiled
from forebay.core.texts import data_of, edges_of

Codes = npt.NDArray[np.int32]
Array = npt.NDArray[Any]
BLOCK = 512
"""Rows whose slots are fetched one after another before the first is looked at, so that fetches overlap."""
SHORT = 7
"""Bytes of a text that a word holds beside their count."""
NONE = np.frombuffer(bytes(4), np.int32), np.frombuffer(b"", np.uint8)


class HashTable:
    """The values of an array of distinct text (`pa.string()`) or whole numbers (`pa.int64()`), without nulls."""

    def __init__(self, values: pa.Array) -> None:
        self._type = values.type
        self._offsets: Array
        self._data: Array
        self._offsets, self._data = NONE if self._type == pa.int64() else text_of(values)
        hashes, words = self._hashed(values)
        self._slots = np.zeros((1 << max(4, (2 * len(values)).bit_length()), 2), np.uint64)
        insert(hashes, words, self._slots)

    @staticmethod
    def takes(kind: pa.DataType) -> bool:
        """Whether values of a type can be looked for."""
        return bool(kind in (pa.string(), pa.int64()))

    def find(self, rows: pa.Array) -> Codes:
        """The place of each row's value among the values, −1 where it is none of them or null."""
        hashes, words = self._hashed(rows)
        found = np.empty(len(rows), np.int32)
        offsets, data = NONE if self._type == pa.int64() else text_of(rows)
        look_up(hashes, words, self._slots, self._offsets, self._data, offsets, data, found)
        if rows.null_count:
            found[~np.asarray(rows.is_valid())] = -1
        return found

    def _hashed(self, values: pa.Array) -> tuple[Array, Array]:
        hashes, words = np.empty(len(values), np.uint64), np.empty(len(values), np.uint64)
        if self._type == pa.int64():
            words[:] = np.frombuffer(values.buffers()[1] or b"", np.int64)[values.offset :][: len(values)].view(
                np.uint64
            )
            hash_words(words, hashes)
        else:
            hash_texts(*text_of(values), hashes, words)
        return hashes, words


def text_of(values: pa.Array) -> tuple[Codes, Array]:
    """The offsets and the bytes of texts."""
    if not len(values):
        return NONE
    return edges_of(values), np.frombuffer(data_of(values), np.uint8)


@compiled
def mixed(word: Any) -> Any:
    """A number of which each bit depends on each bit of another."""
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


@compiled
def hash_words(words: Array, hashes: Array) -> None:
    """The hash of each word."""
    for i in range(len(words)):
        hashes[i] = mixed(words[i])


@compiled
def hash_texts(offsets: Array, data: Array, hashes: Array, words: Array) -> None:
    """The hash of each text, and its word."""
    eight = np.uint64(8)
    for i in range(len(hashes)):
        size = offsets[i + 1] - offsets[i]
        word, total, held = np.uint64(0), np.uint64(size), 0
        for j in range(offsets[i], offsets[i + 1]):
            if held == 8:
                total, word, held = mixed(total ^ word) + np.uint64(0x9E3779B97F4A7C15), np.uint64(0), 0
            word = (word << eight) | np.uint64(data[j])
            held += 1
        hashes[i] = mixed(mixed(total ^ word) + np.uint64(size))
        words[i] = (
            (word | (np.uint64(size) << np.uint64(56)))
            if size <= SHORT
            else (mixed(hashes[i] + np.uint64(1)) | (np.uint64(0xFF) << np.uint64(56)))
        )


@compiled
def insert(hashes: Array, words: Array, slots: Array) -> None:
    """Put values that are distinct into slots, of which there are a power of two."""
    mask, one, top = np.uint64(len(slots) - 1), np.uint64(1), np.uint64(0xFFFFFFFF00000000)
    for i in range(len(hashes)):
        at = hashes[i] & mask
        while slots[at, 0] != 0:
            at = (at + one) & mask
        slots[at, 0] = (hashes[i] & top) | np.uint64(i + 1)
        slots[at, 1] = words[i]


@compiled
def differs(place: int, row: int, known_offsets: Array, known_data: Array, offsets: Array, data: Array) -> bool:
    """Whether a known text is not that of a row."""
    first, mine = known_offsets[place], offsets[row]
    size = offsets[row + 1] - mine
    if known_offsets[place + 1] - first != size:
        return True
    other = np.uint8(0)
    for j in range(size):
        other |= known_data[first + j] ^ data[mine + j]
    return bool(other != 0)


@compiled
def look_up(
    hashes: Array,
    words: Array,
    slots: Array,
    known_offsets: Array,
    known_data: Array,
    offsets: Array,
    data: Array,
    found: Array,
) -> int:
    """The number of the value of each row, −1 where there is none. Without offsets, the word says all of a value.

    What is at one place in memory for one row and elsewhere for the next is fetched for a block of rows at a time. What
    is returned says nothing: it keeps the compiler from leaving out a fetch.
    """
    mask, one, low, half = np.uint64(len(slots) - 1), np.uint64(1), np.uint64(0xFFFFFFFF), np.uint64(32)
    heads, tails = np.empty(BLOCK, np.uint64), np.empty(BLOCK, np.uint64)
    end, fetched = np.uint64(len(known_data)), np.uint8(0)
    for first in range(0, len(hashes), BLOCK):
        last = min(first + BLOCK, len(hashes))
        for i in range(first, last):
            at = hashes[i] & mask
            heads[i - first], tails[i - first] = slots[at, 0], slots[at, 1]
        for i in range(first, last):
            at, head, tail = hashes[i] & mask, heads[i - first], tails[i - first]
            while head != 0 and (tail != words[i] or (head ^ hashes[i]) >> half != 0):
                at = (at + one) & mask
                head, tail = slots[at, 0], slots[at, 1]
            found[i], heads[i - first] = np.int64(head & low) - 1, at
        if len(offsets) <= 1:
            continue
        for i in range(first, last):
            tails[i - first] = known_offsets[max(found[i], 0)] if offsets[i + 1] - offsets[i] > SHORT else end
        for i in range(first, last):
            if tails[i - first] < end:
                fetched ^= known_data[tails[i - first]]
        for i in range(first, last):
            while found[i] >= 0 and offsets[i + 1] - offsets[i] > SHORT:
                if not differs(found[i], i, known_offsets, known_data, offsets, data):
                    break
                at = (heads[i - first] + one) & mask  # another text of the same hash and word: the next one, or none
                while slots[at, 0] != 0 and (slots[at, 1] != words[i] or (slots[at, 0] ^ hashes[i]) >> half != 0):
                    at = (at + one) & mask
                found[i], heads[i - first] = np.int64(slots[at, 0] & low) - 1, at
    return int(fetched)
