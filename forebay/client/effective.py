"""The features of a batch view for many rows asked: narrow columns decide which stored rows hold, then these are read.

    keys, event_timestamp, created_timestamp of all rows   →   which row holds      forebay.core.asof
    the features asked for, of the rows that hold          →   values               forebay.core.rows.finish_rows

May live here: which tables and columns are read for it. Invariant: memory is that of what is asked, however many rows
an entity has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.client.keyed import Keyed
from forebay.core.asof import AsOf
from forebay.core.events import Column
from forebay.core.lookup import KeyLookup
from forebay.core.rows import CREATED_TIMESTAMP, EVENT_TIMESTAMP, finish_rows, stored
from forebay.core.values import FeatureColumn
from forebay.ingest.batch import INSTANT
from forebay.language.types import FeatureType
from forebay.language.view import BatchView
from forebay.stores.numbered import NumberedRows
from forebay.stores.rows_table import SUPERSEDED_TIMESTAMP
from forebay.stores.tables import OfflineStore

Ints = npt.NDArray[np.int64]


def answer_rows(
    store: OfflineStore, view: BatchView, keyed: Keyed, instants_us: Ints, names: Sequence[str], *, known: bool
) -> list[FeatureColumn]:
    """The features of rows of (entity, instant): as known then, or as of then."""
    table, asked = store.rows(view), AsOf(keyed.code, instants_us)
    lookup, before = KeyLookup(view.entity, keyed.keys), _until(int(instants_us.max(initial=0)))
    with ExitStack() as stack:
        current = stack.enter_context(table.table.numbered(before))
        past = stack.enter_context(table.superseded.numbered(before)) if known else None
        _offer(asked, lookup, current, known=known)
        if past is not None:
            _offer_superseded(asked, lookup, past, current.rows)
        rows, event_us = asked.holding()
        holding = np.unique(rows[rows >= 0])
        payload = _payload(current, past, holding, names)
    places = np.searchsorted(holding, rows)
    columns = {name: _placed(payload[name], places, rows >= 0, view.outputs()[name].type) for name in names}
    return finish_rows(view, columns, event_us, instants_us, names)


def effective_instants(store: OfflineStore, view: BatchView, key: str, end_us: int, *, known: bool) -> Ints:
    """The instants before `end_us` from which on rows of an entity count, or count no more."""
    table, lookup, found = store.rows(view), KeyLookup(view.entity, [key]), [np.empty(0, np.int64)]
    for lake, superseded in ((table.table, False), *(((table.superseded, True),) if known else ())):
        with lake.numbered(_until(end_us)) as stored_rows:
            for rows in _narrow(stored_rows, lookup, superseded=superseded):
                mine = rows.code == 0
                counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
                found += [counts_us[mine], *([rows.until_us[mine]] if superseded else [])]
    return np.concatenate(found)


def _until(end_us: int) -> pc.Expression:
    return pc.field(EVENT_TIMESTAMP) <= pa.scalar(end_us, INSTANT)


def _offer(asked: AsOf, lookup: KeyLookup, current: NumberedRows, *, known: bool) -> None:
    for rows in _ahead(_narrow(current, lookup)):
        counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
        asked.offer(rows.code, counts_us, rows.event_us, rows.created_us, rows.numbers)


def _offer_superseded(asked: AsOf, lookup: KeyLookup, past: NumberedRows, first: int) -> None:
    """Rows that a later computation replaced, numbered after the current ones."""
    for rows in _ahead(_narrow(past, lookup, superseded=True)):
        counts_us = np.maximum(rows.event_us, rows.created_us)
        asked.offer_until(rows.code, counts_us, rows.until_us, rows.event_us, rows.created_us, first + rows.numbers)


@dataclass(frozen=True)
class _Narrow:
    """Stored rows by what decides which holds."""

    code: Ints
    event_us: Ints
    created_us: Ints
    until_us: Ints
    numbers: Ints


def _narrow(stored_rows: NumberedRows, lookup: KeyLookup, *, superseded: bool = False) -> Iterator[_Narrow]:
    own = [EVENT_TIMESTAMP, CREATED_TIMESTAMP, *([SUPERSEDED_TIMESTAMP] if superseded else [])]
    for number, rows in stored_rows.pieces([*lookup.columns, *own]):
        code = lookup.places({name: rows[name] for name in lookup.columns})
        instants = [_us(rows, name) for name in own]
        yield _Narrow(code, instants[0], instants[1], instants[-1], np.arange(number, number + len(rows)))


def _ahead(pieces: Iterator[_Narrow]) -> Iterator[_Narrow]:
    """The same pieces, each read while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, pieces, None)
        while (piece := coming.result()) is not None:
            coming = pool.submit(next, pieces, None)
            yield piece


def _payload(current: NumberedRows, past: NumberedRows | None, rows: Ints, names: Sequence[str]) -> pa.Table:
    """The features of some rows, in the order of their numbers."""
    mine = np.searchsorted(rows, current.rows)
    tables = [current.take(rows[:mine], names)]
    if past is not None:
        tables.append(past.take(rows[mine:] - current.rows, names))
    return pa.concat_tables(tables)


def _placed(column: pa.ChunkedArray, places: Ints, found: npt.NDArray[np.bool_], kind: FeatureType) -> Column:
    """A column of the rows that hold, laid beside the rows asked."""
    there = stored(column, kind)
    if found.all():
        return there.take(places)
    values, valid = np.zeros(len(found), kind.storage), np.zeros(len(found), np.bool_)
    values[found], valid[found] = there.values[places[found]], there.valid[places[found]]
    return Column(values, valid)


def _us(rows: pa.Table, name: str) -> Ints:
    return np.asarray(rows[name].combine_chunks().cast(pa.int64()))
