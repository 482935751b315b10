"""Ragged partials over ranges of events: what `forebay.core.ranges` does for those of fixed size.

    firsts, lasts    the next (or last) k rows with a value, inward from an edge
    all others       a binary tree of merged rows, up to the longest entity, of which a range is at most 2·log2(n)
                     nodes; their cells are put together and merged once

What a range merges to has up to thousands of cells, so ranges are taken in blocks that bound memory. With compiled code
there are faster ways (`forebay.core.runs`); the values are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import Partial
from forebay.algebra.ragged import Ragged, picked, spread

Rows = npt.NDArray[np.intp]
Ints = npt.NDArray[np.int64]
BLOCK_CELLS = 1 << 20
"""Cells that the ranges of one block may merge to: some tens of megabytes."""
GATHERED_CELLS = 1 << 22
"""Cells of nodes that are merged at once."""


class CellRanges(Protocol):
    """Merges one ragged partial over ranges of rows."""

    def sizes(self, low: Rows, high: Rows) -> Ints:
        """At most how many cells each range has."""
        ...

    def merge(self, low: Rows, high: Rows) -> Ragged:
        """The cells of each range `[low, high)`."""
        ...


def cell_ranges(partial: Partial, column: Lifted, longest: int) -> CellRanges:
    """What merges a partial over ranges of at most `longest` rows of a column in order of (entity, ts, id, value)."""
    return _EdgeRanges(partial, column) if partial.is_ordered else _TreeRanges(partial, column, longest)


def blocks(merges: Sequence[CellRanges], low: Rows, high: Rows) -> Iterator[slice]:
    """Stretches of ranges that are merged at once: all of them where nothing has cells."""
    sizes = np.zeros(len(low), np.int64)
    for merge in merges:
        sizes = np.maximum(sizes, merge.sizes(low, high))
    yield from _stretches(sizes, BLOCK_CELLS)


def _cells_most(partial: Partial) -> int:
    """How many cells a row of a partial can have."""
    if partial.kind == "between":
        return len(partial.parameters) + 1
    return int(partial.parameters[0]) + 1 if partial.parameters else 1 << 14


def _stretches(sizes: Ints, most: int) -> Iterator[slice]:
    ends, first = np.cumsum(sizes), 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(int(np.searchsorted(ends, before + most, "right")), first + 1)
        yield slice(first, last)
        first = last


class _EdgeRanges:
    """The first or last k: cells are in order already, so a range has a stretch of them."""

    def __init__(self, partial: Partial, column: Lifted) -> None:
        self.newest, (self.k,) = partial.kind == "lasts", partial.parameters
        self.cells = partial.lift_cells(column).cells
        self.before = np.concatenate(([0], np.cumsum(column.valid)))

    def sizes(self, low: Rows, high: Rows) -> Ints:
        """At most how many cells each range has."""
        sizes: Ints = np.minimum(high - low, self.k)
        return sizes

    def merge(self, low: Rows, high: Rows) -> Ragged:
        """The cells of each range `[low, high)`."""
        first, last = self.before[low], self.before[high]
        counts = np.minimum(last - first, self.k)
        return Ragged(counts, picked(self.cells, spread(last - counts if self.newest else first, counts)))


class _TreeRanges:
    """Node i of a level merges nodes 2i and 2i + 1 of the level below."""

    def __init__(self, partial: Partial, column: Lifted, longest: int) -> None:
        self.partial = partial
        self.levels = [partial.lift_cells(column)]
        while 1 << len(self.levels) <= longest:
            below = self.levels[-1]
            self.levels.append(partial.merge_cells(below, np.arange(0, len(below), 2)))
        self.edges = [level.edges for level in self.levels]

    def sizes(self, low: Rows, high: Rows) -> Ints:
        """At most how many cells each range has."""
        sizes: Ints = np.minimum(high - low, _cells_most(self.partial))
        return sizes

    def merge(self, low: Rows, high: Rows) -> Ragged:
        """The cells of each range `[low, high)`."""
        nodes = self._nodes(low, high)
        sizes = np.zeros(len(low), np.int64)
        for level, rows, chosen in nodes:
            np.add.at(sizes, rows, self.levels[level].counts[chosen])
        return Ragged.joined(
            [
                Ragged.nothing(0, self.levels[0].cells.dtype),
                *(self._merged(nodes, part) for part in _stretches(sizes, GATHERED_CELLS)),
            ]
        )

    def _nodes(self, low: Rows, high: Rows) -> list[tuple[int, Rows, Rows]]:
        """Which nodes of which level are the ranges of which rows, in ascending order of rows."""
        low, high = low.copy(), high.copy()
        found: list[tuple[int, Rows, Rows]] = []
        for level in range(len(self.levels)):
            last = level == len(self.levels) - 1
            left = np.flatnonzero((low < high) & ((low & 1 == 1) | last))
            found.append((level, left, low[left]))
            low[left] += 1
            right = np.flatnonzero((low < high) & ((high & 1 == 1) | last))
            found.append((level, right, high[right] - 1))
            high[right] -= 1
            low, high = low >> 1, high >> 1
        return found

    def _merged(self, nodes: list[tuple[int, Rows, Rows]], part: slice) -> Ragged:
        """The cells of a stretch of rows."""
        owners: list[npt.NDArray[Any]] = []
        pieces: list[npt.NDArray[Any]] = []
        for level, rows, chosen in nodes:
            first, last = np.searchsorted(rows, (part.start, part.stop))
            mine = self.levels[level].take(chosen[first:last])
            owners.append(np.repeat(rows[first:last] - part.start, mine.counts))
            pieces.append(mine.cells)
        owner = np.concatenate(owners)
        order, count = np.argsort(owner, kind="stable"), part.stop - part.start
        each = Ragged(np.bincount(owner, minlength=count), picked(np.concatenate(pieces), order))
        return self.partial.merge_cells(each, np.arange(count))
