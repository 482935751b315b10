"""Online reads: keys, one round trip to the online store, a response.

May live here: going from a request's rows to the reader and back. What is stored and how values are computed lie below.

Invariants: rows of one entity are read and answered once; all values of a response are of one instant; a row with a
null key gets the defaults of that entity's features; on-demand features are computed of these values.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from forebay.calls.asked import Asked
from forebay.calls.keyed import EntityRows, Keyed
from forebay.calls.on_demand import Columns, with_on_demand
from forebay.calls.request import Request, request_of
from forebay.calls.responses import Behind, OnlineResponse
from forebay.core.values import FeatureColumn
from forebay.instants import instant_us
from forebay.online.read import OnlineReader, ViewRead


def read_online(
    reader: OnlineReader, asked: Asked, entity_rows: Any, request: Request | None, *, at: Any, now_us: int
) -> OnlineResponse:
    """The features of `entity_rows` at the instant `at`, or live where it is `None`."""
    at_us = None if at is None else instant_us(at)
    rows = EntityRows.of(entity_rows, asked.keys)
    brought = request_of(entity_rows, request, asked.request, rows.count)
    keyed = {name: rows.keyed(entity) for name, entity in asked.entities.items()}
    keys = {key: _to_read(keyed[view.entity.name]) for key, view in asked.views.items()}
    read = reader.read(list(asked.views.values()), keys, at_us, now_us, asked.names)
    by_name: Columns = {
        (key, column.feature.name): _spread(column, keyed[view.entity.name])
        for key, view in asked.views.items()
        for column in read.views[key].columns
    }
    if asked.on_demand:
        by_name = with_on_demand(asked, by_name, brought, np.full(rows.count, read.instant_us))
    features = {column.title: by_name[column.view.key, column.name] for column in asked.columns}
    behind = {key: _behind(read.views[key], keyed[view.entity.name]) for key, view in asked.views.items()}
    return OnlineResponse(rows.columns, asked.keys, features, read.instant_us, behind, asked.service)


def _to_read(keyed: Keyed) -> list[str | None]:
    """The entities to read, with a last `None` (defaults) where a row has no entity: code −1 is then its index."""
    return [*keyed.keys, None] if (keyed.code < 0).any() else list(keyed.keys)


def _spread(column: FeatureColumn, keyed: Keyed) -> FeatureColumn:
    """The values of the rows, from those of the distinct entities."""
    return column if len(keyed.code) == len(keyed.keys) else column.take(keyed.code)


def _behind(read: ViewRead, keyed: Keyed) -> Behind:
    """What is behind the rows, from what is behind the distinct entities."""
    if len(keyed.code) == len(keyed.keys):
        return Behind(read.commits, read.cuts, read.watermarks, read.overdue, read.missing)
    code = keyed.code
    commits, cuts, watermarks = read.commits[code], read.cuts[code], read.watermarks[code]
    return Behind(commits, cuts, watermarks, read.overdue[code], read.missing[code])
