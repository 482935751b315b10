"""Tiles with cells as bytes: a frame of records, numbers of cells, and the cells of each ragged partial.

    u4      tiles in the frame
    u4 …    for each ragged partial in the layout's order: bytes of its cells
    …       the records, one after another
    u4 …    for each tile, for each ragged partial: how many cells it has
    …       for each ragged partial: its cells, tile by tile

A frame says how long it is, so frames that are appended to each other are read as one. Only views with ragged partials
have frames. The format is written down in `docs/formats.md` and pinned by golden files.
"""

from __future__ import annotations

import functools
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.ragged import Ragged
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.errors import FormatError

Ints = npt.NDArray[np.int64]
Body = bytes | memoryview | None
COUNT = np.dtype("<u4")


def pack_frames(layout: Layout, tiles: Tiles, edges: Ints) -> list[bytes]:
    """A frame for each entity, whose tiles are `edges[i]:edges[i + 1]`; nothing for one without tiles."""
    ragged = [tiles.cells[partial.name] for partial in layout.ragged]
    counts = np.stack([one.counts for one in ragged], axis=1)
    pieces = [
        _cut(tiles.records.tobytes(), edges * layout.record.itemsize),
        _cut(counts.astype(COUNT).tobytes(), edges * (COUNT.itemsize * len(ragged))),
        *(_cut(one.cells.tobytes(), one.edges[edges] * one.cells.dtype.itemsize) for one in ragged),
    ]
    head = _head(len(ragged))
    return [
        b"".join((head.pack(count, *map(len, parts[2:])), *parts)) if count else b""
        for count, parts in zip(np.diff(edges).tolist(), zip(*pieces, strict=True), strict=True)
    ]


def unpack_frames(layout: Layout, bodies: Sequence[Body]) -> Tiles:
    """The tiles of bodies that are frames one after another; within an entity in stored order. Raises `FormatError`."""
    parts: list[list[Any]] = [[] for _ in range(2 + len(layout.ragged))]
    tiles = np.zeros(len(bodies), np.int64)
    for i, body in enumerate(bodies):
        for count, pieces in _frames(layout, body or b""):
            tiles[i] += count
            for part, piece in zip(parts, pieces, strict=True):
                part.append(piece)
    counts = np.frombuffer(b"".join(parts[1]), COUNT).astype(np.int64).reshape(-1, len(layout.ragged))
    cells = {}
    for column, partial in enumerate(layout.ragged):
        held = np.frombuffer(b"".join(parts[2 + column]), np.uint8)
        mine = np.ascontiguousarray(counts[:, column])
        if len(held) != mine.sum() * layout.cell(partial).itemsize:
            raise _torn(layout, len(held))
        cells[partial.name] = Ragged(mine, held.view(layout.cell(partial)))
    code = np.repeat(np.arange(len(bodies), dtype=np.int64), tiles)
    return Tiles(code, np.frombuffer(b"".join(parts[0]), layout.record), cells)


def _frames(layout: Layout, body: bytes | memoryview) -> Iterator[tuple[int, list[Any]]]:
    """The number of tiles of each frame, and its parts."""
    partials, size, at = len(layout.ragged), layout.record.itemsize, 0
    head, width = _head(partials), COUNT.itemsize * partials
    while at < len(body):
        if at + head.size > len(body):
            raise _torn(layout, len(body))
        count, *sizes = head.unpack_from(body, at)
        first, pieces = at + head.size, []
        for length in (count * size, count * width, *sizes):
            pieces.append(body[first : first + length])
            first += length
        at = first
        if at > len(body):
            raise _torn(layout, len(body))
        yield count, pieces


@functools.lru_cache(maxsize=64)
def _head(partials: int) -> struct.Struct:
    return struct.Struct(f"<{1 + partials}I")


def _cut(body: bytes, places: Ints) -> list[bytes]:
    return [body[first:last] for first, last in itertools.pairwise(places.tolist())]


def _torn(layout: Layout, size: int) -> FormatError:
    return FormatError(
        f"Tiles of view {layout.view.key!r} have {size} bytes, which are no whole frames; they were written for "
        "another definition. Publish the view again."
    )
