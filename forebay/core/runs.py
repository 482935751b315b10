"""A chunk of the training kernel: the events and spine rows of some entities, and what ranges of them merge to.

The middle of `forebay.core.sweep`: it knows partials, and hands plain arrays to the loops of `forebay.core.kernel`.
Event ids are looked at only where two events of an entity have one instant and a feature asks for the first or the
last. Windows of which the same is asked are merged and finished as one: few long steps of NumPy, for which threads wait
for one another less than for many short ones (ADR 0200).

Invariants: what a partial merges to is what `forebay.core.ranges` says; only the fields that `finish` reads are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra import int128
from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import FADING, Fields, Partial
from forebay.algebra.ragged import Ragged
from forebay.core import kernel
from forebay.core.answer import decide, partials_needed
from forebay.core.cell_ranges import CellRanges, blocks, cell_ranges
from forebay.core.cell_sweep import SweptRanges
from forebay.core.chunked import ALL, Chunk
from forebay.core.events import taken, unused
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
    """Windows with an event: where they are among all, window by window, whose rows, and their events `[low, high)`."""

    at: Ints
    rows: Ints
    low: Ints
    high: Ints

    def part(self, some: slice) -> Ranges:
        """Some of them."""
        return Ranges(self.at[some], self.rows[some], self.low[some], self.high[some])


Merge = Callable[[Ranges], Array]


@dataclass(frozen=True)
class Span:
    """Windows next to one another, from number `first` on, of which the same aggregations are asked.

    `outputs` are one for each window, aggregation by aggregation.
    """

    first: int
    outputs: tuple[tuple[Output, ...], ...]

    @classmethod
    def all_of(cls, layout: Layout, groups: Mapping[Window, tuple[Output, ...]]) -> list[Span]:
        """What is asked of some windows; what has cells window by window, since cells are many.

        Aggregations may share a name, and one may be asked over windows that are equal ("24h", "1d").
        """
        asked: dict[tuple[int, int], dict[int, Output]] = {}
        for w, outputs in enumerate(groups.values()):
            times = Counter[int]()
            for output in outputs:
                which = id(output.aggregation)
                asked.setdefault((which, times[which]), {})[w] = output
                times[which] += 1
        found: dict[tuple[int, ...], list[tuple[Output, ...]]] = {}
        for windows in asked.values():
            some = list(windows)
            alone = any(partial.is_ragged for partial in partials_needed(layout, (windows[some[0]],)))
            edges = [i for i in range(1, len(some)) if alone or some[i] != some[i - 1] + 1]
            for first, last in pairwise([0, *edges, len(some)]):
                outputs = tuple(windows[w] for w in some[first:last])
                found.setdefault((some[first], last - first, alone), []).append(outputs)
        return [cls(first, tuple(outputs)) for (first, _, _), outputs in found.items()]

    @property
    def windows(self) -> int:
        """How many there are."""
        return len(self.outputs[0])

    def partials(self, layout: Layout) -> tuple[Partial, ...]:
        """What is merged for them."""
        return partials_needed(layout, tuple(outputs[0] for outputs in self.outputs))


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
    ) -> None:
        self.layout, self.events = layout, events
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

    def answer(self, spans: Sequence[Span], columns: Mapping[str, FeatureColumn], places: Array) -> None:
        """Write what is asked into columns of defaults; `places` are the rows there of the spine rows here."""
        needed = [span.partials(self.layout) for span in spans]
        if self.tied and any(partial.is_ordered for partials in needed for partial in partials):
            self._order_by_id()
        for span, partials in zip(spans, needed, strict=True):
            ranges, bounds = self._covered(span)
            mine = places[ranges.rows]
            if any(partial.is_ragged for partial in partials):
                self._answer_in_blocks(span, ranges, columns, mine)
                continue
            merged = self._merged(partials, ranges)
            for outputs in span.outputs:
                decided = decide(self.layout, outputs[0], merged)
                for output, some in zip(outputs, bounds, strict=True):
                    decided.part(some).put(columns[output.name], mine[some])

    def _covered(self, span: Span) -> tuple[Ranges, list[slice]]:
        """The ranges of its windows that have an event, and which of them are of each window."""
        room = span.windows * len(self.high)
        at, rows, low, high = (np.empty(room, np.int64) for _ in range(4))
        bounds = np.zeros(span.windows + 1, np.int64)
        kernel.covered(self.low, self.high, span.first, bounds, at, rows, low, high)
        ranges = Ranges(at, rows, low, high).part(slice(int(bounds[-1])))
        return ranges, [slice(first, last) for first, last in pairwise(bounds.tolist())]

    def _merged(self, partials: Sequence[Partial], ranges: Ranges) -> Merged:
        fields: Fields = {}
        cells: dict[str, Ragged] = {}
        newest = _picked(self.ts, ranges.high - 1)
        for partial in partials:
            if partial.is_ragged:
                cells[partial.name] = self._cell_ranges(partial).merge(ranges.low, ranges.high)
                continue
            fields[_read(partial, self.layout)] = self._merge(partial)(ranges)
            if partial.kind in FADING:
                fields[partial.name + "__ts"] = newest
        return Merged(fields, ranges.high - ranges.low, newest, self.instants[ranges.rows], cells)

    def _answer_in_blocks(
        self, span: Span, ranges: Ranges, columns: Mapping[str, FeatureColumn], places: Array
    ) -> None:
        """Features of partials with cells over one window, each some rows at a time."""
        for (output,) in span.outputs:
            partials = partials_needed(self.layout, (output,))
            ragged = [self._cell_ranges(partial) for partial in partials if partial.is_ragged]
            for some in blocks(ragged, ranges.low, ranges.high):
                merged = self._merged(partials, ranges.part(some))
                decide(self.layout, output, merged).put(columns[output.name], places[some])

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
            return lambda ranges: _differences(kernel.differences, (single,), ranges)
        sums = int128.zeros(len(values) + 1)
        (kernel.running_squares if squared else kernel.running_sums)(values, sums["lo"], sums["hi"])
        return lambda ranges: _differences(kernel.wide_differences, (sums["lo"], sums["hi"]), ranges)

    def _floats(self, column: str) -> Merge:
        values, _ = self._gathered(column)
        sums = np.zeros(self.low.shape)
        kernel.float_sums(values, self.starts, self.row_starts, self.low, self.high, sums)
        return lambda ranges: sums.reshape(-1)[ranges.at]

    def _fading(self, partial: Partial) -> Merge:
        """Sums as of the newest event of each range."""
        if partial.kind == "fading_total":
            values = self._gathered(partial.column)[0].astype(np.float64)
        else:
            valid = self._valid(partial.column, self.order) if partial.column else ALL
            values = valid.astype(np.float64) if len(valid) else np.ones(len(self.order))
        sums, half_life_us = np.zeros(self.low.shape), float(partial.parameters[0])
        kernel.fading_sums(values, self.ts, half_life_us, self.starts, self.row_starts, self.low, self.high, sums)
        return lambda ranges: sums.reshape(-1)[ranges.at]

    def _moments(self, column: str) -> Merge:
        values, valid = self._gathered(column)
        deviations = np.zeros(self.low.shape)
        kernel.float_moments(values, valid, self.starts, self.row_starts, self.low, self.high, deviations)
        return lambda ranges: deviations.reshape(-1)[ranges.at]

    def _extreme(self, column: str, *, largest: bool) -> Merge:
        values, valid = self._gathered(column)
        best = np.zeros(self.low.shape, values.dtype)
        kernel.extremes(values, valid, self.starts, self.row_starts, self.low, self.high, largest, best)
        return lambda ranges: best.reshape(-1)[ranges.at]

    def _nearest(self, column: str, *, latest: bool) -> Merge:
        """First and last: the nearest present row inward from an edge."""
        values, order = self.events.columns[column].values, self._order_of(column)
        valid = self._valid(column, order)
        if not len(valid) and order is self.order and values.dtype.kind != "S":
            ordered, _ = self._gathered(column)
            return lambda ranges: _picked(ordered, ranges.high - 1 if latest else ranges.low)
        if not len(valid):
            return lambda ranges: taken(values, order[ranges.high - 1 if latest else ranges.low])
        rows = np.arange(len(valid))
        if latest:
            near = np.maximum.accumulate(np.where(valid, rows, -1))
        else:
            near = np.minimum.accumulate(np.where(valid, rows, len(rows))[::-1])[::-1]

        def merge(ranges: Ranges) -> Array:
            found = near[ranges.high - 1 if latest else ranges.low]
            return taken(values, order[np.clip(found, ranges.low, ranges.high - 1)])

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


def _picked(values: Array, places: Ints) -> Array:
    """`values[places]`."""
    out = np.empty(len(places), values.dtype)
    kernel.gather(values, places, out)
    return out


def _differences(kernel_of: Callable[..., None], sums: tuple[Array, ...], ranges: Ranges) -> Array:
    """What ranges add up to, in 128 bits, by running sums."""
    out = int128.zeros(len(ranges.low))
    kernel_of(*sums, ranges.low, ranges.high, out["lo"], out["hi"])
    return out
