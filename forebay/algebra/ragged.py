"""Ragged partials: what a tile remembers of a column where that is of no fixed size.

Each row has some *cells*, small records of one kind. One event becomes one cell, or none where the column is null. A
group of rows becomes one row by one rule: put their cells together, sort by key, make equal keys one, trim. It is
associative and commutative, its zero is no cells, and the result is a function of the set of events: what is trimmed
could not come back whatever else were merged.

    partial   of a column of      a cell               key              equal keys   trim
    firsts    any bounded type    ts, id, value        ts, id, value    all kept     the k smallest
    lasts     any bounded type    ts, id, value        ts, id, value    all kept     the k largest
    hashes    any bounded type    hash                 hash             one          the k + 1 smallest
    values    any bounded type    value, count         value            + count      beyond k: saturated, one cell with
                                                                                     count −1, whatever else is merged
    bins      Int64, Decimal,     bin, count           bin              + count      none: bins are fixed
              Float64
    between   numbers, instants   bin, count           bin              + count      none: edges are fixed

The k of hashes and values bounds what a row can have; bins are bounded by their number (`forebay.algebra.bins`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra import bins
from forebay.algebra.hashes import hashes_of
from forebay.algebra.lifted import Lifted

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Parameters = tuple[Any, ...]
SATURATED = -1
"""The count of the one cell that says: there were more distinct values than are counted."""


@dataclass(frozen=True, eq=False)
class Ragged:
    """Cells of many rows, those of one row after another: row i has `counts[i]` of them."""

    counts: Ints
    cells: Array

    def __len__(self) -> int:
        return len(self.counts)

    @property
    def edges(self) -> Ints:
        """The cells of row i are `cells[edges[i]:edges[i + 1]]`."""
        return np.concatenate(([0], np.cumsum(self.counts)))

    def take(self, rows: Array | slice) -> Ragged:
        """Some rows: a stretch of them, or by a mask or by row numbers in any order."""
        if isinstance(rows, slice):
            return self.between(*rows.indices(len(self))[:2])
        rows = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows
        if len(rows) == len(self) and (np.diff(rows) == 1).all():
            return self  # all of them, in order
        counts = self.counts[rows]
        return Ragged(counts, picked(self.cells, spread(self.edges[rows], counts)))

    def between(self, first: int, last: int) -> Ragged:
        """A stretch of rows, where they are."""
        edges = self.edges
        return Ragged(self.counts[first:last], self.cells[edges[first] : edges[last]])

    @staticmethod
    def joined(parts: Sequence[Ragged]) -> Ragged:
        """The rows of at least one part, one after another."""
        cells = np.concatenate([_bytes(part.cells) for part in parts]).view(parts[0].cells.dtype)
        return Ragged(np.concatenate([part.counts for part in parts]), cells)

    @staticmethod
    def nothing(count: int, cell: np.dtype[Any]) -> Ragged:
        """So many rows without cells."""
        return Ragged(np.zeros(count, np.int64), np.empty(0, cell))


def picked(cells: Array, rows: Array) -> Array:
    """Some cells, moved as plain bytes: field by field NumPy is several times slower."""
    return _bytes(cells).take(np.flatnonzero(rows) if rows.dtype == np.bool_ else rows).view(cells.dtype)


def sortable(keys: Array) -> list[Array]:
    """Arrays that sort as the keys do, the most significant last: text as words, which sort faster."""
    if keys.dtype.kind != "S":
        return [keys]
    width = -(-keys.dtype.itemsize // 8)
    words = np.ascontiguousarray(keys.astype(f"S{8 * width}")).view(">u8").reshape(len(keys), width)
    return [words[:, i].astype(np.uint64) for i in reversed(range(width))]


def _bytes(cells: Array) -> Array:
    return cells.view(np.dtype((np.void, cells.dtype.itemsize)))


def spread(first: Array, counts: Ints) -> Ints:
    """The numbers `first[i], first[i] + 1, …` of each row, `counts[i]` of them, one row after another."""
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    numbers: Ints = np.arange(total) + np.repeat(np.asarray(first, np.int64) - (ends - counts), counts)
    return numbers


@dataclass(frozen=True)
class CellKind:
    """The operations of one kind: the cell of a value, and what the cells of groups become.

    `reduce` gets the group of each cell, in ascending order, and gives groups and cells that are left, in that order.
    """

    cell: Callable[[str, int], list[tuple[str, str]]]
    lift: Callable[[Lifted, Parameters, np.dtype[Any]], Array]
    reduce: Callable[[Ints, Array, Parameters], tuple[Ints, Array]]


def merge_groups(kind: str, ragged: Ragged, starts: Array, parameters: Parameters) -> Ragged:
    """One row of each group of rows."""
    ends = np.append(starts[1:], len(ragged))
    edges = ragged.edges
    groups = np.repeat(np.arange(len(starts)), edges[ends] - edges[starts])
    groups, cells = CELLS[kind].reduce(groups, ragged.cells, parameters)
    return Ragged(np.bincount(groups, minlength=len(starts)), cells)


def _event_cells(column: Lifted, parameters: Parameters, cell: np.dtype[Any]) -> Array:
    cells = np.empty(int(column.valid.sum()), cell)
    cells["ts"], cells["id"] = column.ts[column.valid], column.ids[column.valid]
    cells["value"] = column.values[column.valid]
    return cells


def _edge_events(groups: Ints, cells: Array, parameters: Parameters, *, newest: bool) -> tuple[Ints, Array]:
    """The k first or last of each group, in order of (ts, id, value)."""
    (k,) = parameters
    order = np.lexsort((cells["ts"], groups))
    ts, groups = cells["ts"][order], groups[order]
    if ((ts[1:] == ts[:-1]) & (groups[1:] == groups[:-1])).any():
        tied = picked(cells, order)
        order = order[np.lexsort((tied["value"], tied["id"], ts, groups))]
    after = np.searchsorted(groups, groups, "right") if newest else np.arange(1, len(groups) + 1)
    before = np.arange(len(groups)) if newest else np.searchsorted(groups, groups)
    kept = after - before <= k
    return groups[kept], picked(cells, order[kept])


def _hash_cells(column: Lifted, parameters: Parameters, cell: np.dtype[Any]) -> Array:
    return hashes_of(column.values[column.valid]).view(cell)


def _smallest_hashes(groups: Ints, cells: Array, parameters: Parameters) -> tuple[Ints, Array]:
    (k,) = parameters
    order = np.lexsort((cells["hash"], groups))
    groups, hashes = groups[order], cells["hash"][order]
    fresh = np.append(True, (groups[1:] != groups[:-1]) | (hashes[1:] != hashes[:-1]))[: len(groups)]
    order, groups = order[fresh], groups[fresh]
    kept = np.arange(len(groups)) - np.searchsorted(groups, groups) <= k
    return groups[kept], cells[order[kept]]


def _counted(key: Array, name: str, cell: np.dtype[Any]) -> Array:
    cells = np.empty(len(key), cell)
    cells[name], cells["count"] = key, 1
    return cells


def _value_cells(column: Lifted, parameters: Parameters, cell: np.dtype[Any]) -> Array:
    values = column.values[column.valid]
    return _counted(values + 0.0 if values.dtype.kind == "f" else values, "value", cell)  # −0.0 is 0.0


def _value_counts(groups: Ints, cells: Array, parameters: Parameters) -> tuple[Ints, Array]:
    """Counts by value; a group that is saturated, or has more than k values, is one cell that says so."""
    (k,) = parameters
    broken = np.zeros(int(groups[-1]) + 1 if len(groups) else 0, np.bool_)
    broken[groups[cells["count"] < 0]] = True
    groups, cells = _sums(groups, cells, "value")
    broken |= np.bincount(groups, minlength=len(broken)) > k
    if not broken.any():
        return groups, cells
    first = np.append(True, groups[1:] != groups[:-1])
    kept = ~broken[groups] | first
    groups, cells = groups[kept], cells[kept]
    nothing = np.zeros((), cells.dtype)
    nothing["count"] = SATURATED
    cells[broken[groups]] = nothing
    return groups, cells


def _sums(groups: Ints, cells: Array, key: str) -> tuple[Ints, Array]:
    """One cell of each key of each group, with the sum of their counts."""
    if not len(cells):
        return groups, cells
    keys = cells[key]
    order = np.lexsort((*sortable(keys), groups))
    groups, keys = groups[order], keys[order]
    starts = np.flatnonzero(np.append(True, (groups[1:] != groups[:-1]) | (keys[1:] != keys[:-1])))
    found = picked(cells, order[starts])
    found["count"] = np.add.reduceat(cells["count"][order], starts)
    return groups[starts], found


def _bin_cells(column: Lifted, parameters: Parameters, cell: np.dtype[Any]) -> Array:
    return _counted(bins.bins_of(column.values[column.valid]), "bin", cell)


def _between_cells(column: Lifted, parameters: Parameters, cell: np.dtype[Any]) -> Array:
    values = column.values[column.valid]
    return _counted(np.searchsorted(np.array(parameters, values.dtype), values, "right"), "bin", cell)


def _bin_counts(groups: Ints, cells: Array, parameters: Parameters) -> tuple[Ints, Array]:
    return _sums(groups, cells, "bin")


def _of_event(storage: str, id_bytes: int) -> list[tuple[str, str]]:
    return [("ts", "<i8"), ("id", f"S{id_bytes}"), ("value", storage)]


def _of_bin(storage: str, id_bytes: int) -> list[tuple[str, str]]:
    return [("bin", "<i4"), ("count", "<i8")]


CELLS: dict[str, CellKind] = {
    "firsts": CellKind(_of_event, _event_cells, lambda g, c, p: _edge_events(g, c, p, newest=False)),
    "lasts": CellKind(_of_event, _event_cells, lambda g, c, p: _edge_events(g, c, p, newest=True)),
    "hashes": CellKind(lambda storage, id_bytes: [("hash", "<u8")], _hash_cells, _smallest_hashes),
    "values": CellKind(lambda storage, id_bytes: [("value", storage), ("count", "<i8")], _value_cells, _value_counts),
    "bins": CellKind(_of_bin, _bin_cells, _bin_counts),
    "between": CellKind(_of_bin, _between_cells, _bin_counts),
}
