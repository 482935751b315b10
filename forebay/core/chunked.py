"""Events cut by chunk of entities as they come, so that each chunk can be swept by itself.

    pieces as they come      [b a d c a …]  [d a a c b …]  …          entities 0, 1, 2, … of the call
    cut into 2 chunks        [b d …|a c a …][d b …|a a c …]           entity e is number e // 2 of chunk e % 2
    chunk 1                  [a c a …][a a c …] … side by side        small enough for a processor's cache

A piece is cut while a cache still holds it. What is left to do for a chunk is to lay its parts side by side; nobody
looks for the events of an entity in all of memory, and there is no order of all events.

May live here: cutting, and laying side by side. Invariants: all of an entity is in one chunk; in a chunk events have
the order in which they came, piece after piece. This module needs the extra `fast`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.core import kernel
from forebay.core.arrivals import Arrived, Ids
from forebay.core.events import Column, is_unused, taken, unused

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
ALL: npt.NDArray[np.bool_] = np.empty(0, np.bool_)
"""The mask of a column without nulls."""
CHUNK_ROWS = 2**19
"""Events and spine rows of one chunk: a column of it is 4 MB. An entity that has more makes a larger one."""
CHUNKS_MAX = 2**10
"""So many places a piece is cut to at most; more would be as many cache misses again."""


@dataclass(frozen=True)
class Chunking:
    """How `entities` entities are cut into `2**bits` chunks."""

    entities: int
    bits: int

    @classmethod
    def of(cls, entities: int, rows: int) -> Chunking:
        """As many chunks as it takes for some rows, and no more than there are entities."""
        count = min(max(rows // CHUNK_ROWS, 1), max(entities, 1), CHUNKS_MAX)
        return cls(entities, (count - 1).bit_length())

    def __len__(self) -> int:
        return 1 << self.bits

    def entities_of(self, chunk: int) -> int:
        """How many entities a chunk has."""
        return (self.entities - chunk + len(self) - 1) >> self.bits

    def cut(self, code: Ints) -> Cut:
        """Rows of entities by chunk; those of codes that are no entity's are left out."""
        edges = np.zeros(len(self) + 1, np.int64)
        order, local = np.empty(len(code), np.int32), np.empty(len(code), np.int32)
        kernel.cut(code, self.entities, self.bits, edges, order, local)
        return Cut(edges, order[: edges[-1]], local[: edges[-1]])


@dataclass(frozen=True)
class Cut:
    """Rows by chunk: those of chunk c are `order[edges[c]:edges[c + 1]]`, of entities `local` of it."""

    edges: Ints
    order: Rows
    local: Rows

    def of(self, chunk: int) -> slice:
        """Where those of a chunk are."""
        return slice(int(self.edges[chunk]), int(self.edges[chunk + 1]))


@dataclass(frozen=True)
class Piece:
    """Events as they came, by chunk: of entities `local` of it, with the ids of some places."""

    edges: Ints
    local: Rows
    ts: Ints
    columns: dict[str, Column]
    ids: Ids

    def __len__(self) -> int:
        return len(self.local)

    @classmethod
    def of(cls, arrived: Arrived, chunking: Chunking) -> Piece:
        """Events by chunk."""
        events, cut = arrived.events, chunking.cut(arrived.events.code)
        columns = {name: _in_order(column, cut.order) for name, column in events.columns.items()}
        ids = _held(events.ids, cut.order) if arrived.ids is None else _late(arrived.ids, events.offset, cut.order)
        return cls(cut.edges, cut.local, _in_order_of(events.ts, cut.order), columns, ids)

    def part(self, chunk: int) -> slice:
        """Where the events of a chunk are."""
        return slice(int(self.edges[chunk]), int(self.edges[chunk + 1]))


def _held(ids: Array, order: Rows) -> Ids:
    mine = _in_order_of(ids, order)
    return lambda places: mine[places]


def _late(ids: Ids, numbers: Ints, order: Rows) -> Ids:
    mine = _in_order_of(numbers, order).astype(np.int32)
    return lambda places: ids(mine[places])


@dataclass(frozen=True)
class Chunk:
    """The events of one chunk of entities, piece after piece; masks of columns without nulls are empty."""

    local: Rows
    ts: Ints
    columns: dict[str, Column]
    ids: Ids

    def __len__(self) -> int:
        return len(self.local)

    @classmethod
    def of(cls, pieces: Sequence[Piece], chunk: int) -> Chunk:
        """The parts of pieces (at least one) side by side."""
        parts = [piece.part(chunk) for piece in pieces]
        firsts = np.cumsum([0, *(part.stop - part.start for part in parts)])

        def ids(places: Array) -> Array:
            owner = np.searchsorted(firsts, places, "right") - 1
            rows = [np.flatnonzero(owner == i) for i in range(len(pieces))]
            some = [(mine, i) for i, mine in enumerate(rows) if len(mine)]
            found = [pieces[i].ids(places[mine] - firsts[i] + parts[i].start) for mine, i in some]
            whole = np.empty(len(places), max((one.dtype for one in found), default=np.dtype("S1")))
            for (mine, _), one in zip(some, found, strict=True):
                whole[mine] = one
            return whole

        local = np.concatenate([piece.local[part] for piece, part in zip(pieces, parts, strict=True)])
        ts = np.concatenate([piece.ts[part] for piece, part in zip(pieces, parts, strict=True)])
        columns = {
            name: _beside([piece.columns[name] for piece in pieces], parts, int(firsts[-1]))
            for name in pieces[0].columns
        }
        return cls(local, ts, columns, ids)


def _beside(columns: Sequence[Column], parts: Sequence[slice], count: int) -> Column:
    if all(is_unused(column.values) for column in columns):
        values: Array = unused(columns[0].values.dtype.str, count)
    else:
        values = np.concatenate([column.values[part] for column, part in zip(columns, parts, strict=True)])
    if not any(len(column.valid) for column in columns):
        return Column(values, ALL)
    masks = [
        column.valid[part] if len(column.valid) else np.ones(part.stop - part.start, np.bool_)
        for column, part in zip(columns, parts, strict=True)
    ]
    return Column(values, np.concatenate(masks))


def _in_order(column: Column, order: Rows) -> Column:
    values = _in_order_of(column.values, order)
    return Column(values, ALL if column.is_whole else _in_order_of(column.valid, order))


def _in_order_of(array: Array, order: Rows) -> Array:
    if is_unused(array) or array.dtype.kind == "O":  # text without a bound is only ever counted
        return unused(array.dtype.str, len(order))
    if array.dtype.kind == "S":
        return taken(array, order)
    out = np.empty(len(order), array.dtype)
    kernel.gather(np.ascontiguousarray(array), order, out)
    return out
