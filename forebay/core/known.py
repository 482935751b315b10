"""What was known at an instant: the law over the events that had arrived by then.

A row at T counts an event of its windows iff it had arrived: ts < T and arrived ≤ T. Where that leaves nothing out, the
row is answered as any other. Of the rest, each entity's events are put in the order in which they arrived: a row knows
a first stretch of it. The ends of these stretches cut the order into segments, and every stretch is at most log2 of
them blocks of 1, 2, 4, … segments:

    arrived    0   1   2   3   4   5   6                    segments of an entity
    knows      [─────── 4 ───────)[ 2 ────)[1)              a row that knows seven of them

A block is asked as if it were an entity of its own, with its events by time: the answer to each window is a range of
it, as in `forebay.core.ranges`, and what the blocks of a row merge to is finished as everywhere. So each event is
sorted at most log2(rows of its entity) times, however late it arrived and whatever is aggregated.

Invariant: equal to the oracle over `[event for event in events if event.arrived <= T]`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from forebay.algebra.ragged import Ragged
from forebay.core.answer import by_window, finish, partials_needed
from forebay.core.events import Events
from forebay.core.layout import Layout, Output
from forebay.core.places import Places
from forebay.core.ranges import answer_events, merge_ranges
from forebay.core.tiles import group_starts, reduce, reduce_cells
from forebay.core.values import FeatureColumn
from forebay.language.aggregations import Merged
from forebay.language.windows import Window

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
LATEST = 2**63 - 1
WORTH_LEAVING_OUT = 0.9
"""Events that arrived after every row are dropped first where they are more than a tenth: the rest is copied for it."""
RAGGED_ROWS = 8_000
"""Rows that are answered at once where what they merge to is of no fixed size: up to some tens of KB each."""
_SIDES: tuple[Literal["left"], Literal["right"]] = ("left", "right")


def answer_known(
    layout: Layout,
    events: Events,
    row_code: Ints,
    row_us: Ints,
    names: Sequence[str] | None = None,
    part_of: int = 0,
    *,
    bare: bool = False,
    threads: int | None = None,
) -> list[FeatureColumn]:
    """As `ranges.answer_events`, of the events that had arrived by each row's instant; `events.offset` says when."""
    if len(row_us) and len(events):
        arrived = events.offset <= row_us.max()
        if arrived.mean() < WORTH_LEAVING_OUT:
            events = _taken(events, arrived)
    columns = answer_events(layout, events, row_code, row_us, names, part_of, bare=bare, threads=threads)
    late = np.flatnonzero(unarrived(layout, events, row_code, row_us))
    size = RAGGED_ROWS if any(partial.is_ragged for partial in layout.partials) else max(1, len(late))
    for first in range(0, len(late), size):
        some = late[first : first + size]
        for column, known in zip(
            columns, _answer_late(layout, events, row_code[some], row_us[some], names), strict=True
        ):
            column.put(some, known)
    return columns


def unarrived(layout: Layout, events: Events, row_code: Ints, row_us: Ints) -> npt.NDArray[np.bool_]:
    """Which rows have, within reach of their windows, an event that arrived only after their instant."""
    reach_us, places = layout.lookback_us, Places(row_code, row_us)
    mine = places.asked(events.code)
    low = places.first(events.code[mine], events.ts[mine] + 1)
    hidden = low < places.ends[events.code[mine]]
    mine, low = mine[hidden], low[hidden]
    until = events.offset[mine] if reach_us is None else np.minimum(events.offset[mine], events.ts[mine] + reach_us)
    hidden = places.us[low] < until
    mine, low, until = mine[hidden], low[hidden], until[hidden]
    change = np.zeros(len(places) + 1, np.int64)
    np.add.at(change, low, 1)
    np.add.at(change, places.first(events.code[mine], until), -1)
    late = np.zeros(len(places), np.bool_)
    late[places.order] = np.cumsum(change[:-1]) > 0
    return late


@dataclass(frozen=True)
class _Stretches:
    """Events by arrival, cut into segments: `segment` of each event, and of each row how many it knows.

    Segments are numbered through all entities, those of one entity one after another from its `first`.
    """

    events: Events
    segment: Ints
    event_first: Ints
    row_first: Ints
    row_known: Ints

    @classmethod
    def of(cls, events: Events, row_code: Ints, row_us: Ints) -> _Stretches:
        events = _ordered(events, np.lexsort((events.offset, events.code)))
        starts = np.searchsorted(events.code, row_code)
        ends = _positions(events.code, events.offset, row_code, row_us)
        edges = np.unique(ends[ends > starts])
        segment = np.searchsorted(edges, np.arange(len(events)), "right")
        first, last = (
            np.searchsorted(edges, np.searchsorted(events.code, events.code, side), "right") for side in _SIDES
        )
        row_first = np.searchsorted(edges, starts, "right")
        row_known = np.where(ends > starts, np.searchsorted(edges, ends) + 1 - row_first, 0)
        kept = segment < last  # what comes after the last edge of its entity, nobody knows
        return cls(_taken(events, kept), segment[kept], first[kept], row_first, row_known)

    def blocks(self, level: int) -> tuple[Events, Rows, Ints]:
        """The blocks of 2**level segments as entities with their events, the rows that know one, and which."""
        rows = np.flatnonzero(self.row_known >> level & 1)
        asked = self.row_first[rows] + ((self.row_known[rows] >> level) - 1 << level)
        blocks = np.unique(asked)
        mine = self.event_first + (self.segment - self.event_first >> level << level)
        place = np.searchsorted(blocks, mine)
        found = np.append(blocks, -1)[place] == mine
        events = replace(_taken(self.events, found), keys=[""] * len(blocks), code=place[found])
        return events, rows, np.searchsorted(blocks, asked)


def _answer_late(
    layout: Layout, events: Events, row_code: Ints, row_us: Ints, names: Sequence[str] | None
) -> list[FeatureColumn]:
    """The answers to rows that must leave out events within their reach."""
    concerned = np.zeros(len(events.keys) + 1, np.bool_)
    concerned[row_code] = True
    stretches = _Stretches.of(_taken(events, concerned[events.code]), row_code, row_us)
    parts: dict[Window, list[tuple[Rows, Merged]]] = defaultdict(list)
    for level in range(int(stretches.row_known.max()).bit_length()):
        blocks, rows, code = stretches.blocks(level)
        for window, mine, merged in merge_ranges(layout, blocks, code, row_us[rows], names):
            parts[window].append((rows[mine], merged))
    columns = {}
    for window, outputs in by_window(layout, names).items():
        rows, merged = _together(layout, outputs, parts[window])
        for output in outputs:
            columns[output.name] = finish(layout, output, merged, rows, row_us)
    return [columns[name] for name in names or [output.name for output in layout.outputs]]


def _together(layout: Layout, outputs: tuple[Output, ...], parts: list[tuple[Rows, Merged]]) -> tuple[Rows, Merged]:
    """One merged window per row from what its blocks merged to."""
    nothing = np.empty(0, np.int64)
    if not parts:
        return nothing, Merged({}, nothing, nothing, nothing)
    rows = np.concatenate([mine for mine, _ in parts])
    order = np.argsort(rows, kind="stable")
    starts = group_starts(rows[order])
    fields = {name: np.concatenate([merged.fields[name] for _, merged in parts])[order] for name in parts[0][1].fields}
    fields["events"] = np.concatenate([merged.events for _, merged in parts])[order]
    fields["newest"] = np.concatenate([merged.newest for _, merged in parts])[order]
    instant = np.concatenate([merged.instant for _, merged in parts])[order][starts]
    partials = partials_needed(layout, outputs)
    whole = reduce(layout, fields, starts, partials)
    cells = {name: Ragged.joined([merged.cells[name] for _, merged in parts]).take(order) for name in parts[0][1].cells}
    cells = reduce_cells(layout, cells, starts, partials)
    return rows[order][starts], Merged(whole, whole["events"], whole["newest"], instant, cells)


def _positions(code: Ints, us: Ints, row_code: Ints, row_us: Ints) -> Ints:
    """Behind which of the instants, sorted by entity, each row comes: a binary search for all rows at once."""
    low, high = np.searchsorted(code, row_code), np.searchsorted(code, row_code, "right")
    while (low < high).any():
        middle = (low + high) >> 1
        before = (low < high) & (np.append(us, LATEST)[middle] <= row_us)
        low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
    return low


def _taken(events: Events, kept: npt.NDArray[np.bool_]) -> Events:
    return events if kept.all() else _ordered(events, np.flatnonzero(kept))


def _ordered(events: Events, rows: Rows) -> Events:
    """Some events, in the order given, with all `keys`."""
    columns = {name: column.take(rows) for name, column in events.columns.items()}
    return Events(events.keys, events.code[rows], events.ts[rows], events.ids[rows], events.offset[rows], columns)
