"""Finished values of all entities of a view, day by day: what its history table holds.

    grid (1h)     00:00   01:00   02:00   …   23:00 │ 00:00
    value           5       5       7     …     7   │   7
    row             ●               ●               │   ●       each change, and what is not a default at midnight

A day alone therefore answers for each of its instants, whichever other days are there. Values are those of training
sets, as of each instant of the grid.

May live here: which entities and instants are asked, and what of the answers is a row. Invariant: a day is replaced as
a whole, and running it again over the same events gives the same rows but for `created_timestamp`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.calls.keyed import Keyed
from forebay.calls.responses import status_array
from forebay.core.identity import entity_keys
from forebay.core.layout import Layout
from forebay.core.lists import is_list, list_texts
from forebay.core.lookup import KeyLookup
from forebay.core.values import FeatureColumn, Status
from forebay.errors import RequestError
from forebay.history.historical import answers
from forebay.ingest.batch import INSTANT
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, instant_text
from forebay.language.view import AnyView, BatchView
from forebay.offline.history_table import (
    COMPUTED_AT,
    CREATED_TIMESTAMP,
    ENTITY,
    EVENT_TIMESTAMP,
    FEATURE,
    STATUS,
    VALUE,
    VALUE_TEXT,
)
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
ROWS_AT_ONCE = 500_000
"""Values of one feature in memory: some 30 bytes each, times the features of the view."""
DEFAULTS = (Status.DEFAULT_MISSING, Status.DEFAULT_EXPIRED)


@dataclass(frozen=True)
class Written:
    """What was written."""

    dates: int
    entities: int
    rows: int
    bytes: int
    seconds: float


def write_history(store: OfflineStore, view: AnyView, start_us: int, end_us: int, *, now_us: int) -> Written:
    """Replace a view's history of the UTC days in `[start, end)`, some days in one commit; nothing after now is said.

    Raises `RequestError` for a view without `history`, or a range that isn't one of whole days.
    """
    began, step_us = time.perf_counter(), view.history_us
    if step_us is None:
        raise RequestError(f"View {view.key!r} declares no history; write history='1h' to keep one")
    if start_us % DAY_US or end_us % DAY_US or start_us >= end_us:
        raise RequestError(
            f"View {view.key!r}: [{instant_text(start_us)}, {instant_text(end_us)}) is no range of UTC days"
        )
    keys, history = entities_of(store, view, start_us - step_us, end_us), store.history(view)
    days = max(1, ROWS_AT_ONCE // max(1, len(keys) * (DAY_US // step_us)))
    rows = size = 0
    for first_us in range(start_us, end_us, days * DAY_US):
        last_us = min(first_us + days * DAY_US, end_us)
        instants = np.arange(first_us - step_us, min(last_us, now_us + 1), step_us, dtype=np.int64)
        parts = [_changes(store, view, group, instants, now_us) for group in _groups(keys, instants)]
        nothing = history.empty()
        table = pa.concat_tables([nothing, *(part.select(nothing.column_names) for part in parts)])
        history.overwrite(first_us, last_us, table)
        rows, size = rows + len(table), size + table.nbytes
    return Written((end_us - start_us) // DAY_US, len(keys), rows, size, time.perf_counter() - began)


def entities_of(store: OfflineStore, view: AnyView, start_us: int, end_us: int) -> list[str]:
    """The entities that can have a value at instants in `[start, end)`, in order."""
    if isinstance(view, BatchView):
        rows = store.rows(view).scan(list(view.entity.keys), None, end_us)
        keys = entity_keys(view.entity, {name: rows[name] for name in view.entity.keys})
        return sorted(pc.unique(keys).drop_null().to_pylist())
    lookback_us = Layout.of(view).lookback_us
    selector, found = Selector(view, []), set[str]()
    first_us = None if lookback_us is None else start_us - lookback_us
    if first_us is not None and view.sessions is not None:
        first_us -= view.sessions.gap_us
    for rows in store.archive(view.source).reading(selector.columns, first_us, end_us).batches():
        found.update(selector.select(rows).keys.to_pylist())
    return sorted(found)


def _groups(keys: list[str], instants: Ints) -> Iterator[list[str]]:
    size = max(1, ROWS_AT_ONCE // max(1, len(instants)))
    for first in range(0, len(keys), size):
        yield keys[first : first + size]


def _changes(store: OfflineStore, view: AnyView, keys: list[str], instants: Ints, now_us: int) -> pa.Table:
    """The rows of some entities; the first of the instants is there to be compared with."""
    count = len(instants)
    code, us = np.repeat(np.arange(len(keys)), count), np.tile(instants, len(keys))
    columns = answers(store, view, Keyed(keys, code), us, list(view.outputs()), known=False)
    entities = KeyLookup(view.entity, keys).columns
    tables = []
    for column in columns:
        rows = _changed(column, us == instants[0], us % DAY_US == 0)
        tables.append(_rows(column.take(rows), keys, entities, code[rows], us[rows], now_us))
    return pa.concat_tables(tables)


def _changed(
    column: FeatureColumn, first: npt.NDArray[np.bool_], midnight: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """The rows at which a feature isn't what it was a step before, and all values at midnight."""
    same = np.ones(len(column), np.bool_)
    for array in (column.values, column.valid, column.status, column.event_us):
        same[1:] &= array[1:] == array[:-1]
    kept = ~same | (midnight & ~np.isin(column.status, DEFAULTS))
    return np.flatnonzero(kept & ~first)


def _rows(
    column: FeatureColumn, keys: list[str], entities: dict[str, pa.Array], code: Ints, us: Ints, now_us: int
) -> pa.Table:
    values = column.to_arrow()
    own = {
        ENTITY: pa.array(keys, pa.string()).take(pa.array(code)),
        FEATURE: pa.repeat(pa.scalar(column.feature.name), len(code)),
        VALUE: _number(values),
        VALUE_TEXT: list_texts(values) if is_list(values.type) else values.cast(pa.string()),
        STATUS: status_array(column).cast(pa.string()),
        EVENT_TIMESTAMP: column.event_timestamps(),
        COMPUTED_AT: pa.array(us, INSTANT),
        CREATED_TIMESTAMP: pa.array(np.full(len(code), now_us), INSTANT),
    }
    return pa.table({name: key.take(pa.array(code)) for name, key in entities.items()} | own)


def _number(values: pa.Array) -> pa.Array:
    """Values as doubles; text and lists have none."""
    if pa.types.is_string(values.type) or is_list(values.type):
        return pa.nulls(len(values), pa.float64())
    if pa.types.is_timestamp(values.type):
        return pc.divide(values.cast(pa.int64()).cast(pa.float64()), 1e6)
    return (values.cast(pa.int8()) if pa.types.is_boolean(values.type) else values).cast(pa.float64())
