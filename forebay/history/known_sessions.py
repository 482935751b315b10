"""Sessions as they were known at an instant.

An event that arrives late can merge two sessions or cut a chain elsewhere, so a row may know other sessions than the
row before it, and not only fewer. So each row is given its own events: those of its entity before its instant that had
arrived by then; their sessions are the row's. Exact, and as much work as there are pairs of a row and an event; they
are taken in pieces that bound memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from forebay.core.events import Events, unnamed
from forebay.core.layout import Layout
from forebay.core.ranges import answer_events
from forebay.core.sessions import sessionize
from forebay.core.values import FeatureColumn
from forebay.ingest.sessions import Sessionizer
from forebay.language.view import WindowedView

Ints = npt.NDArray[np.int64]
PAIRS_MAX = 4_000_000
"""Pairs of a row and an event that are in memory at once, at some 50 bytes each (one row may have more)."""


def answer_known_sessions(
    view: WindowedView, raw: Events, row_code: Ints, row_us: Ints, names: Sequence[str]
) -> list[FeatureColumn]:
    """The features of a view of sessions, of the events `raw` that had arrived (`offset`) by each row's instant."""
    sessionizer, layout = Sessionizer(view, names), Layout.of(view)
    columns = [FeatureColumn.of_defaults(view.outputs()[name], len(row_us)) for name in names]
    for rows, pair_row, pair_event in _pairs(raw, row_code, row_us):
        sessions = sessionize(sessionizer.rule, pair_row, raw.ts[pair_event])
        events = sessionizer.described(sessions, unnamed(len(rows)))
        parts = answer_events(layout, events, np.arange(len(rows)), row_us[rows], names)
        for whole, part in zip(columns, parts, strict=True):
            whole.put(rows, part)
    return columns


def _pairs(raw: Events, row_code: Ints, row_us: Ints) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Some rows at a time; of each event that such a row knows, which of them it is, and the event."""
    order = np.lexsort((raw.ts, raw.code))
    code = raw.code[order]
    starts = np.searchsorted(code, row_code)
    counts = np.searchsorted(code, row_code, "right") - starts
    ends = np.cumsum(counts)
    first = 0
    while first < len(row_us):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + PAIRS_MAX, "right")))
        rows, mine = np.arange(first, last), counts[first:last]
        pair_row = np.repeat(np.arange(len(rows)), mine)
        event = order[np.arange(mine.sum()) + np.repeat(starts[rows] - np.cumsum(mine) + mine, mine)]
        us = row_us[rows][pair_row]
        known = (raw.ts[event] < us) & (raw.offset[event] <= us)
        yield rows, pair_row[known], event[known]
        first = last
