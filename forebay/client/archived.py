"""The archived events of a view, for the entities of one call.

May live here: reading the archive piece by piece into the core's columns, so that neither columns that no asked feature
needs nor events of entities that nobody asks about pile up in memory. What is made of the events is not decided here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.events import Events
from forebay.core.identity import parse_entity_key
from forebay.core.layout import Layout
from forebay.core.values import arrow_type
from forebay.ingest.select import Selector
from forebay.language.view import WindowedView
from forebay.stores.tables import OfflineStore

LOOKED_UP_MAX = 1_000
"""So few entities are looked up in the archive; of more, everything within reach is read."""
PIECE_ROWS = 2_000_000
"""Rows that become columns at a time: enough for matching their keys with those asked to cost little."""


def read_events(
    store: OfflineStore,
    view: WindowedView,
    keys: list[str],
    start_us: int,
    end_us: int,
    features: Sequence[str] | None = None,
) -> Events:
    """The events of the entities `keys` that count at instants in `[start_us, end_us]`, for some features of a view.

    `code` is an index into `keys`.
    """
    lookback_us = Layout.of(view).lookback_us
    first_us = None if lookback_us is None else start_us - lookback_us
    selector = Selector(view, list(view.outputs()) if features is None else features)
    archive, asked = store.archive(view.source), pa.array(keys, pa.string())
    entities = _looked_up(view, keys) if len(keys) <= LOOKED_UP_MAX else None
    dictionaries = selector.dictionaries if entities is None else ()
    found = archive.pieces(selector.columns, first_us, end_us, entities, dictionaries)

    def of_asked(rows: pa.Table) -> Events:
        events = selector.select(rows)
        places = pc.index_in(pa.array(events.keys, pa.string()), asked).fill_null(-1)
        return events.of(keys, np.asarray(places).astype(np.int64))

    pieces = [of_asked(rows) for rows in _large(found)]
    return Events.joined(pieces or [of_asked(archive.table.schema.empty_table())])


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


def _looked_up(view: WindowedView, keys: Sequence[str]) -> pa.Table:
    """The key columns of entities."""
    rows = [parse_entity_key(view.entity, key) for key in keys]
    return pa.table(
        {name: pa.array([row[name] for row in rows], arrow_type(kind)) for name, kind in view.entity.keys.items()}
    )
