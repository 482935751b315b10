"""Events and many instants become values: the training path's half of the law.

With the events of each entity sorted by (ts, id), a window at an instant is a range of rows `[low, high)`. What a range
merges to is found without walking it, by the same partials as everywhere:

    present, exact totals and squares   difference of running sums (exact integers)
    earliest, latest                    the next present row from `low`, the last one before `high`
    lowest, highest, float totals,      a binary tree of merged rows, of which a range is at most
    moments, fading sums                2·log2(n) nodes
    what has cells                      `forebay.core.cell_ranges`

and the result is finished by `forebay.core.answer.finish`. The law `answer_events == answer == oracle` holds the two
together. Large inputs have a compiled twin, `forebay.core.sweep` (ADR 0043); where numba is missing, `answer_ranges`
answers them too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from forebay.algebra import int128
from forebay.algebra.lifted import Lifted
from forebay.algebra.partials import Fields, Partial
from forebay.algebra.ragged import Ragged
from forebay.core.answer import by_window, edges_us, finish, partials_needed
from forebay.core.cell_ranges import CellRanges, blocks, cell_ranges
from forebay.core.compiled import can_compile
from forebay.core.events import Events
from forebay.core.layout import Layout, Output
from forebay.core.values import FeatureColumn
from forebay.language.aggregations import Merged
from forebay.language.windows import Window

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
KEY_MAX = 2**62
"""Entity and time are searched as one integer; entities are taken in chunks that keep it below this."""
CHUNK_EVENTS = 4_000_000
"""Events that one chunk of entities may hold, which bounds memory (a single larger entity is a chunk of its own)."""
SWEPT_EVENTS = 1_000_000
"""From so many events on they are swept: loading the compiled code takes about as long as answering fewer in NumPy."""


def answer_events(
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
    """The features of m rows at their instants, `bare` where only the values are wanted.

    `row_code` (int64[m]) is each row's entity, an index into `events.keys` (−1: it has no events); `row_us`
    (int64[m], UTC µs) its instant. Events may be in any order. Where they are a part (some entities) of `part_of`
    events, they are answered as all of these would be. `threads` is for many events; without it, as many as numba may
    use.
    """
    if is_swept(max(len(events), part_of)):
        from forebay.core.sweep import answer_sweep  # numba takes a second to load

        return answer_sweep(layout, events, row_code, row_us, names, threads, bare=bare)
    return answer_ranges(layout, events, row_code, row_us, names)


def is_swept(events: int) -> bool:
    """Whether so many events are swept."""
    return events >= SWEPT_EVENTS and can_compile()


def answer_ranges(
    layout: Layout, events: Events, row_code: Ints, row_us: Ints, names: Sequence[str] | None = None
) -> list[FeatureColumn]:
    """As `answer_events`, in NumPy."""
    groups = by_window(layout, names)
    features = {output.name: output.feature for outputs in groups.values() for output in outputs}
    columns = {name: FeatureColumn.of_defaults(feature, len(row_code)) for name, feature in features.items()}
    for window, rows, merged in merge_ranges(layout, events, row_code, row_us, names):
        for output in groups[window]:
            columns[output.name].put(rows, finish(layout, output, merged, np.arange(len(rows)), row_us[rows]))
    return [columns[name] for name in names or [output.name for output in layout.outputs]]


def merge_ranges(
    layout: Layout, events: Events, row_code: Ints, row_us: Ints, names: Sequence[str] | None = None
) -> Iterator[tuple[Window, Rows, Merged]]:
    """What is behind some features: windows, rows that have an event in the window, and what those events merge to.

    A window may come several times, each time with other rows.
    """
    order = np.lexsort((events.ids, events.ts, events.code))
    row_order = np.argsort(row_code, kind="stable")
    sorted_rows = row_code[row_order]
    for first, last in _chunks(events):
        low, high = np.searchsorted(events.code[order], (first, last))
        rows = row_order[np.searchsorted(sorted_rows, first) : np.searchsorted(sorted_rows, last)]
        if high > low and len(rows):
            chunk = _Sorted(layout, events, order[low:high], first)
            for window, mine, merged in chunk.merged(row_code[rows], row_us[rows], names):
                yield window, rows[mine], merged


def _chunks(events: Events) -> Iterator[tuple[int, int]]:
    """Half-open ranges of entity codes whose events fit a chunk."""
    if not len(events):
        return
    counts = np.bincount(events.code, minlength=len(events.keys))
    span = int(events.ts.max()) - int(events.ts.min()) + 2
    entities_max = max(1, KEY_MAX // span)
    ends = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = int(ends[first - 1]) if first else 0
        last = int(np.searchsorted(ends, before + CHUNK_EVENTS, "right"))
        last = min(max(last, first + 1), first + entities_max, len(counts))
        yield first, last
        first = last


class _Sorted:
    """The events of a chunk of entities, sorted by (entity, ts, id), and what has been prepared of them."""

    def __init__(self, layout: Layout, events: Events, order: Rows, first_code: int) -> None:
        self.layout = layout
        self.ts = events.ts[order]
        self.first_code = first_code
        self.origin = int(self.ts.min())
        self.span = int(self.ts.max()) - self.origin + 2
        self.keys = (events.code[order] - first_code) * self.span + (self.ts - self.origin)
        self.columns = events.lifted((*events.columns, ""), order)
        self.longest = int(np.bincount(events.code[order] - first_code).max())
        ids = events.ids[order]
        self.repeated = np.append(False, (self.keys[1:] == self.keys[:-1]) & (ids[1:] == ids[:-1]))
        self.prepared: dict[Partial, _Ranges] = {}
        self.celled: dict[Partial, CellRanges] = {}

    def merged(
        self, codes: Ints, instants_us: Ints, names: Sequence[str] | None
    ) -> Iterator[tuple[Window, Rows, Merged]]:
        high = self._search(codes, instants_us)
        for window, outputs in by_window(self.layout, names).items():
            low = self._search(codes, edges_us(window, instants_us))
            rows = np.flatnonzero(high > low)
            ragged = [one for one in partials_needed(self.layout, outputs) if one.is_ragged]
            for some in blocks([self._cell_ranges(one) for one in ragged], low[rows], high[rows]):
                mine = rows[some]
                yield window, mine, self._merged(outputs, low[mine], high[mine], instants_us[mine])

    def _search(self, codes: Ints, instants_us: Ints) -> Rows:
        """The first row of each entity that is not before its instant."""
        within = np.clip(instants_us, self.origin, self.origin + self.span - 1) - self.origin
        return np.searchsorted(self.keys, (codes - self.first_code) * self.span + within)

    def _merged(self, outputs: tuple[Output, ...], low: Rows, high: Rows, instants_us: Ints) -> Merged:
        fields: Fields = {}
        cells: dict[str, Ragged] = {}
        for partial in partials_needed(self.layout, outputs):
            if partial.is_ragged:
                cells[partial.name] = self._cell_ranges(partial).merge(low, high)
            else:
                fields |= self._ranges(partial).merge(low, high)
        return Merged(fields, (high - low).astype(np.int64), self.ts[high - 1], instants_us, cells)

    def _cell_ranges(self, partial: Partial) -> CellRanges:
        if partial not in self.celled:
            column = self.columns[partial.column]
            if partial.is_ordered and self.repeated.any():
                column = by_value(column, self.repeated)
            self.celled[partial] = cell_ranges(partial, column, self.longest)
        return self.celled[partial]

    def _ranges(self, partial: Partial) -> _Ranges:
        if partial not in self.prepared:
            column = self.columns[partial.column]
            exact = column.values.dtype.kind != "f"
            if partial.kind in ("present", "squares") or (partial.kind == "total" and exact):
                self.prepared[partial] = _RunningSums(partial, column)
            elif partial.kind in ("earliest", "latest"):
                self.prepared[partial] = _Neighbours(partial, column, self.repeated)
            else:
                self.prepared[partial] = _Tree(partial, column)
        return self.prepared[partial]


class _Ranges:
    """Merges one partial over ranges of rows."""

    def merge(self, low: Rows, high: Rows) -> Fields:
        raise NotImplementedError


class _RunningSums(_Ranges):
    """Sums of integers: a range is the difference of two running sums."""

    def __init__(self, partial: Partial, column: Lifted) -> None:
        self.name = partial.name
        lifted = partial.lift(column)[partial.name]
        self.wide = lifted.dtype == int128.INT128
        self.sums = int128.running_sums(lifted) if self.wide else np.concatenate(([0], np.cumsum(lifted)))

    def merge(self, low: Rows, high: Rows) -> Fields:
        after, before = self.sums[high], self.sums[low]
        return {self.name: int128.subtract(after, before) if self.wide else after - before}


class _Neighbours(_Ranges):
    """First and last: the nearest present row inward from an edge; the lifted rows are already in order."""

    def __init__(self, partial: Partial, column: Lifted, repeated: npt.NDArray[np.bool_]) -> None:
        self.partial = partial
        if repeated.any():
            column = by_value(column, repeated)
        self.fields = partial.lift(column)
        rows = np.arange(len(column.valid))
        if partial.kind == "latest":
            self.nearest = np.maximum.accumulate(np.where(column.valid, rows, -1))
        else:
            self.nearest = np.minimum.accumulate(np.where(column.valid, rows, len(rows))[::-1])[::-1]

    def merge(self, low: Rows, high: Rows) -> Fields:
        found = self.nearest[high - 1] if self.partial.kind == "latest" else self.nearest[low]
        chosen = np.clip(found, low, high - 1)
        return {name: array[chosen] for name, array in self.fields.items()}


class _Tree(_Ranges):
    """A binary tree: node i of a level merges nodes 2i and 2i + 1 of the level below.

    Source: the bottom-up range query of an iterative segment tree, for all ranges at once.
    """

    def __init__(self, partial: Partial, column: Lifted) -> None:
        self.partial = partial
        self.count = partial.present
        level = partial.lift(column) | {self.count: column.valid.astype(np.int64)}
        self.levels = [level]
        while len(level[self.count]) > 1:
            level = self._merge_pairs(level)
            self.levels.append(level)

    def _merge_pairs(self, level: Fields) -> Fields:
        counts = level[self.count]
        starts = np.arange(0, len(counts), 2)
        mine = {name: array for name, array in level.items() if name != self.count}
        return self.partial.merge(mine, counts, starts) | {self.count: np.add.reduceat(counts, starts)}

    def merge(self, low: Rows, high: Rows) -> Fields:
        result = {name: array[:1].repeat(len(low)) for name, array in self.levels[0].items()}
        started = np.zeros(len(low), np.bool_)
        low, high = low.copy(), high.copy()
        for level in self.levels:
            open_ranges = low < high
            for rows, nodes in (
                (open_ranges & (low & 1 == 1), low),
                (open_ranges & (high & 1 == 1), high - 1),
            ):
                self._absorb(result, started, np.flatnonzero(rows), level, nodes)
            low, high = (low + 1) >> 1, high >> 1
            if not (low < high).any():
                break
        result.pop(self.count)
        return result

    def _absorb(self, result: Fields, started: npt.NDArray[np.bool_], rows: Rows, level: Fields, nodes: Rows) -> None:
        """Merge one node of a level into the result of each of the rows."""
        fresh, more = rows[~started[rows]], rows[started[rows]]
        for name, array in level.items():
            result[name][fresh] = array[nodes[fresh]]
        started[fresh] = True
        if len(more):
            both = {name: _interleave(result[name][more], array[nodes[more]]) for name, array in level.items()}
            for name, array in self._merge_pairs(both).items():
                result[name][more] = array


def by_value(column: Lifted, repeated: npt.NDArray[np.bool_]) -> Lifted:
    """The column with the rows of one (ts, id) in order of their values."""
    order = np.lexsort((column.values, np.cumsum(~repeated)))
    return Lifted(column.values[order], column.valid[order], column.ts[order], column.ids[order])


def _interleave(left: npt.NDArray[np.generic], right: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    out = np.empty(2 * len(left), left.dtype)
    out[::2], out[1::2] = left, right
    return out
