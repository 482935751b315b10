"""The training kernel: many events and many instants become values, in chunks of entities on several threads.

The faster twin of `forebay.core.ranges` (ADR 0043) for large inputs; it needs numba (the extra `fast`). Events and
spine rows are cut by chunk of entities (`forebay.core.chunked`), events as soon as they come. Then each chunk, small
enough for a processor's cache, is a job of its own: its events are put in order of (entity, ts, id), the loops of
`forebay.core.kernel` find and merge the ranges of all windows, and `forebay.core.answer.decide` ends it as everywhere.

Invariants: the values are those of `ranges.answer_ranges`, to the bit where numbers are exact (float sums within the
law); neither the number of threads nor the size of chunks changes a bit of any.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numba
import numpy as np
import numpy.typing as npt

from forebay.core import kernel
from forebay.core.answer import by_window
from forebay.core.arrivals import Arrived
from forebay.core.chunked import ALL, Chunk, Chunking, Piece
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.runs import Grouped, Mask, Rows, Runs, Span
from forebay.core.threads import on_threads
from forebay.core.values import FeatureColumn

Ints = npt.NDArray[np.int64]
PIECE_ROWS = 2**18
"""Events that are cut at a time, where they are there already."""


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
    threads = threads or int(vars(numba.config)["NUMBA_NUM_THREADS"])
    chunking = Chunking.of(len(events.keys), len(events) + len(row_code))
    bounds = [*range(0, len(events), PIECE_ROWS), len(events)]
    parts = [slice(first, last) for first, last in pairwise(bounds)] or [slice(0)]
    pieces = on_threads(lambda part: Piece.of(Arrived(events.part(part)), chunking), parts, threads)
    return answer_pieces(layout, pieces, chunking, row_code, row_us, names, threads, bare=bare)


def answer_pieces(
    layout: Layout,
    pieces: Sequence[Piece],
    chunking: Chunking,
    row_code: Ints,
    row_us: Ints,
    names: Sequence[str] | None,
    threads: int,
    *,
    bare: bool = False,
) -> list[FeatureColumn]:
    """As `answer_sweep`, of events that were cut by chunk as they came (at least one piece)."""
    wanted = list(names) if names is not None else [output.name for output in layout.outputs]
    groups = by_window(layout, wanted)
    features = [output.feature for outputs in groups.values() for output in outputs]
    made = on_threads(lambda one: FeatureColumn.of_defaults(one, len(row_code), bare=bare), features, threads)
    columns = {column.feature.name: column for column in made}
    rows, spans = chunking.cut(row_code), Span.all_of(layout, groups)

    def answer(chunk: int) -> None:
        part, count = rows.of(chunk), chunking.entities_of(chunk)
        asking = grouped(rows.local[part], count, ALL)
        asking = Grouped(asking.starts, rows.order[part][asking.order])
        events = Chunk.of(pieces, chunk)
        if not len(events) or not len(asking.order):
            return
        mine = grouped(events.local, count, np.diff(asking.starts) > 0)
        if not len(mine.order):
            return
        Runs(layout, events, mine, asking, row_us, list(groups)).answer(spans, columns, asking.order.astype(np.intp))

    sizes = np.diff(rows.edges) + sum(np.diff(piece.edges) for piece in pieces)
    largest_first = np.argsort(-sizes, kind="stable").tolist()  # so that no thread waits for another
    on_threads(answer, largest_first, threads)
    return [columns[name] for name in wanted]


def grouped(local: Rows, entities: int, wanted: Mask) -> Grouped:
    """The rows of each wanted entity, ascending."""
    starts, order = np.zeros(entities + 1, np.int64), np.empty(len(local), np.int32)
    kernel.group(local, wanted, starts, order)
    return Grouped(starts, order[: starts[-1]])
