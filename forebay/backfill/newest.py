"""The newest row of every entity of a batch view, from a table of any number of rows.

    keys, event_timestamp, created_timestamp of all rows, piece by piece   →   the best row of each entity so far
    all columns, of these rows alone                                       →   what is published

Lives here: what a publication reads of `features/<view>@<v>`. Invariant: memory is that of the entities, not of the
rows. Which row is the best is said by `forebay.core.asof`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from forebay.backfill.tiles import Entities
from forebay.core.asof import Best
from forebay.core.identity import entity_keys
from forebay.ingest.batch import INSTANT
from forebay.language.view import BatchView
from forebay.offline.rows_table import CREATED_TIMESTAMP, EVENT_TIMESTAMP
from forebay.offline.tables import OfflineStore


def newest_rows(store: OfflineStore, view: BatchView) -> pa.Table:
    """One row per entity that has any: by `event_timestamp`, of equal ones by `created_timestamp`."""
    lake, entities, best = store.rows(view).table, Entities(), Best(0)
    with lake.numbered() as rows:
        for number, piece in rows.pieces([*view.entity.keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP]):
            keys = entity_keys(view.entity, {name: piece[name] for name in view.entity.keys})
            keyed = np.flatnonzero(np.asarray(keys.is_valid()))
            coded = keys.drop_null().dictionary_encode()
            code = entities.codes(coded.dictionary.to_pylist())[np.asarray(coded.indices)]
            best = _with_room(best, len(entities.keys))
            event_us, created_us = (
                np.asarray(piece[name].cast(INSTANT).cast(pa.int64()))[keyed]
                for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP)
            )
            best.offer(code, event_us, created_us, number + keyed)
        return rows.take(np.sort(best.row), lake.schema.names)


def _with_room(best: Best, places: int) -> Best:
    """The same, with room for so many entities."""
    more = Best(places)
    known = len(best.row)
    more.event_us[:known], more.created_us[:known], more.row[:known] = best.event_us, best.created_us, best.row
    return more
