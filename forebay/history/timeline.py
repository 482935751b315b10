"""The values of one entity over time.

May live here: at which instants to ask. The answers come from the training path, so that history and training are one.

    events        .      .  .               .
    asked    |     |      |  |               |        start, and just after each event (ts + 1 µs)
           start                                 end (excluded)

By the clock `as_known` an event is asked for when it has arrived, and a row when it had been computed.

Between these instants a value still changes as events leave its windows (and as `SecondsSince` grows): a grid,
`every`, shows that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.keyed import Keyed
from forebay.calls.responses import STATUS_SUFFIX, FeatureHistory, status_array
from forebay.calls.tables import INSTANT
from forebay.core.identity import KEY_BYTES_MAX, entity_key
from forebay.core.layout import Layout
from forebay.core.values import arrow_type
from forebay.errors import RequestError
from forebay.history.archived import read_events, read_unsessionized, reader_of
from forebay.history.effective import effective_instants
from forebay.history.historical import answers
from forebay.instants import day_us, duration_us, instant_text
from forebay.language.view import AnyView, BatchView
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
INSTANTS_MAX = 1_000_000
"""Rows of one history."""


def feature_history(
    store: OfflineStore,
    view: AnyView,
    entity: Mapping[str, Any],
    *,
    start_us: int | None,
    end_us: int,
    every: str | None,
    with_statuses: bool,
    known: bool,
) -> FeatureHistory:
    """The values in `[start_us, end_us)`, at each change or on a grid."""
    start_us = _first_us(store, view) if start_us is None else start_us
    if start_us >= end_us:
        raise RequestError(
            f"The history of {view.key!r} from {instant_text(start_us)} to {instant_text(end_us)} is empty; "
            "expected start before end"
        )
    key = entity_key(view.entity, entity)
    keys = [key] if len(key) <= KEY_BYTES_MAX else []
    if every is None:
        instants = _changes(store, view, keys, start_us, end_us, known=known)
    else:
        instants = _grid(start_us, end_us, every)
    if len(instants) > INSTANTS_MAX:
        raise RequestError(f"That history has {len(instants)} rows; at most {INSTANTS_MAX} are given: ask for less")
    keyed = Keyed(keys, np.full(len(instants), len(keys) - 1, np.int64))
    columns = {
        name: pa.array([entity[name]] * len(instants), arrow_type(kind)) for name, kind in view.entity.keys.items()
    }
    columns["instant"] = pa.array(instants, INSTANT)
    for column in answers(store, view, keyed, instants, list(view.outputs()), known=known):
        columns[column.feature.name] = column.to_arrow()
        if with_statuses:
            columns[column.feature.name + STATUS_SUFFIX] = status_array(column)
    return FeatureHistory(pa.table(columns), tuple(view.outputs()))


def _first_us(store: OfflineStore, view: AnyView) -> int:
    """The first instant for which a view can be asked."""
    if isinstance(view, BatchView):
        return 0 if view.first_day is None else day_us(view.first_day)
    retained_us, lookback_us = store.archive(view.source).retained_us(), Layout.of(view).lookback_us
    start_us = view.source.history_start_us
    return start_us if retained_us is None else max(start_us, retained_us + (lookback_us or 0))


def _changes(store: OfflineStore, view: AnyView, keys: list[str], start_us: int, end_us: int, *, known: bool) -> Ints:
    """`start_us`, and the instants in the interval from which on an event or a row of the entity counts."""
    if not keys:
        return np.array([start_us], np.int64)
    if isinstance(view, BatchView):
        found = effective_instants(store, view, keys[0], end_us, known=known)
    elif known and view.sessions is not None:  # of each event it may be the last that is known, so it may end one
        raw = read_unsessionized(reader_of(store), view, keys, start_us, end_us, arrivals=True)
        found = np.concatenate((raw.ts + view.sessions.gap_us + 1, raw.offset))
    else:
        events = read_events(reader_of(store), view, keys, start_us, end_us, arrivals=known)
        found = np.maximum(events.ts + 1, events.offset) if known else events.ts + 1
    return np.unique(np.append(found[(found >= start_us) & (found < end_us)], start_us))


def _grid(start_us: int, end_us: int, every: str) -> Ints:
    try:
        step_us = duration_us(every)
    except ValueError as error:
        raise RequestError(f"every={error}") from None
    if (end_us - start_us) // step_us > INSTANTS_MAX:
        raise RequestError(
            f"every={every!r} gives more than {INSTANTS_MAX} rows; choose a longer step or a shorter time"
        )
    return np.arange(start_us, end_us, step_us, dtype=np.int64)
