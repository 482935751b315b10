"""Training sets: for each row of a spine, the features as they were at its instant.

May live here: which part of the offline store a request needs, and laying the answers beside the spine. The law
itself is in `forebay.core.ranges`, `forebay.core.known` and `forebay.core.asof`.

Invariants: one row per row of the spine, in its order; a row sees nothing at or after its instant (of a batch view:
nothing effective after it); views are computed one after another, so that memory holds the events of one view.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from forebay.calls.asked import Asked
from forebay.calls.keyed import Keyed
from forebay.calls.on_demand import with_on_demand
from forebay.calls.responses import STATUS_SUFFIX, TrainingSet, status_array
from forebay.core.arrivals import Arrivals
from forebay.core.known import answer_known
from forebay.core.layout import Layout
from forebay.core.ranges import answer_events
from forebay.core.threads import on_threads
from forebay.core.values import FeatureColumn
from forebay.history.archived import Reader, read_arrivals, read_events, read_unsessionized, reader_of
from forebay.history.effective import answer_rows
from forebay.history.known_sessions import answer_known_sessions
from forebay.history.rows_asked import RowsAsked
from forebay.history.spine import Spine
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
EVENTS_AT_ONCE = 50_000_000
"""Events in memory: some 100 bytes each. A larger archive is read once for each group of entities."""


def training_set(
    store: OfflineStore, asked: Asked, spine: Spine, *, with_statuses: bool = False, known: bool = False
) -> TrainingSet:
    """The spine with the asked features beside it, as of each row's instant or as `known` then."""
    columns: dict[tuple[str, str], FeatureColumn] = {}
    rows = {name: RowsAsked.of(keyed, spine.instants_us) for name, keyed in spine.keyed.items()}
    for key, view in asked.views.items():
        answer = partial(_answer, store, view, names=asked.names[key], known=known, bare=not with_statuses)
        for column in rows[view.entity.name].answered(answer):
            columns[key, column.feature.name] = column
    table = spine.table
    if asked.on_demand:
        columns = {**with_on_demand(asked, columns, spine.request, spine.instants_us)}
    wanted_columns = [columns[wanted.view.key, wanted.name] for wanted in asked.columns]
    arrays = on_threads(FeatureColumn.to_arrow, wanted_columns, store.threads)
    for wanted, values, array in zip(asked.columns, wanted_columns, arrays, strict=True):
        table = table.append_column(wanted.title, array)
        if with_statuses:
            table = table.append_column(wanted.title + STATUS_SUFFIX, status_array(values))
    return TrainingSet(table, tuple(column.title for column in asked.columns))


def answers(
    store: OfflineStore,
    view: AnyView,
    keyed: Keyed,
    instants_us: Ints,
    names: Sequence[str],
    *,
    known: bool,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of a view for rows of (entity, instant); equal rows are answered once."""
    answer = partial(_answer, store, view, names=names, known=known, bare=bare)
    return RowsAsked.of(keyed, instants_us).answered(answer)


def _answer(
    store: OfflineStore,
    view: AnyView,
    rows: RowsAsked,
    names: Sequence[str],
    *,
    known: bool,
    bare: bool,
) -> list[FeatureColumn]:
    keyed, instants_us = rows.keyed, rows.instants_us
    asking = instants_us[keyed.code >= 0]
    if not len(asking):
        return [FeatureColumn.of_defaults(view.outputs()[name], len(instants_us), bare=bare) for name in names]
    start_us, end_us = int(asking.min()), int(asking.max())
    if isinstance(view, BatchView):
        return answer_rows(store, view, rows, names, known=known, bare=bare)
    chunks = list(_chunks(store, view, keyed))
    if len(chunks) == 1:
        return answer_windowed(
            reader_of(store), view, keyed, instants_us, (start_us, end_us), names, known=known, bare=bare
        )
    columns = [FeatureColumn.of_defaults(view.outputs()[name], len(instants_us), bare=bare) for name in names]
    for chunk in chunks:
        asked = np.flatnonzero(chunk.code >= 0)
        part_of = Keyed(chunk.keys, chunk.code[asked])
        parts = answer_windowed(
            reader_of(store), view, part_of, instants_us[asked], (start_us, end_us), names, known=known, bare=bare
        )
        for whole, part in zip(columns, parts, strict=True):
            whole.put(asked, part)
    return columns


def answer_windowed(
    read: Reader,
    view: WindowedView,
    keyed: Keyed,
    instants_us: Ints,
    within_us: tuple[int, int],
    names: Sequence[str],
    *,
    known: bool,
    part_of: int = 0,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of rows of which the events fit in memory; `within_us` are the first and last instant of them, or of
    those that they are a part of, as their events are of `part_of`.
    """
    if known and view.sessions is not None:
        events = read_unsessionized(read, view, keyed.keys, *within_us, arrivals=True)
        return answer_known_sessions(view, events, keyed.code, instants_us, names)
    layout, threads = Layout.of(view), read.threads
    if known or view.sessions is not None:
        events = read_events(read, view, keyed.keys, *within_us, names, arrivals=known)
        answer = answer_known if known else answer_events
        return answer(layout, events, keyed.code, instants_us, names, part_of, bare=bare, threads=threads)
    arrivals = Arrivals(len(keyed.keys), read.size(view.source) + len(instants_us), part_of)
    taken = read_arrivals(read, view, keyed.keys, *within_us, names, arrivals)
    return arrivals.answer(layout, taken, keyed.code, instants_us, names, threads, bare=bare)


def _chunks(store: OfflineStore, view: WindowedView, keyed: Keyed) -> Iterator[Keyed]:
    """The rows in as many groups of entities as it takes for the events of one to fit in memory."""
    archived, _ = store.archive(view.source).size() or (0, 0)
    count = min(-(-archived // EVENTS_AT_ONCE) or 1, len(keyed.keys))
    if count <= 1:
        yield keyed
        return
    edges = np.linspace(0, len(keyed.keys), count + 1).astype(np.int64).tolist()
    for low, high in pairwise(edges):
        mine = (keyed.code >= low) & (keyed.code < high)
        yield Keyed(keyed.keys[low:high], np.where(mine, keyed.code - low, -1))
