"""A chunk of the training kernel: the events and spine rows of some entities, and what ranges of them merge to.

The middle of `forebay.core.sweep`: it knows partials, and hands plain arrays to the loops of `forebay.core.kernel`.
Event ids are looked at only where two events of an entity have one instant and a feature asks for the first or the
last.

Invariants: what a partial merges to is what `forebay.core.ranges` says; only the fields that `finish` reads are made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra import int128
from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import FADING, Fields, Partial
from forebay.algebra.ragged import Ragged
from forebay.core import kernel
from forebay.core.answer import finish, partials_needed
from forebay.core.cell_ranges import CellRanges, blocks, cell_ranges
from forebay.core.cell_sweep import SweptRanges
from forebay.core.chunked import ALL, Chunk
from forebay.core.events import unused
from forebay.core.layout import Layout, Output
from forebay.core.values import FeatureColumn
from forebay.language.aggregations import Merged
from forebay.language.windows import Window

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
LIFETIME = -1


@dataclass(frozen=True)
class Grouped:
    """Rows by entity: those of entity e are `order[starts[e]:starts[e + 1]]`, of which the order may be changed."""

    starts: Ints
    order: Rows


@dataclass(frozen=True)
class Ranges:
    """The windows with an event: number `w` of the windows asked, the rows it is of, and their events `[low, high)`."""

    w: int
    rows: npt.NDArray[np.intp]
    low: Ints
    high: Ints

    def part(self, some: slice) -> Ranges:
        """Some of them."""
        return Ranges(self.w, self.rows[some], self.low[some], self.high[some])


Merge = Callable[[Ranges], Array]


class Runs:
    """The events and spine rows of some entities, in order, with what has been made of each column."""

    def __init__(
        self,
        layout: Layout,
        events: Chunk,
        mine: Grouped,
        rows: Grouped,
        row_us: Ints,
        windows: Sequence[Window],
        *,
        bare: bool = False,
    ) -> None:
        self.layout, self.events, self.windows, self.bare = layout, events, windows, bare
        self.order, self.starts, self.row_starts = mine.order, mine.starts, rows.starts
        self.ts, self.instants = np.empty(len(mine.order), np.int64), np.empty(len(rows.order), np.int64)
        self.tied = kernel.arrange(mine.order, events.ts, mine.starts, self.ts) > 0
        self.repeated: Mask | None = None
        kernel.arrange(rows.order, row_us, rows.starts, self.instants)
        self.low = np.empty((len(windows), len(rows.order)), np.int64)
        self.high = np.empty(len(rows.order), np.int64)
        lengths = np.array([LIFETIME if one.length_us is None else one.length_us for one in windows], np.int64)
        hops = np.array([one.hop_us for one in windows], np.int64)
        kernel.edges(self.ts, self.starts, self.instants, self.row_starts, lengths, hops, self.low, self.high)
        self._columns: dict[str, tuple[Array, Mask]] = {}
        self._merges: dict[Partial, Merge] = {}
        self._celled: dict[Partial, CellRanges] = {}

    def answer(self, groups: Mapping[Window, tuple[Output, ...]]) -> Iterator[FeatureColumn]:
        """The features asked for, in the order of the spine rows here."""
        needed = {window: partials_needed(self.layout, groups[window]) for window in self.windows}
        if self.tied and any(partial.is_ordered for partials in needed.values() for partial in partials):
            self._order_by_id()
        for w, window in enumerate(self.windows):
            rows = np.flatnonzero(self.high > self.low[w])
            ranges = Ranges(w, rows, self.low[w][rows], self.high[rows])
            merged = self._merged([partial for partial in needed[window] if not partial.is_ragged], ranges)
            for output in groups[window]:
                partials = partials_needed(self.layout, (output,))
                if any(partial.is_ragged for partial in partials):
                    yield self._in_blocks(output, partials, ranges)
                else:
                    yield finish(self.layout, output, merged, rows, self.instants, bare=self.bare)

    def _merged(self, partials: Sequence[Partial], ranges: Ranges) -> Merged:
        fields: Fields = {}
        cells: dict[str, Ragged] = {}
        newest = self.ts[ranges.high - 1]
        for partial in partials:
            if partial.is_ragged:
                cells[partial.name] = self._cell_ranges(partial).merge(ranges.low, ranges.high)
                continue
            fields[_read(partial, self.layout)] = self._merge(partial)(ranges)
            if partial.kind in FADING:
                fields[partial.name + "__ts"] = newest
        return Merged(fields, ranges.high - ranges.low, newest, self.instants[ranges.rows], cells)

    def _in_blocks(self, output: Output, partials: Sequence[Partial], ranges: Ranges) -> FeatureColumn:
        """A feature of partials with cells, some rows at a time."""
        column = FeatureColumn.of_defaults(output.feature, len(self.instants), bare=self.bare)
        ragged = [self._cell_ranges(partial) for partial in partials if partial.is_ragged]
        for some in blocks(ragged, ranges.low, ranges.high):
            part = ranges.part(some)
            merged, every = self._merged(partials, part), np.arange(len(part.rows))
            column.put(part.rows, finish(self.layout, output, merged, every, self.instants[part.rows]))
        return column

    def _cell_ranges(self, partial: Partial) -> CellRanges:
        if partial not in self._celled:
            column = self.events.columns[partial.column]
            order = self._order_of(partial.column) if partial.is_ordered else self.order
            valid = self._valid(partial.column, order)
            ids = self.events.ids(order) if partial.is_ordered else unused("S1", len(order))
            there = valid if len(valid) else np.ones(len(order), np.bool_)
            lifted = Lifted(column.values[order], there, self.ts, ids)
            if partial.is_ordered:
                self._celled[partial] = cell_ranges(partial, lifted, int(np.diff(self.starts).max()))
            else:
                self._celled[partial] = SweptRanges(partial, lifted, self.starts)
        return self._celled[partial]

    def _order_by_id(self) -> None:
        """Bring the events of one entity and instant in order of their ids, and note which repeat (ts, id)."""
        fresh = np.ones(len(self.ts), np.bool_)
        fresh[1:] = self.ts[1:] != self.ts[:-1]
        fresh[self.starts[:-1][np.diff(self.starts) > 0]] = True
        tied = np.flatnonzero(~(fresh & np.append(fresh[1:], True)))
        if not len(tied):
            return
        run = np.cumsum(fresh)[tied]
        ids = self.events.ids(self.order[tied])
        found = np.lexsort((ids, run))
        self.order[tied], ids = self.order[tied][found], ids[found]
        same = np.append(False, (run[1:] == run[:-1]) & (ids[1:] == ids[:-1]))
        if same.any():
            self.repeated = np.zeros(len(self.ts), np.bool_)
            self.repeated[tied] = same

    def _merge(self, partial: Partial) -> Merge:
        if partial not in self._merges:
            kind = partial.kind
            if kind in FADING:
                made = self._fading(partial)
            elif kind == "present":
                made = self._present(partial.column)
            elif kind in ("earliest", "latest"):
                made = self._nearest(partial.column, latest=kind == "latest")
            elif kind in ("lowest", "highest"):
                made = self._extreme(partial.column, largest=kind == "highest")
            elif kind == "moments":
                made = self._moments(partial.column)
            elif self.events.columns[partial.column].values.dtype.kind != "f":
                made = self._integers(partial.column, squared=kind == "squares")
            else:
                made = self._floats(partial.column)
            self._merges[partial] = made
        return self._merges[partial]

    def _present(self, column: str) -> Merge:
        valid = self._valid(column, self.order)
        if not len(valid):
            return lambda ranges: ranges.high - ranges.low
        counts = np.concatenate(([0], np.cumsum(valid)))
        return lambda ranges: counts[ranges.high] - counts[ranges.low]

    def _integers(self, column: str, *, squared: bool) -> Merge:
        """Differences of running sums: of one word where no range's sum can leave it, else of two."""
        values, _ = self._gathered(column)
        largest = max(int(values.max()), -int(values.min()))
        longest = int(np.diff(self.starts).max())
        if (largest**2 if squared else largest) * longest < 2**63:
            single = np.zeros(len(values) + 1, np.int64)
            np.cumsum(values * values if squared else values, out=single[1:])
            return lambda ranges: int128.widen(single[ranges.high] - single[ranges.low])
        sums = int128.zeros(len(values) + 1)
        (kernel.running_squares if squared else kernel.running_sums)(values, sums["lo"], sums["hi"])
        return lambda ranges: int128.subtract(sums[ranges.high], sums[ranges.low])

    def _floats(self, column: str) -> Merge:
        values, _ = self._gathered(column)
        sums = np.zeros(self.low.shape)
        kernel.float_sums(values, self.starts, self.row_starts, self.low, self.high, sums)
        return lambda ranges: sums[ranges.w][ranges.rows]

    def _fading(self, partial: Partial) -> Merge:
        """Sums as of the newest event of each range."""
        if partial.kind == "fading_total":
            values = self._gathered(partial.column)[0].astype(np.float64)
        else:
            valid = self._valid(partial.column, self.order) if partial.column else ALL
            values = valid.astype(np.float64) if len(valid) else np.ones(len(self.order))
        sums, half_life_us = np.zeros(self.low.shape), float(partial.parameters[0])
        kernel.fading_sums(values, self.ts, half_life_us, self.starts, self.row_starts, self.low, self.high, sums)
        return lambda ranges: sums[ranges.w][ranges.rows]

    def _moments(self, column: str) -> Merge:
        values, valid = self._gathered(column)
        deviations = np.zeros(self.low.shape)
        kernel.float_moments(values, valid, self.starts, self.row_starts, self.low, self.high, deviations)
        return lambda ranges: deviations[ranges.w][ranges.rows]

    def _extreme(self, column: str, *, largest: bool) -> Merge:
        values, valid = self._gathered(column)
        best = np.zeros(self.low.shape, values.dtype)
        kernel.extremes(values, valid, self.starts, self.row_starts, self.low, self.high, largest, best)
        return lambda ranges: best[ranges.w][ranges.rows]

    def _nearest(self, column: str, *, latest: bool) -> Merge:
        """First and last: the nearest present row inward from an edge."""
        values, order = self.events.columns[column].values, self._order_of(column)
        valid = self._valid(column, order)
        if not len(valid):
            return lambda ranges: values[order[ranges.high - 1 if latest else ranges.low]]
        rows = np.arange(len(valid))
        if latest:
            near = np.maximum.accumulate(np.where(valid, rows, -1))
        else:
            near = np.minimum.accumulate(np.where(valid, rows, len(rows))[::-1])[::-1]

        def merge(ranges: Ranges) -> Array:
            found = near[ranges.high - 1 if latest else ranges.low]
            chosen: Array = values[order[np.clip(found, ranges.low, ranges.high - 1)]]
            return chosen

        return merge

    def _order_of(self, column: str) -> Rows:
        """The rows in order of (ts, id, value): of events with one identity the value decides."""
        if self.repeated is None:
            return self.order
        rows = np.flatnonzero(self.repeated | np.append(self.repeated[1:], False))
        order = self.order.copy()
        values = self.events.columns[column].values[order[rows]]
        order[rows] = order[rows][np.lexsort((values, np.cumsum(~self.repeated)[rows]))]
        return order

    def _gathered(self, column: str) -> tuple[Array, Mask]:
        """The values of a column in order, 0 where null, and its mask."""
        if column not in self._columns:
            source = self.events.columns[column].values
            values = np.empty(len(self.order), source.dtype)
            kernel.gather(source, self.order, values)
            valid = self._valid(column, self.order)
            if len(valid):
                values[~valid] = 0
            self._columns[column] = values, valid
        return self._columns[column]

    def _valid(self, column: str, order: Rows) -> Mask:
        source = self.events.columns[column].valid
        if not len(source):
            return ALL
        valid = np.empty(len(order), np.bool_)
        kernel.gather(source, order, valid)
        return valid


def _read(partial: Partial, layout: Layout) -> str:
    """The field of a partial that a value is finished from."""
    return partial.name + "__m2" if partial.kind == "moments" else partial.name
