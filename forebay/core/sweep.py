"""The training kernel: many events and many instants become values, in chunks of entities on several threads.

The faster twin of `forebay.core.ranges` (ADR 0043) for large inputs; it needs numba (the extra `fast`). Events and
spine rows are brought together by a counting sort on the entity. Then each chunk of entities, small enough for a
processor's cache, is a job of its own: its events are gathered in order of (ts, id), the loops of `forebay.core.kernel`
find and merge the ranges of all windows, and `forebay.core.answer.finish` ends it as everywhere.

Invariants: the values are those of `ranges.answer_ranges`, to the bit where numbers are exact (float sums within the
law); neither the number of threads nor the size of chunks changes a bit of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt

from forebay.core import kernel
from forebay.core.answer import by_window
from forebay.core.events import Column, Events
from forebay.core.layout import Layout
from forebay.core.runs import ALL, Grouped, Runs
from forebay.core.values import FeatureColumn

Ints = npt.NDArray[np.int64]
CHUNK_ROWS = 2**18
"""Events and spine rows of one chunk: a column of it is 2 MB. An entity that has more is a chunk of its own."""


def answer_sweep(
    layout: Layout,
    events: Events,
    row_code: Ints,
    row_us: Ints,
    names: Sequence[str] | None = None,
    threads: int | None = None,
    *,
    bare: bool = False,
) -> list[FeatureColumn]:
    """As `ranges.answer_events`, on so many threads (or as many as numba may use)."""
    wanted = list(names) if names is not None else [output.name for output in layout.outputs]
    groups = by_window(layout, wanted)
    features = {output.name: output.feature for outputs in groups.values() for output in outputs}
    events = replace(events, columns={name: _without_mask(column) for name, column in events.columns.items()})
    threads = threads or int(vars(numba.config)["NUMBA_NUM_THREADS"])
    with ThreadPoolExecutor(threads) as pool:
        defaults = pool.map(
            lambda feature: FeatureColumn.of_defaults(feature, len(row_code), bare=bare), features.values()
        )
        columns = dict(zip(features, defaults, strict=True))
        everybody = np.ones(len(events.keys), np.bool_)
        rows = grouped(row_code, everybody, threads, pool)
        mine = grouped(events.code, np.diff(rows.starts) > 0, threads, pool)

        def answer(first: int, last: int) -> None:
            asking = rows.part(first, last)
            runs = Runs(layout, events, mine.part(first, last), asking, row_us, list(groups), bare=bare)
            places = asking.order.astype(np.intp)  # once, and not with each column
            for column in runs.answer(groups):
                columns[column.feature.name].put(places, column)

        for done in [pool.submit(answer, *entities) for entities in chunks(mine, rows)]:
            done.result()
    return [columns[name] for name in wanted]


def grouped(codes: Ints, wanted: npt.NDArray[np.bool_], threads: int, pool: ThreadPoolExecutor) -> Grouped:
    """The rows of each wanted entity, ascending (code −1 is nobody's); each thread counts and places a piece."""
    bounds = np.linspace(0, len(codes), threads + 1).astype(np.int64).tolist()
    pieces = [codes[first:last] for first, last in pairwise(bounds)]
    counts = np.zeros((threads, len(wanted)), np.int64)
    list(pool.map(kernel.count, pieces, counts))
    counts[:, ~wanted] = 0
    starts = np.concatenate(([0], np.cumsum(counts.sum(axis=0))))
    places = starts[:-1] + np.cumsum(counts, axis=0) - counts
    order = np.empty(starts[-1], np.int32)
    list(pool.map(lambda i: kernel.place(pieces[i], bounds[i], wanted, places[i], order), range(threads)))
    return Grouped(starts, order)


def chunks(events: Grouped, rows: Grouped) -> list[tuple[int, int]]:
    """Half-open ranges of entities that have some `CHUNK_ROWS` rows; the largest first, so that no thread waits."""
    ends = events.starts + rows.starts
    first, last = 0, len(ends) - 1
    found: list[tuple[int, int]] = []
    while first < last:
        after = int(np.searchsorted(ends, ends[first] + CHUNK_ROWS, "right")) - 1
        after = min(max(after, first + 1), last)
        if rows.starts[after] > rows.starts[first] and events.starts[after] > events.starts[first]:
            found.append((first, after))
        first = after
    return sorted(found, key=lambda part: int(ends[part[0]] - ends[part[1]]))


def _without_mask(column: Column) -> Column:
    """The column, with an empty mask where it has no nulls."""
    return Column(column.values, ALL) if column.is_whole else column
