"""Records of an entity as bytes, where what is alike in all of them is there once.

    bits      one for each byte of a record, from the least of the first on: set where records differ in it
    shared    the bytes of a record whose bits are not set, in order
    own       for each record, the bytes whose bits are set, in order

High bytes of counts, sums and instants, unused bytes of names and whole columns of zeros are alike in the tiles of one
entity: two thirds of what a tile takes. Nothing is there for an entity without records. The format is written down in
`docs/formats.md` and pinned by golden files; `forebay.online.packing` writes the same bytes by compiled loops.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.errors import FormatError

Ints = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]
Marks = npt.NDArray[np.bool_]
Places = npt.NDArray[np.intp]


def condense(records: npt.NDArray[Any], edges: Ints) -> list[tuple[Bytes, Ints]]:
    """Bits, shared and own bytes of each entity, whose records are `edges[i]:edges[i + 1]`; and where theirs begin."""
    width, counts = records.dtype.itemsize, np.diff(edges)
    there = np.flatnonzero(counts)
    starts, ends = edges[there], edges[there + 1]
    rows = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), width)
    own = _differing(rows, starts, ends)
    owned = [
        rows[start:end].take(mine.nonzero()[0], axis=1).tobytes()
        for mine, start, end in zip(own, starts.tolist(), ends.tolist(), strict=True)
    ]
    each = own.sum(axis=1)
    sizes = np.zeros((3, len(counts)), np.int64)
    sizes[:, there] = np.full(len(there), -(-width // 8)), width - each, counts[there] * each
    bits = np.packbits(own, axis=1, bitorder="little").ravel()
    columns = (bits, rows[starts][~own], np.frombuffer(b"".join(owned), np.uint8))
    return [(data, np.concatenate(([0], np.cumsum(size)))) for data, size in zip(columns, sizes, strict=True)]


def _differing(rows: Bytes, starts: Ints, ends: Ints) -> Marks:
    """For each entity, in which bytes its rows differ."""
    steps = np.zeros_like(rows)
    np.bitwise_xor(rows[1:], rows[:-1], out=steps[1:])
    steps[starts] = 0
    found = np.empty((len(starts), rows.shape[1]), np.uint8)
    for mine, start, end in zip(found, starts.tolist(), ends.tolist(), strict=True):
        np.bitwise_or.reduce(steps[start:end], out=mine)  # `reduceat` takes five times as long for many rows
    differing: Marks = found != 0
    return differing


def expand(layout: Layout, bodies: Sequence[bytes | memoryview]) -> Tiles:
    """The tiles of condensed bodies; within an entity in stored order. Raises `FormatError`.

    One by one: rows of one entity are filled column by column, which is faster than to find each byte its place.
    """
    counts, found = np.zeros(len(bodies), np.int64), []
    for i, body in enumerate(bodies):
        if len(body):
            found.append(_rows(layout, body))
            counts[i] = len(found[-1])
    if not found:
        return Tiles.empty(layout)
    return Tiles(np.repeat(np.arange(len(bodies)), counts), np.concatenate(found).reshape(-1).view(layout.record))


def _rows(layout: Layout, body: bytes | memoryview) -> Bytes:
    """The records of an entity, as rows of bytes."""
    width = layout.record.itemsize
    bits = -(-width // 8)
    own, shared = _places(bytes(body[:bits]), width)
    each, left = len(own), len(body) - bits - len(shared)
    count = left // each if each else 1
    if count < 1 or left != count * each or len(own) + len(shared) != width:
        raise _torn(layout, len(body))
    data, first = np.frombuffer(body, np.uint8), np.empty(width, np.uint8)
    first[shared] = data[bits : bits + len(shared)]
    rows = np.empty((count, width), np.uint8)
    rows[:] = first
    rows[:, own] = data[bits + len(shared) :].reshape(count, each)
    return rows


@functools.lru_cache(maxsize=1024)
def _places(bits: bytes, width: int) -> tuple[Places, Places]:
    """Which bytes of a record are its own and which are shared; more or fewer than these for bits that are none."""
    marked = np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").view(np.bool_)
    return np.flatnonzero(marked), np.flatnonzero(~marked[:width])


def _torn(layout: Layout, size: int) -> FormatError:
    return FormatError(
        f"Tiles of view {layout.view.key!r} have {size} condensed bytes, which are no whole tiles of "
        f"{layout.record.itemsize}; they were damaged or written for another definition. Publish the view again."
    )
