"""The stream's computed tiles on their way to `streamed/<view>@<v>`.

Lives here: which events of a piece a table still lacks, and folding them. Online store and table remember how far
they are each for themselves, per lane and partition, and after a crash they differ. Where the table lacks exactly
what was just applied online, the tiles that went there are taken as they are; otherwise the missing events are folded
again (the fold is a pure function, so the tiles add up to the same).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from forebay.core.events import Events, united
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold
from forebay.language.view import WindowedView
from forebay.offline.tiles_table import StreamedTiles, app_id
from streaming.routing import lane_of_events


@dataclass(frozen=True)
class Partials:
    """The events of one view in one piece; `tiles` are theirs, where they were folded by themselves to go online, and
    all of them went there.
    """

    view: WindowedView
    partition: str
    first_offset: int
    next_offset: int
    lanes: Sequence[int]
    events: Events
    commit: int
    tiles: Tiles | None = None


def missing(partials: Sequence[Partials], positions: Mapping[str, int]) -> list[StreamedTiles]:
    """The tiles of the events that a table at `positions` lacks, of some partials of its view.

    Sessions have tiles only when they are settled: a table of theirs has positions alone.
    """
    if not partials or partials[0].view.sessions is not None:
        return []
    rows: list[StreamedTiles] = []
    bare: list[tuple[Partials, Events]] = []
    for one in partials:
        lacking = _lacking(one, positions)
        if lacking is one.events and one.tiles is not None:
            rows += [_rows(one, lacking.keys, one.tiles)] if len(one.tiles) else []
        elif len(lacking):
            bare.append((one, lacking))
    return rows + _folded(Layout.of(partials[0].view), bare)


def _lacking(partials: Partials, positions: Mapping[str, int]) -> Events:
    """The events that a table at some positions lacks."""
    floors = {lane: positions.get(app_id(lane, partials.partition), 0) for lane in partials.lanes}
    if max(floors.values()) <= partials.first_offset:
        return partials.events
    floor = np.zeros(max(floors) + 1, np.int64)
    floor[list(floors)] = list(floors.values())
    events = partials.events
    return events.take(np.flatnonzero(events.offset >= floor[lane_of_events(events)]))


def _folded(layout: Layout, bare: Sequence[tuple[Partials, Events]]) -> list[StreamedTiles]:
    """The tiles of some events of each of some partials, which are folded at once: a second of a flow that keeps up is
    hundreds of them, of a few events each.
    """
    if not bare:
        return []
    parts = [events for _, events in bare]
    keys, numbers = united([part.keys for part in parts])
    codes = [known[part.code] + n * len(keys) for n, (part, known) in enumerate(zip(parts, numbers, strict=True))]
    tiles = fold(layout, Events.concatenated(parts, keys, codes))
    edges = np.searchsorted(tiles.code, np.arange(len(bare) + 1) * len(keys)).tolist()
    tiles = tiles.recoded(tiles.code % len(keys))
    return [
        _rows(one, keys, tiles.between(first, end))
        for (one, _), (first, end) in zip(bare, itertools.pairwise(edges), strict=True)
    ]


def _rows(partials: Partials, keys: pa.StringArray, tiles: Tiles) -> StreamedTiles:
    return StreamedTiles(keys, tiles, partials.commit, partials.partition, partials.next_offset)


def ends(partials: Sequence[Partials], positions: Mapping[str, int]) -> dict[str, int]:
    """Where a table stands after these partials; it never moves back."""
    after: dict[str, int] = {}
    for piece in partials:
        for lane in piece.lanes:
            name = app_id(lane, piece.partition)
            after[name] = max(piece.next_offset, after.get(name, positions.get(name, 0)))
    return {name: offset for name, offset in after.items() if offset > positions.get(name, 0)}
