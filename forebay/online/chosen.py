"""The tiles that a publication writes: those that a window can need at or after its cut, by entity, slot by slot.

Lives here: which tiles these are, what is wrong with them, and their order. They stay where they are until they are
packed. Invariant: from `COMPILED_TILES` on compiled loops do it (`forebay.online.packing`), with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
STEPS = 1 << 16
"""Of the time that newest events span: enough to bring those together that are kept for about as long."""
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Entities in the order of their keys, and which tiles are theirs: `rows[begins[i]:begins[i] + counts[i]]` of
    `tiles`; `order` is theirs by slot and newest event.
    """

    entities: pa.Array
    slots: Ints
    newest_us: Ints
    tiles: Tiles
    rows: Ints
    begins: Ints
    counts: Ints
    order: Ints

    @classmethod
    def of(cls, layout: Layout, keys: Sequence[str], tiles: Tiles, cut_us: int) -> Chosen:
        """The tiles that a window can need at or after the cut. Raises `RequestError` for what cannot be published."""
        with ThreadPoolExecutor(1, "tiles") as another:
            choosing = another.submit(_needed, layout, tiles, cut_us)
            names, places = _named(layout, keys, cut_us)
            rows, begins, newest_us = choosing.result()
        code = tiles.code[rows[begins]]
        slots, counts = places[code], np.diff(np.append(begins, len(rows)))
        entities = names.take(pa.array(code))
        return cls(entities, slots, newest_us, tiles, rows, begins, counts, by_slot(slots, newest_us))

    @property
    def compiled(self) -> bool:
        """Whether they are so many that compiled loops pack them; cells are packed elsewhere."""
        return not self.tiles.cells and are_many(self.tiles)

    def tiles_of(self, some: Ints) -> Tiles:
        """The tiles of some entities, which are numbered from 0."""
        rows, edges = self.rows_of(some)
        return self.tiles.take(rows).recoded(np.repeat(np.arange(len(edges) - 1), np.diff(edges)))

    def rows_of(self, some: Ints) -> tuple[Ints, Ints]:
        """Which tiles these are, and where among them those of each entity begin (one more than there are)."""
        begins, counts = self.begins[some], self.counts[some]
        edges = np.append(0, np.cumsum(counts))
        if not are_many(self.tiles):
            return self.rows[spread(begins, counts)], edges
        from forebay.online.packing import gather

        rows = np.empty(edges[-1], np.int64)
        gather(self.rows, begins, edges, rows)
        return rows, edges


def by_slot(slots: Ints, newest_us: Ints) -> Ints:
    """The order of entities by slot, and in a slot by their newest event, to within a step; those alike stay in order.

    Numbers of one and of two bytes are counted, not compared.
    """
    if not len(slots):
        return np.empty(0, np.int64)
    oldest_us = newest_us.min()
    step_us = (newest_us.max() - oldest_us) // STEPS + 1
    order = np.argsort(((newest_us - oldest_us) // step_us).astype(np.uint16), kind="stable")
    return order[np.argsort(slots[order].astype(np.uint8), kind="stable")]


def are_many(tiles: Tiles) -> bool:
    """Whether compiled loops are worth while."""
    return len(tiles) >= COMPILED_TILES and can_compile()


def _needed(layout: Layout, tiles: Tiles, cut_us: int) -> tuple[Ints, Ints, Ints]:
    """The tiles that a window can need, by entity; where those of each begin, and its newest event.

    All tiles that are wrong would be among them.
    """
    if not are_many(tiles):
        heads = tiles.heads()
        rows = np.flatnonzero(needed(layout, heads, cut_us))
        records = heads.records[rows]
        wrong = np.flatnonzero((records["start"] >= cut_us) | (records["ring"] == PENDING))
        _check_none(layout, tiles, rows[wrong], cut_us)
        return _by_entity(tiles, rows)
    from forebay.online.packing import choose

    rows, begins, newest_us = (np.empty(len(tiles), np.int64) for _ in range(3))
    records, edges = tiles.records, ring_edges(layout, cut_us)
    count, groups, first = choose(
        tiles.code, records["start"], records["ring"], records["newest"], edges, cut_us, rows, begins, newest_us
    )
    _check_none(layout, tiles, np.array([first][: first + 1], np.int64), cut_us)
    rows, begins, newest_us = rows[:count], begins[:groups], newest_us[:groups]
    if (np.diff(tiles.code[rows[begins]]) < 0).any():
        return _by_entity(tiles, rows)
    return rows, begins, newest_us


def _by_entity(tiles: Tiles, rows: Ints) -> tuple[Ints, Ints, Ints]:
    """Some tiles by entity, in order; where those of each begin, and its newest event."""
    code = tiles.code[rows]
    if (np.diff(code) < 0).any():
        order = np.argsort(code, kind="stable")
        rows, code = rows[order], code[order]
    if not len(rows):
        return rows, rows, rows
    begins = group_starts(code)
    return rows, begins, np.maximum.reduceat(tiles.records["newest"][rows], begins)


def _named(layout: Layout, keys: Sequence[str], cut_us: int) -> tuple[pa.Array, Ints]:
    """The entities that are given, and the slot of each."""
    _check(layout, keys, cut_us)
    names = pa.array(keys, pa.string())
    return names, slots_of(names)


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
