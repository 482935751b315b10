"""Tiles and an instant become values: the read path's half of the law.

`answer` selects, for each window, the tiles of its ring (and the pending partials) from its old edge on, merges them
per entity and finishes them. Tiles may come in any order and in pieces. The tiles given must hold only events before
the instant; whoever calls sees to that. `finish` is also the last step of training (`forebay.core.ranges`): defaults,
TTL and errors are decided in one place.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Fields, Partial
from forebay.core.events import is_unused, unused
from forebay.core.layout import PENDING, Layout, Output
from forebay.core.records import gathered
from forebay.core.tiles import Tiles, group_starts, reduce, reduce_cells, taken
from forebay.core.values import FeatureColumn, Status
from forebay.errors import UnknownNameError
from forebay.language.aggregations import Finished, Merged
from forebay.language.windows import Window

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]
EDGE_MIN = -(2**63)
PRESENT, MISSING = np.uint8(Status.PRESENT), np.uint8(Status.DEFAULT_MISSING)
EXPIRED, ERROR = np.uint8(Status.DEFAULT_EXPIRED), np.uint8(Status.DEFAULT_ERROR)


def answer(layout: Layout, tiles: Tiles, instants_us: Ints, names: Sequence[str] | None = None) -> list[FeatureColumn]:
    """The features of entities 0 … n−1 at their instants (int64[n], UTC µs), in the order of `names` or the view's."""
    columns: dict[str, FeatureColumn] = {}
    if (np.diff(tiles.code) < 0).any():
        tiles = tiles.take(np.argsort(tiles.code, kind="stable"))
    rings, starts = (np.ascontiguousarray(tiles.records[name]) for name in ("ring", "start"))
    pending = rings == PENDING
    for window, outputs in by_window(layout, names).items():
        edge = edges_us(window, instants_us)
        rows = np.flatnonzero(((rings == outputs[0].ring) | pending) & (starts >= edge[tiles.code]))
        merged, entities = _merge_window(layout, tiles, rows, outputs, instants_us)
        for output in outputs:
            columns[output.name] = finish(layout, output, merged, entities, instants_us)
    return [columns[name] for name in names or [output.name for output in layout.outputs]]


def by_window(layout: Layout, names: Sequence[str] | None) -> Mapping[Window, tuple[Output, ...]]:
    """The outputs asked for, grouped by window. Raises `UnknownNameError`."""
    return _by_window(layout, None if names is None else tuple(names))


@functools.lru_cache(maxsize=1024)
def _by_window(layout: Layout, names: tuple[str, ...] | None) -> Mapping[Window, tuple[Output, ...]]:
    known = {output.name: output for output in layout.outputs}
    groups: dict[Window, tuple[Output, ...]] = {}
    for name in known if names is None else dict.fromkeys(names):
        if name not in known:
            raise UnknownNameError.of(f"feature of view {layout.view.key!r} named", name, known)
        groups[known[name].window] = (*groups.get(known[name].window, ()), known[name])
    return groups


@functools.lru_cache(maxsize=4096)
def partials_needed(layout: Layout, outputs: tuple[Output, ...]) -> tuple[Partial, ...]:
    """The partials that some outputs are finished from, in the record's order."""
    needed = {partial for output in outputs for partial in output.aggregation.partials(output.column)}
    return tuple(partial for partial in layout.partials if partial in needed)


def partials_of(layout: Layout, names: Sequence[str]) -> tuple[Partial, ...]:
    """The partials that some features are finished from. Raises `UnknownNameError`."""
    outputs = [output for outputs in by_window(layout, names).values() for output in outputs]
    return partials_needed(layout, tuple(outputs))


def edges_us(window: Window, instants_us: Ints) -> Ints:
    """The old edges of a window at many instants."""
    if window.length_us is None:
        return np.full(len(instants_us), EDGE_MIN, np.int64)
    edges = instants_us - window.length_us
    return edges - edges % window.hop_us


def finish(
    layout: Layout, output: Output, merged: Merged, rows: Rows, instants_us: Ints, *, bare: bool = False
) -> FeatureColumn:
    """The column of one output at all instants: `merged` are the windows that have an event, `rows` says whose."""
    count = len(instants_us)
    if not len(rows):
        return FeatureColumn.of_defaults(output.feature, count, bare=bare)
    decided = decide(layout, output, merged)
    if len(rows) == count and (decided.whole or decided.good.all()):
        status = unused("<u1", count) if bare else np.zeros(count, np.uint8)  # PRESENT
        event_us = unused("<i8", count) if bare else merged.newest.copy()
        return FeatureColumn(output.feature, decided.values, decided.good, status, event_us)
    column = FeatureColumn.of_defaults(output.feature, count, bare=bare)
    decided.put(column, rows)
    return column


def decide(layout: Layout, output: Output, merged: Merged) -> Decided:
    """What windows that have an event come to; whichever of its windows the output is of."""
    finished, ttl_us = output.aggregation.finish(merged, output.column), layout.view.ttl_us
    if finished.whole and ttl_us is None:
        count = len(finished.present)
        return Decided(finished, np.ones(count, np.bool_), unused("?", count), merged.newest)
    good = finished.present & ~finished.failed
    if ttl_us is None:
        return Decided(finished, good, unused("?", len(good)), merged.newest)
    expired = merged.instant - merged.newest > ttl_us
    return Decided(finished, good & ~expired, expired, merged.newest)


@dataclass(frozen=True)
class Decided:
    """What windows come to by the rules of their view: values where they are `good`, defaults elsewhere."""

    finished: Finished
    good: Mask
    expired: Mask
    newest: Ints

    @property
    def whole(self) -> bool:
        """Whether all are known to be good."""
        return self.finished.whole and is_unused(self.expired)

    @property
    def values(self) -> npt.NDArray[Any]:
        """A value for each, which means nothing where it isn't good."""
        return self.finished.values

    def part(self, some: slice) -> Decided:
        """Some windows."""
        of = self.finished
        finished = Finished(of.values[some], of.present[some], of.failed[some])
        return Decided(finished, self.good[some], self.expired[some], self.newest[some])

    def status(self) -> npt.NDArray[np.uint8]:
        """What each value is."""
        status = np.where(self.finished.failed, ERROR, PRESENT)
        status[self.expired] = EXPIRED
        status[~self.finished.present] = MISSING
        return status

    def put(self, column: FeatureColumn, rows: npt.NDArray[Any]) -> None:
        """Write them into some rows of a column of defaults."""
        if not is_unused(column.status):
            present = self.finished.present
            column.status[rows] = self.status()
            column.event_us[rows[present]] = self.newest[present]
        whole = bool(self.good.all())
        places = rows if whole else rows[self.good]
        column.values[places] = self.values if whole else self.values[self.good]
        if not is_unused(column.valid):
            column.valid[places] = True


def _merge_window(
    layout: Layout, tiles: Tiles, rows: Rows, outputs: tuple[Output, ...], instants_us: Ints
) -> tuple[Merged, Rows]:
    partials = partials_needed(layout, outputs)
    if not len(rows):
        return Merged({}, tiles.code[rows], tiles.code[rows], tiles.code[rows]), rows
    code = tiles.code[rows]
    names = ["events", "newest", *(name for partial in partials for name in layout.fields[partial])]
    records = gathered(tiles.records, rows)
    fields: Fields = {name: np.ascontiguousarray(records[name]) for name in names}
    starts = group_starts(code)
    merged = reduce(layout, fields, starts, partials)
    named = {partial.name: tiles.cells[partial.name] for partial in partials if partial.is_ragged}
    cells = reduce_cells(layout, taken(named, rows), starts, partials)
    entities = code[starts]
    return Merged(merged, merged["events"], merged["newest"], instants_us[entities], cells), entities
