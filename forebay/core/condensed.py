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

LONG = 45
"""Records an entity from which on they are gone through entity by entity."""


def condense(records: npt.NDArray[Any], edges: Ints) -> list[tuple[Bytes, Ints]]:
    """Bits, shared and own bytes of each entity, whose records are `edges[i]:edges[i + 1]`; and where theirs begin."""
    width, counts = records.dtype.itemsize, np.diff(edges)
    there = np.flatnonzero(counts)
    rows = np.ascontiguousarray(records).view(np.uint8).reshape(len(records), width)
    own, owned = (_one_by_one if len(rows) >= LONG * len(there) else _at_once)(rows, edges[there], counts[there])
    sizes = np.zeros((3, len(counts)), np.int64)
    each = own.sum(axis=1)
    sizes[:, there] = np.full(len(there), -(-width // 8)), width - each, counts[there] * each
    columns = (np.packbits(own, axis=1, bitorder="little").ravel(), rows[edges[there]][~own], owned)
    return [(data, np.concatenate(([0], np.cumsum(size)))) for data, size in zip(columns, sizes, strict=True)]


def _at_once(rows: Bytes, starts: Ints, counts: Ints) -> tuple[Marks, Bytes]:
    """Which bytes are each entity's own, whose rows begin at `starts`, and these bytes of all rows."""
    entity = np.repeat(np.arange(len(starts)), counts)
    own = np.logical_or.reduceat(rows != rows[starts][entity], starts)
    return own, rows[own[entity]]


def _one_by_one(rows: Bytes, starts: Ints, counts: Ints) -> tuple[Marks, Bytes]:
    """The same, entity by entity: columns of many rows are gathered faster than bytes here and there."""
    own, owned = np.empty((len(starts), rows.shape[1]), np.bool_), []
    for i, (start, count) in enumerate(zip(starts.tolist(), counts.tolist(), strict=True)):
        some = rows[start : start + count]
        own[i] = np.bitwise_or.reduce(some ^ some[0]) != 0
        owned.append(some[:, np.flatnonzero(own[i])].tobytes())
    return own, np.frombuffer(b"".join(owned), np.uint8)


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
