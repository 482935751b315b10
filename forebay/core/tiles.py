"""Tiles: the partial aggregates of entities over hops, and the four things one does with them.

    fold      events          → tiles of the finest ring
    roll_up   finest tiles    → tiles of every ring
    merge     tiles, any order, in pieces → one tile per (entity, ring, start)
    expire    tiles           → those that a window can still need

All four are pure, vectorised over many entities, and independent of the order of their input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Fields, Starts
from forebay.core.events import Events
from forebay.core.layout import PENDING, Layout
from forebay.core.records import copied, gathered, joined, put

Ints = npt.NDArray[np.int64]
Records = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Tiles:
    """Records of tiles and the entity of each, as an index into a list of keys; sorted by (entity, ring, start)."""

    code: Ints
    records: Records

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: npt.NDArray[Any]) -> Tiles:
        """Some tiles, by a mask or by ascending row numbers."""
        return Tiles(self.code[rows], gathered(self.records, rows))

    @staticmethod
    def empty(layout: Layout) -> Tiles:
        """No tiles."""
        return Tiles(np.empty(0, np.int64), np.empty(0, layout.record))


def fold(layout: Layout, events: Events) -> Tiles:
    """Tiles of the finest ring: one per entity and hop that has an event."""
    if not len(events):
        return Tiles.empty(layout)
    start = events.ts - events.ts % layout.hops_us[0]
    order = _order(layout, events.code, np.zeros(1, np.uint8), start)
    code, start = events.code[order], start[order]
    fields: Fields = {"events": np.ones(len(order), np.int64), "newest": events.ts[order]}
    for partial in layout.partials:
        fields |= partial.lift(events.lifted(partial.column, order))
    starts = group_starts(code, start)
    merged = reduce(layout, fields, starts)
    merged["start"], merged["ring"] = start[starts], np.zeros(len(starts), np.uint8)
    return Tiles(code[starts], layout.records(merged))


def roll_up(layout: Layout, tiles: Tiles) -> Tiles:
    """Tiles of every ring from tiles of the finest (pending or not); each ring is merged from the one below."""
    finest = copied(tiles.records)
    finest["ring"] = 0
    rings = [merge(layout, tiles.code, finest)]
    for ring, hop_us in enumerate(layout.hops_us[1:], 1):
        below = rings[-1]
        records = copied(below.records)
        records["ring"] = ring
        records["start"] -= records["start"] % hop_us
        rings.append(merge(layout, below.code, records))
    return merge(layout, np.concatenate([r.code for r in rings]), joined([r.records for r in rings]))


def merge(layout: Layout, code: Ints, records: Records) -> Tiles:
    """One tile per (entity, ring, start) from tiles in any order: groups of one are moved, others computed."""
    if not len(code):
        return Tiles(code, records)
    ring, start = np.ascontiguousarray(records["ring"]), np.ascontiguousarray(records["start"])
    order = _order(layout, code, ring, start)
    code = code[order]
    starts = group_starts(code, ring[order], start[order])
    merged = gathered(records, order[starts])
    sizes = np.diff(np.append(starts, len(code)))
    several = np.flatnonzero(sizes > 1)
    if len(several):
        put(merged, several, _reduced(layout, gathered(records, order[np.repeat(sizes > 1, sizes)]), sizes[several]))
    return Tiles(code[starts], merged)


def expire(layout: Layout, tiles: Tiles, instants_us: Ints) -> Tiles:
    """The tiles that a window can need at or after each entity's instant; pending ones stay."""
    starts, rings = np.ascontiguousarray(tiles.records["start"]), np.ascontiguousarray(tiles.records["ring"])
    keep = rings == PENDING
    for ring, (hop_us, reach_us) in enumerate(zip(layout.hops_us, layout.reaches_us, strict=True)):
        mine = rings == ring
        if reach_us is None:
            keep |= mine
        else:
            edge = instants_us - reach_us
            keep |= mine & (starts >= (edge - edge % hop_us)[tiles.code])
    return tiles if keep.all() else tiles.take(keep)


def reduce(layout: Layout, fields: Fields, starts: Starts, partials: Any = None) -> Fields:
    """Merge each group of rows: the head fields and (some) partials."""
    out: Fields = {
        "events": np.add.reduceat(fields["events"], starts),
        "newest": np.maximum.reduceat(fields["newest"], starts),
    }
    for partial in layout.partials if partials is None else partials:
        mine = {name: fields[name] for name in layout.fields[partial]}
        out |= partial.merge(mine, fields[f"present_{partial.column}"], starts)
    return out


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
