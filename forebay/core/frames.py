"""Tiles with cells as bytes: a frame of records, numbers of cells, and a heap of cells.

    u4      tiles in the frame
    u4      bytes of its heap
    …       the records, one after another
    u4 …    for each tile, for each ragged partial in the layout's order: how many cells it has
    …       the heap: for each tile, for each of these partials, its cells

A frame says how long it is, so frames that are appended to each other are read as one. Only views with ragged partials
have frames. The format is written down in `docs/formats.md` and pinned by golden files.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.ragged import Ragged, spread
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.errors import FormatError

Ints = npt.NDArray[np.int64]
HEAD = struct.Struct("<II")
COUNT = np.dtype("<u4")


def pack_frames(layout: Layout, tiles: Tiles, edges: Sequence[int]) -> list[bytes]:
    """A frame for each entity, whose tiles are `edges[i]:edges[i + 1]`; nothing for one without tiles."""
    counts = np.stack([tiles.cells[partial.name].counts for partial in layout.ragged], axis=1)
    first, ends = _places(layout, counts)
    heap = np.empty(int(ends[-1]), np.uint8)
    for column, partial in enumerate(layout.ragged):
        cells = tiles.cells[partial.name].cells
        size = cells.dtype.itemsize
        at = _cell_places(first[:, column], counts[:, column], size)
        heap[at[:, None] + np.arange(size)] = np.ascontiguousarray(cells).view(np.uint8).reshape(-1, size)
    records, numbers, held = tiles.records.tobytes(), counts.astype(COUNT).tobytes(), heap.tobytes()
    size, width, heaps = layout.record.itemsize, COUNT.itemsize * len(layout.ragged), ends.tolist()
    return [
        HEAD.pack(last - low, heaps[last] - heaps[low])
        + records[low * size : last * size]
        + numbers[low * width : last * width]
        + held[heaps[low] : heaps[last]]
        if last > low
        else b""
        for low, last in itertools.pairwise(edges)
    ]


def unpack_frames(layout: Layout, bodies: Sequence[bytes | memoryview | None]) -> Tiles:
    """The tiles of bodies that are frames one after another; within an entity in stored order. Raises `FormatError`."""
    records, numbers, heaps = [], [], []
    tiles = np.zeros(len(bodies), np.int64)
    for i, body in enumerate(bodies):
        for count, record, number, heap in _frames(layout, body or b""):
            tiles[i] += count
            records.append(record)
            numbers.append(number)
            heaps.append(heap)
    counts = np.frombuffer(b"".join(numbers), COUNT).astype(np.int64).reshape(-1, len(layout.ragged))
    held = np.frombuffer(b"".join(heaps), np.uint8)
    first, ends = _places(layout, counts)
    if int(ends[-1]) != len(held):
        raise _torn(layout, len(held))
    cells = {}
    for column, partial in enumerate(layout.ragged):
        cell = layout.cell(partial)
        at = _cell_places(first[:, column], counts[:, column], cell.itemsize)
        found = held[at[:, None] + np.arange(cell.itemsize)]
        cells[partial.name] = Ragged(counts[:, column].copy(), found.reshape(-1).view(cell))
    code = np.repeat(np.arange(len(bodies), dtype=np.int64), tiles)
    return Tiles(code, np.frombuffer(b"".join(records), layout.record), cells)


def _frames(layout: Layout, body: bytes | memoryview) -> Iterator[tuple[int, Any, Any, Any]]:
    size, width, at = layout.record.itemsize, COUNT.itemsize * len(layout.ragged), 0
    while at < len(body):
        if at + HEAD.size > len(body):
            raise _torn(layout, len(body))
        count, heap = HEAD.unpack_from(body, at)
        records = at + HEAD.size
        numbers = records + count * size
        held = numbers + count * width
        at = held + heap
        if at > len(body):
            raise _torn(layout, len(body))
        yield count, body[records:numbers], body[numbers:held], body[held:at]


def _places(layout: Layout, counts: Ints) -> tuple[Ints, Ints]:
    """Where in the heap the cells of each tile and partial begin, and where the heap of each tile does (and ends)."""
    sizes = counts * np.array([layout.cell(partial).itemsize for partial in layout.ragged], np.int64)
    ends = np.concatenate(([0], np.cumsum(sizes.sum(axis=1))))
    return ends[:-1, None] + np.cumsum(sizes, axis=1) - sizes, ends


def _cell_places(first: Ints, counts: Ints, size: int) -> Any:
    """Where each cell begins, if those of each tile lie side by side."""
    within = spread(np.zeros(len(counts), np.int64), counts)
    return np.repeat(first, counts) + within * size


def _torn(layout: Layout, size: int) -> FormatError:
    return FormatError(
        f"Tiles of view {layout.view.key!r} have {size} bytes, which are no whole frames; they were written for "
        "another definition. Publish the view again."
    )
