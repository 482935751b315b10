"""The archived events of a view, for the entities of one call.

May live here: reading the archive piece by piece into the core's columns, so that neither columns that no asked feature
needs nor events of entities that nobody asks about pile up in memory. What is made of the events is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa

from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.lookup import KeyLookup
from forebay.ingest.select import Selector
from forebay.language.view import WindowedView
from forebay.stores.archive import ARRIVED_AT
from forebay.stores.tables import OfflineStore

LOOKED_UP_MAX = 1_000
"""So few entities are looked up in the archive; of more, everything within reach is read."""
OTHERS_MAX = 0.25
"""A smaller share of events of other entities is sooner carried along than left out."""
ROOM_MAX = 2**26
"""Events for which room is made at once."""
PIECE_ROWS = 1_000_000
"""Rows that become columns at a time: enough for matching their keys with those asked to cost little."""


def read_events(
    store: OfflineStore,
    view: WindowedView,
    keys: list[str],
    start_us: int,
    end_us: int,
    features: Sequence[str] | None = None,
    *,
    arrivals: bool = False,
) -> Events:
    """The events of the entities `keys` that count at instants in `[start_us, end_us]`, for some features of a view.

    `code` is an index into `keys`, or beyond them: where more than `LOOKED_UP_MAX` are asked for, some events of others
    may be among them; with `arrivals`, `offset` is the instant at which each arrived.
    """
    lookback_us = Layout.of(view).lookback_us
    first_us = None if lookback_us is None else start_us - lookback_us
    selector = Selector(view, list(view.outputs()) if features is None else features, ARRIVED_AT if arrivals else None)
    archive, asked = store.archive(view.source), KeyLookup(view.entity, keys)
    entities = pa.table(asked.columns) if len(keys) <= LOOKED_UP_MAX else None
    found = archive.pieces(selector.columns, first_us, end_us, entities)
    nothing = selector.select_of(asked, archive.table.schema.empty_table().select(selector.columns))
    others, room = (0.0, 0) if entities is not None else (OTHERS_MAX, min((archive.size() or (0, 0))[0], ROOM_MAX))
    pieces = (piece for rows in _large(found) for piece in selector.select_of(asked, rows, others))
    return Events.joined(chain(nothing, pieces), room)


def _large(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of some `PIECE_ROWS`."""
    held: list[pa.Table] = []
    for table in tables:
        held += [table] if len(table) else []
        if sum(map(len, held)) >= PIECE_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)
