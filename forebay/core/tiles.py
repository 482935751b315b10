"""Tiles: the partial aggregates of entities over hops, and the four things one does with them.

    fold      events          → tiles of the finest ring
    roll_up   finest tiles    → tiles of every ring
    merge     tiles, any order, in pieces → one tile per (entity, ring, start)
    expire    tiles           → those that a window can still need

All four are pure, vectorised over many entities, and independent of the order of their input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Fields, Partial, Starts
from forebay.algebra.ragged import Ragged
from forebay.core.events import Events
from forebay.core.layout import HEAD, PENDING, Layout
from forebay.core.records import copied, gathered, joined, leading, put
from forebay.instants import floor_us

Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]
Cells = Mapping[str, Ragged]
"""What tiles hold of no fixed size, by the name of the partial."""
NO_CELLS: Cells = {}
_HEAD = np.dtype(list(HEAD))
_ALWAYS, _NEVER = -(2**63), 2**63 - 1


@dataclass(frozen=True, eq=False)
class Tiles:
    """Records of tiles and the entity of each, as an index into a list of keys; sorted by (entity, ring, start).

    `cells` are those of the layout's ragged partials, a row for each tile.
    """

    code: Ints
    records: Records
    cells: Cells = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: npt.NDArray[Any]) -> Tiles:
        """Some tiles, by a mask or by ascending row numbers."""
        return Tiles(self.code[rows], gathered(self.records, rows), taken(self.cells, rows))

    def between(self, first: int, last: int) -> Tiles:
        """The tiles of a stretch of rows, where they are."""
        cells = {name: ragged.between(first, last) for name, ragged in self.cells.items()}
        return Tiles(self.code[first:last], self.records[first:last], cells)

    def recoded(self, code: Ints) -> Tiles:
        """The same tiles, whose entities are numbered otherwise."""
        return Tiles(code, self.records, self.cells)

    def heads(self) -> Tiles:
        """The same tiles without what they hold: where they start, their rings, how many events and the newest."""
        return Tiles(self.code, leading(self.records, _HEAD))

    @staticmethod
    def empty(layout: Layout) -> Tiles:
        """No tiles."""
        cells = {partial.name: Ragged.nothing(0, layout.cell(partial)) for partial in layout.ragged}
        return Tiles(np.empty(0, np.int64), np.empty(0, layout.record), cells)

    @staticmethod
    def joined(parts: Sequence[Tiles]) -> Tiles:
        """The tiles of at least one part, one after another, under one numbering."""
        cells = {name: Ragged.joined([part.cells[name] for part in parts]) for name in parts[0].cells}
        return Tiles(np.concatenate([part.code for part in parts]), joined([part.records for part in parts]), cells)


def taken(cells: Cells, rows: npt.NDArray[Any]) -> Cells:
    """The cells of some rows."""
    return {name: ragged.take(rows) for name, ragged in cells.items()}


def fold(layout: Layout, events: Events) -> Tiles:
    """Tiles of the finest ring: one per entity and hop that has an event."""
    if not len(events):
        return Tiles.empty(layout)
    start = events.ts - events.ts % layout.hops_us[0]
    order = _order(layout, events.code, np.zeros(1, np.uint8), start)
    code, start = events.code[order], start[order]
    fields: Fields = {"events": np.ones(len(order), np.int64), "newest": events.ts[order]}
    cells: dict[str, Ragged] = {}
    lifted = events.lifted([partial.column for partial in layout.partials], order)
    for partial in layout.partials:
        column = lifted[partial.column]
        if partial.is_ragged:
            cells[partial.name] = partial.lift_cells(column)
        else:
            fields |= partial.lift(column)
    starts = group_starts(code, start)
    merged = fields if len(starts) == len(order) else reduce(layout, fields, starts)
    merged["start"], merged["ring"] = start[starts], np.zeros(len(starts), np.uint8)
    return Tiles(code[starts], layout.records(merged), reduce_cells(layout, cells, starts))


def roll_up(layout: Layout, tiles: Tiles) -> Tiles:
    """Tiles of every ring from tiles of the finest (pending or not); each ring is merged from the one below."""
    finest = copied(tiles.records)
    finest["ring"] = 0
    rings = [merge(layout, tiles.code, finest, tiles.cells)]
    for ring, hop_us in enumerate(layout.hops_us[1:], 1):
        below = rings[-1]
        records = copied(below.records)
        records["ring"] = ring
        records["start"] -= records["start"] % hop_us
        rings.append(merge(layout, below.code, records, below.cells))
    every = Tiles.joined(rings)
    return merge(layout, every.code, every.records, every.cells)


def merge(layout: Layout, code: Ints, records: Records, cells: Cells = NO_CELLS) -> Tiles:
    """One tile per (entity, ring, start) from tiles in any order: groups of one are moved, others computed."""
    if not len(code):
        return Tiles(code, records, cells)
    ring, start = np.ascontiguousarray(records["ring"]), np.ascontiguousarray(records["start"])
    order = _order(layout, code, ring, start)
    code = code[order]
    starts = group_starts(code, ring[order], start[order])
    merged = gathered(records, order[starts])
    sizes = np.diff(np.append(starts, len(code)))
    several = np.flatnonzero(sizes > 1)
    if len(several):
        put(merged, several, _reduced(layout, gathered(records, order[np.repeat(sizes > 1, sizes)]), sizes[several]))
    return Tiles(code[starts], merged, reduce_cells(layout, taken(cells, order), starts) if layout.ragged else NO_CELLS)


def expire(layout: Layout, tiles: Tiles, instants_us: Ints) -> Tiles:
    """The tiles that a window can need at or after each entity's instant; pending ones stay."""
    keep = needed(layout, tiles, instants_us)
    return tiles if keep.all() else tiles.take(keep)


def needed(layout: Layout, tiles: Tiles, instants_us: Ints | int) -> npt.NDArray[np.bool_]:
    """Which tiles `expire` keeps; the instant may be one for all entities."""
    starts, rings = np.ascontiguousarray(tiles.records["start"]), np.ascontiguousarray(tiles.records["ring"])
    keep: npt.NDArray[np.bool_]
    if isinstance(instants_us, int):
        keep = starts >= ring_edges(layout, instants_us)[rings]
        return keep
    keep = rings == PENDING
    for ring, (hop_us, reach_us) in enumerate(zip(layout.hops_us, layout.reaches_us, strict=True)):
        mine = rings == ring
        if reach_us is not None:
            edge = instants_us - reach_us
            edge = edge - edge % hop_us
            mine &= starts >= edge[tiles.code]
        keep |= mine
    return keep


def ring_edges(layout: Layout, instant_us: int) -> Ints:
    """Where the tiles that a window can need at or after an instant begin, by the number of their ring."""
    edges = np.full(PENDING + 1, _NEVER, np.int64)
    edges[PENDING] = _ALWAYS
    for ring, (hop_us, reach_us) in enumerate(zip(layout.hops_us, layout.reaches_us, strict=True)):
        edges[ring] = _ALWAYS if reach_us is None else floor_us(instant_us - reach_us, hop_us)
    return edges


def reduce(layout: Layout, fields: Fields, starts: Starts, partials: Any = None) -> Fields:
    """Merge each group of rows: the head fields and (some) partials."""
    out: Fields = {
        "events": np.add.reduceat(fields["events"], starts),
        "newest": np.maximum.reduceat(fields["newest"], starts),
    }
    for partial in layout.partials if partials is None else partials:
        if not partial.is_ragged:
            mine = {name: fields[name] for name in layout.fields[partial]}
            out |= partial.merge(mine, fields[partial.present], starts)
    return out


def reduce_cells(
    layout: Layout, cells: Cells, starts: Starts, partials: Sequence[Partial] | None = None
) -> dict[str, Ragged]:
    """Merge each group of rows: the cells of (some) partials."""
    chosen = layout.ragged if partials is None else [partial for partial in partials if partial.is_ragged]
    return {partial.name: partial.merge_cells(cells[partial.name], starts) for partial in chosen}


def group_starts(*columns: npt.NDArray[Any]) -> Starts:
    """Where a new group begins in sorted columns of equal, positive length."""
    first = np.zeros(len(columns[0]), np.bool_)
    first[:1] = True
    for column in columns:
        first[1:] |= column[1:] != column[:-1]
    return np.flatnonzero(first)


def _order(layout: Layout, code: Ints, ring: npt.NDArray[np.uint8], start: Ints) -> npt.NDArray[np.intp]:
    """What sorts tiles by (code, ring, start), all of them multiples of the finest hop; equal ones stay in order.

    By one number where that fits: a stable sort of it merges runs that are in order already, and most tiles are.
    """
    if not len(code):
        return np.empty(0, np.intp)
    first, hop_us = int(start.min()), layout.hops_us[0]
    span = (int(start.max()) - first) // hop_us + 1
    if (int(code.max()) + 1) * span >= 2**63 >> 8:
        return np.lexsort((start, np.broadcast_to(ring, len(code)), code))
    place = (start - first) // hop_us
    return np.argsort((code << 8 | ring) * span + place, kind="stable")


def _reduced(layout: Layout, records: Records, sizes: Ints) -> Records:
    """One record for each group of `sizes` records that follow one another."""
    starts = np.cumsum(sizes) - sizes
    fields = {name: np.ascontiguousarray(records[name]) for name in layout.record.names or ()}
    merged = reduce(layout, fields, starts)
    merged["start"], merged["ring"] = fields["start"][starts], fields["ring"][starts]
    return layout.records(merged)
