"""Cells of ranges by a sweep: the faster twin of the trees of `forebay.core.cell_ranges`, for what is counted by a key.

The keys of an entity (values, bins or hashes) are numbered in order. A window that moves forward over its events adds
the number of each that it gains and takes off that of each that it loses; the numbers that are there at an instant, in
order, are the cells of the range. So each event is looked at twice, however many windows hold it, and an answer costs
the cells it has. What a sweep holds goes on from one call to the next; where a range lies before the last one, or is of
another entity, it begins anew.

Invariant: the cells are those of the partial's merge, to the byte (ADR 0072).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import Partial
from forebay.algebra.ragged import SATURATED, Ragged, picked, sortable
from forebay.core import kernel
from forebay.core.tiles import group_starts

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
WORD_BITS = 64


class SweptRanges:
    """Merges one partial over ranges of the events of some entities, whose runs begin at `starts`."""

    def __init__(self, partial: Partial, column: Lifted, starts: Ints) -> None:
        self.partial, self.starts = partial, starts
        cells = partial.lift_cells(column).cells
        owner = (np.searchsorted(starts, np.flatnonzero(column.valid), "right") - 1).astype(np.int64)
        keys = cells[(cells.dtype.names or ("",))[0]]
        order = np.lexsort((*sortable(keys), owner))
        fresh = np.zeros(len(cells), np.bool_)
        fresh[group_starts(owner[order], keys[order])] = True
        self.cells = picked(cells, order[fresh])
        self.first = np.searchsorted(owner[order][fresh], np.arange(len(starts)))
        self.numbers = np.full(len(column.valid), -1, np.int32)
        numbers = np.cumsum(fresh) - 1 - self.first[owner[order]]
        self.numbers[np.flatnonzero(column.valid)[order]] = numbers
        largest = int(np.diff(self.first).max(initial=0))
        self.held = np.zeros(largest + 1, np.int64)
        self.there = np.zeros(largest // WORD_BITS + 1, np.uint64)
        self.state = np.array([-1, 0, 0, 0], np.int64)

    def sizes(self, low: Rows, high: Rows) -> Ints:
        """At most how many cells each range has."""
        owner = self._owner(low)
        sizes: Ints = np.minimum(high - low, self.first[owner + 1] - self.first[owner])
        return np.minimum(sizes, self.most) if self.most else sizes

    @property
    def most(self) -> int:
        """How many cells a range can have at all; 0: as many as there are keys."""
        return int(self.partial.parameters[0]) + 1 if self.partial.kind in ("hashes", "values") else 0

    def merge(self, low: Rows, high: Rows) -> Ragged:
        """The cells of each range `[low, high)`."""
        room = int(self.sizes(low, high).sum())
        found, counts = np.empty(room, np.int64), np.empty(room, np.int64)
        sizes = np.zeros(len(low), np.int64)
        saturates = self.partial.kind == "values"
        window = low, high, self._owner(low)
        held = self.held, self.there, self.state
        kernel.counted(self.numbers, self.first, *window, self.most, saturates, *held, found, counts, sizes)
        used = int(sizes.sum())
        found, counts = found[:used], counts[:used]
        cells = picked(self.cells, found)
        if "count" in (cells.dtype.names or ()):
            cells["count"] = counts
        if saturates and (counts < 0).any():
            nothing = np.zeros((), cells.dtype)
            nothing["count"] = SATURATED
            cells[counts < 0] = nothing
        return Ragged(sizes, cells)

    def _owner(self, low: Rows) -> Ints:
        return (np.searchsorted(self.starts, low, "right") - 1).astype(np.int64)
