"""The tiles that a publication writes: those that a window can need at or after its cut, by entity, slot by slot.

Lives here: which tiles these are, what is wrong with them, and their order. They stay where they are until they are
packed. Invariant: from `COMPILED_TILES` on compiled loops do it (`forebay.online.packing`), with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.algebra.ragged import spread
from forebay.core.compiled import can_compile
from forebay.core.identity import slots_of
from forebay.core.layout import PENDING, Layout
from forebay.core.tiles import Tiles, group_starts, needed, ring_edges
from forebay.errors import RequestError
from forebay.instants import duration_text, instant_text

COMPILED_TILES = 500_000
"""numba takes a fifth of a second to load, in which some 50,000 entities are published."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Entities by slot and newest event, and which tiles are theirs: `rows[edges[i]:edges[i + 1]]` of `tiles`."""

    entities: pa.Array
    slots: Ints
    newest_us: Ints
    tiles: Tiles
    rows: Ints
    edges: Ints

    @classmethod
    def of(cls, layout: Layout, keys: Sequence[str], tiles: Tiles, cut_us: int) -> Chosen:
        """The tiles that a window can need at or after the cut. Raises `RequestError` for what cannot be published."""
        _check(layout, keys, cut_us)
        rows, latest = _needed(layout, tiles, cut_us)
        code = tiles.code[rows]
        if (np.diff(code) < 0).any():
            order = np.argsort(code, kind="stable")
            rows, code, latest = rows[order], code[order], latest[order]
        begins = group_starts(code) if len(code) else np.empty(0, np.int64)
        entities = pa.array(keys, pa.string()).take(pa.array(code[begins]))
        slots = slots_of(entities)
        newest_us = np.maximum.reduceat(latest, begins) if len(rows) else begins
        order = by_slot(slots, newest_us)
        counts = np.diff(np.append(begins, len(rows)))[order]
        edges = np.concatenate(([0], np.cumsum(counts)))
        entities = entities.take(pa.array(order))
        return cls(entities, slots[order], newest_us[order], tiles, rows[spread(begins[order], counts)], edges)

    @property
    def compiled(self) -> bool:
        """Whether they are so many that compiled loops pack them; cells are packed elsewhere."""
        return not self.tiles.cells and are_many(self.tiles)

    def tiles_of(self, some: slice) -> Tiles:
        """The tiles of some entities, which are numbered from 0."""
        counts = np.diff(self.edges[some.start : some.stop + 1])
        rows = self.rows[self.edges[some.start] : self.edges[some.start] + counts.sum()]
        return self.tiles.take(rows).recoded(np.repeat(np.arange(len(counts)), counts))


def by_slot(slots: Ints, newest_us: Ints) -> Ints:
    """The order of entities by slot, and in a slot by their newest event; those alike stay in order."""
    if len(newest_us) and (newest_us == newest_us[0]).all():
        return np.argsort(slots.astype(np.uint8), kind="stable")  # numbers of one byte are counted
    order = np.argsort(newest_us, kind="stable")
    return order[np.argsort(slots[order].astype(np.uint8), kind="stable")]


def are_many(tiles: Tiles) -> bool:
    """Whether compiled loops are worth while."""
    return len(tiles) >= COMPILED_TILES and can_compile()


def _needed(layout: Layout, tiles: Tiles, cut_us: int) -> tuple[Ints, Ints]:
    """The tiles that a window can need, and the newest event of each; all that are wrong would be among them."""
    if not are_many(tiles):
        heads = tiles.heads()
        rows = np.flatnonzero(needed(layout, heads, cut_us))
        records = heads.records[rows]
        wrong = np.flatnonzero((records["start"] >= cut_us) | (records["ring"] == PENDING))
        _check_none(layout, tiles, rows[wrong], cut_us)
        return rows, records["newest"]
    from forebay.online.packing import choose

    rows, latest = np.empty(len(tiles), np.int64), np.empty(len(tiles), np.int64)
    records, edges = tiles.records, ring_edges(layout, cut_us)
    count, first = choose(records["start"], records["ring"], records["newest"], edges, cut_us, rows, latest)
    _check_none(layout, tiles, np.array([first][: first + 1], np.int64), cut_us)
    return rows[:count], latest[:count]


def _check(layout: Layout, keys: Sequence[str], cut_us: int) -> None:
    view, hop_us = layout.view.key, layout.hops_us[-1]
    if cut_us % hop_us:
        raise RequestError(
            f"View {view!r} cannot be cut at {instant_text(cut_us)}: tiles of {duration_text(hop_us)} would lie on "
            "both sides. Cut at a midnight (UTC)."
        )
    if len(set(keys)) != len(keys):
        raise RequestError(f"View {view!r}: an entity is named twice in the keys of its tiles; merge its tiles")


def _check_none(layout: Layout, tiles: Tiles, wrong: Ints, cut_us: int) -> None:
    if len(wrong):
        start = int(tiles.records["start"][wrong[0]])
        raise RequestError(
            f"View {layout.view.key!r}: a tile at {instant_text(start)} is pending or not before the cut "
            f"{instant_text(cut_us)}; roll up and filter the tiles first"
        )
