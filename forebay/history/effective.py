"""The features of a batch view for many rows asked: narrow columns decide which stored rows hold, then these are read.

    keys, event_timestamp, created_timestamp of all rows   →   which row holds      forebay.core.asof
    the features asked for, of the rows that hold          →   values               forebay.core.rows.finish_rows

May live here: which tables and columns are read for it. Invariant: memory is that of what is asked, however many rows
an entity has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.calls.keyed import Keyed
from forebay.core.asof import AsOf
from forebay.core.events import Column
from forebay.core.lookup import KeyLookup
from forebay.core.rows import CREATED_TIMESTAMP, EVENT_TIMESTAMP, finish_rows, finish_texts, stored
from forebay.core.values import FeatureColumn
from forebay.history.archived import LOOKED_UP_MAX
from forebay.ingest.batch import INSTANT
from forebay.language.types import FeatureType, StringType
from forebay.language.view import BatchView
from forebay.offline.clustering import Clustering, Hashes
from forebay.offline.row_groups import ahead
from forebay.offline.rows_table import SUPERSEDED_TIMESTAMP
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]


class StoredRows(Protocol):
    """Stored rows with numbers: `forebay.offline.numbered` or, cut into files, `forebay.offline.spill`."""

    rows: int

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows, each piece with the number of its first row."""
        ...

    def take(self, numbers: Ints, columns: Sequence[str]) -> pa.Table:
        """Columns of some rows; `numbers` ascend and are distinct."""
        ...


def answer_rows(
    store: OfflineStore,
    view: BatchView,
    keyed: Keyed,
    instants_us: Ints,
    names: Sequence[str],
    *,
    known: bool,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of rows of (entity, instant): as known then, or as of then."""
    table, before = store.rows(view), until(int(instants_us.max(initial=0)))
    hashes = _hashes(view, keyed.keys)
    with ExitStack() as stack:
        current = stack.enter_context(table.table.numbered(before, hashes))
        past = stack.enter_context(table.superseded.numbered(before, hashes)) if known else None
        columns = answer_stored(view, current, past, keyed, instants_us, names, bare=bare)
    if known:
        table.check_known(int(instants_us.min(initial=2**62)))
    return columns


def answer_stored(
    view: BatchView,
    current: StoredRows,
    past: StoredRows | None,
    keyed: Keyed,
    instants_us: Ints,
    names: Sequence[str],
    *,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of rows of (entity, instant), out of stored rows and, for what was known, those superseded."""
    asked, lookup, known = AsOf(keyed.code, instants_us), KeyLookup(view.entity, keyed.keys), past is not None
    _offer(asked, lookup, current, known=known)
    if past is not None:
        _offer_superseded(asked, lookup, past, current.rows)
    rows, event_us = asked.holding()
    holding = np.unique(rows[rows >= 0])
    payload = _payload(current, past, holding, names)
    places = np.searchsorted(holding, rows)
    kinds = {name: view.outputs()[name].type for name in names}
    texts = [name for name in names if bare and isinstance(kinds[name], StringType)]
    columns = {name: _placed(payload[name], places, rows >= 0, kinds[name]) for name in names if name not in texts}
    finished = finish_rows(view, columns, event_us, instants_us, list(columns), bare=bare)
    if texts:
        at = pa.array(places, mask=rows < 0)
        taken = {name: payload[name].combine_chunks().cast(pa.string()).take(at) for name in texts}
        finished += finish_texts(view, taken, event_us, instants_us)
    by_name = {column.feature.name: column for column in finished}
    return [by_name[name] for name in names]


def effective_instants(store: OfflineStore, view: BatchView, key: str, end_us: int, *, known: bool) -> Ints:
    """The instants before `end_us` from which on rows of an entity count, or count no more."""
    table, lookup, found = store.rows(view), KeyLookup(view.entity, [key]), [np.empty(0, np.int64)]
    for lake, superseded in ((table.table, False), *(((table.superseded, True),) if known else ())):
        with lake.numbered(until(end_us), _hashes(view, [key])) as stored_rows:
            for rows in _narrow(stored_rows, lookup, superseded=superseded):
                mine = rows.code == 0
                counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
                found += [counts_us[mine], *([rows.until_us[mine]] if superseded else [])]
    return np.concatenate(found)


def until(end_us: int) -> pc.Expression:
    """The rows that hold at an instant or before it."""
    return pc.field(EVENT_TIMESTAMP) <= pa.scalar(end_us, INSTANT)


def _hashes(view: BatchView, keys: list[str]) -> Hashes | None:
    """Where the rows of a few entities lie; of more, everything is read."""
    if len(keys) > LOOKED_UP_MAX:
        return None
    return Clustering(tuple(view.entity.keys)).of(KeyLookup(view.entity, keys).columns)


def _offer(asked: AsOf, lookup: KeyLookup, current: StoredRows, *, known: bool) -> None:
    for rows in ahead(_narrow(current, lookup)):
        counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
        asked.offer(rows.code, counts_us, rows.event_us, rows.created_us, rows.numbers)


def _offer_superseded(asked: AsOf, lookup: KeyLookup, past: StoredRows, first: int) -> None:
    """Rows that a later computation replaced, numbered after the current ones."""
    for rows in ahead(_narrow(past, lookup, superseded=True)):
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


def _narrow(stored_rows: StoredRows, lookup: KeyLookup, *, superseded: bool = False) -> Iterator[_Narrow]:
    own = [EVENT_TIMESTAMP, CREATED_TIMESTAMP, *([SUPERSEDED_TIMESTAMP] if superseded else [])]
    for number, rows in stored_rows.pieces([*lookup.columns, *own]):
        code = lookup.places({name: rows[name] for name in lookup.columns})
        instants = [_us(rows, name) for name in own]
        yield _Narrow(code, instants[0], instants[1], instants[-1], np.arange(number, number + len(rows)))


def _payload(current: StoredRows, past: StoredRows | None, rows: Ints, names: Sequence[str]) -> pa.Table:
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
