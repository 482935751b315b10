"""The features of a batch view for many rows asked: narrow columns decide which stored rows hold, then these are read.

    keys, event_timestamp, created_timestamp of all rows   →   which row holds      forebay.core.asof
    the features asked for, of the rows that hold          →   values               forebay.core.rows.finish_rows

May live here: which tables and columns are read for it. Invariant: memory is that of what is asked, however many rows
an entity has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.asof import AsOf
from forebay.core.lookup import KeyLookup
from forebay.core.rows import CREATED_TIMESTAMP, EVENT_TIMESTAMP, finish_rows, finish_texts
from forebay.core.threads import on_threads
from forebay.core.values import FeatureColumn
from forebay.history.archived import LARGE_PIECE_ROWS, LOOKED_UP_MAX, PIECE_ROWS
from forebay.history.laid_beside import LaidBeside
from forebay.history.rows_asked import RowsAsked
from forebay.ingest.batch import INSTANT
from forebay.language.types import StringType
from forebay.language.view import BatchView
from forebay.offline.clustering import Clustering, Hashes
from forebay.offline.rows_table import SUPERSEDED_TIMESTAMP
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
Made = TypeVar("Made")


class StoredRows(Protocol):
    """Stored rows with numbers: `forebay.offline.numbered` or, cut into files, `forebay.offline.spill`."""

    rows: int

    def each_piece(
        self, columns: Sequence[str], make: Callable[[int, pa.Table], Made], rows_least: int
    ) -> Iterator[Made]:
        """What is made of columns of all rows in pieces of at least so many, each with the number of its first row."""
        ...

    def each_taken(
        self, numbers: Ints, columns: Sequence[str], make: Callable[[slice, pa.Table], Made]
    ) -> Iterator[Made]:
        """What is made of columns of some rows, piece by piece, each with its part of `numbers`, which ascend."""
        ...


def answer_rows(
    store: OfflineStore, view: BatchView, asked: RowsAsked, names: Sequence[str], *, known: bool, bare: bool = False
) -> list[FeatureColumn]:
    """The features of rows of (entity, instant): as known then, or as of then."""
    table, before = store.rows(view), until(int(asked.instants_us.max(initial=0)))
    hashes = _hashes(view, asked.keyed.keys)
    with ExitStack() as stack:
        current = stack.enter_context(table.table.numbered(before, hashes, store.threads))
        past = stack.enter_context(table.superseded.numbered(before, hashes, store.threads)) if known else None
        columns = answer_stored(view, current, past, asked, names, store.threads, bare=bare)
    if known:
        table.check_known(int(asked.instants_us.min(initial=2**62)))
    return columns


def answer_stored(
    view: BatchView,
    current: StoredRows,
    past: StoredRows | None,
    asked: RowsAsked,
    names: Sequence[str],
    threads: int,
    *,
    bare: bool = False,
) -> list[FeatureColumn]:
    """The features of rows of (entity, instant), out of stored rows and, for what was known, those superseded.

    So many `threads` lay them beside the rows that ask.
    """
    rows, event_us = _holding(view, current, past, asked)
    kinds = {name: view.outputs()[name].type for name in names}
    texts = [name for name in names if bare and isinstance(kinds[name], StringType)]
    laid = LaidBeside(rows, {name: kind for name, kind in kinds.items() if name not in texts}, texts)
    mine = int(np.searchsorted(laid.numbers, current.rows))
    parts = [*current.each_taken(laid.numbers[:mine], names, laid.put)]
    if past is not None:
        parts += past.each_taken(laid.numbers[mine:] - current.rows, names, partial(laid.put, after=mine))
    columns = laid.columns(parts)
    finished = finish_rows(view, columns, event_us, asked.instants_us, list(columns), threads=threads, bare=bare)
    taken = dict(zip(texts, on_threads(partial(laid.text, parts), texts, threads), strict=True))
    finished += finish_texts(view, taken, event_us, asked.instants_us)
    by_name = {column.feature.name: column for column in finished}
    return [by_name[name] for name in names]


def _holding(view: BatchView, current: StoredRows, past: StoredRows | None, asked: RowsAsked) -> tuple[Ints, Ints]:
    """The number (of one that was replaced: after the current ones) and the instant of the row that holds for each."""
    stored, known = current.rows + (0 if past is None else past.rows), past is not None
    lookup, best, keeping = asked.lookup(view.entity, stored), AsOf(asked.places, stored), Lock()

    def offer(rows: _Narrow) -> None:
        counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
        sought = best.sought(rows.code, counts_us)
        with keeping:
            best.keep(sought, rows.event_us, rows.created_us, rows.numbers)

    def offer_replaced(rows: _Narrow) -> None:
        counts_us, numbers = np.maximum(rows.event_us, rows.created_us), current.rows + rows.numbers
        with keeping:
            best.offer_until(rows.code, counts_us, rows.until_us, rows.event_us, rows.created_us, numbers)

    for _ in _narrow(current, lookup, offer):
        pass
    if past is not None:
        for _ in _narrow(past, lookup, offer_replaced, superseded=True):
            pass
    return best.holding()


def effective_instants(store: OfflineStore, view: BatchView, key: str, end_us: int, *, known: bool) -> Ints:
    """The instants before `end_us` from which on rows of an entity count, or count no more."""
    table, lookup, found = store.rows(view), KeyLookup(view.entity, [key]), [np.empty(0, np.int64)]
    for lake, superseded in ((table.table, False), *(((table.superseded, True),) if known else ())):

        def instants(rows: _Narrow, superseded: bool = superseded) -> Ints:
            counts_us = np.maximum(rows.event_us, rows.created_us) if known else rows.event_us
            return np.concatenate([us[rows.code == 0] for us in (counts_us, rows.until_us)[: 1 + superseded]])

        with lake.numbered(until(end_us), _hashes(view, [key]), store.threads) as stored_rows:
            found += _narrow(stored_rows, lookup, instants, superseded=superseded)
    return np.concatenate(found)


def until(end_us: int) -> pc.Expression:
    """The rows that hold at an instant or before it."""
    return pc.field(EVENT_TIMESTAMP) <= pa.scalar(end_us, INSTANT)


def _hashes(view: BatchView, keys: list[str]) -> Hashes | None:
    """Where the rows of a few entities lie; of more, everything is read."""
    if len(keys) > LOOKED_UP_MAX:
        return None
    return Clustering(tuple(view.entity.keys)).of(KeyLookup(view.entity, keys).columns)


@dataclass(frozen=True)
class _Narrow:
    """Stored rows by what decides which holds."""

    code: Ints
    event_us: Ints
    created_us: Ints
    until_us: Ints
    numbers: Ints


def _narrow(
    stored_rows: StoredRows, lookup: KeyLookup, make: Callable[[_Narrow], Made], *, superseded: bool = False
) -> Iterator[Made]:
    """What is made of stored rows, piece by piece."""
    own = [EVENT_TIMESTAMP, CREATED_TIMESTAMP, *([SUPERSEDED_TIMESTAMP] if superseded else [])]

    def made(number: int, rows: pa.Table) -> Made:
        code = lookup.places({name: rows[name] for name in lookup.columns})
        instants = [_us(rows, name) for name in own]
        return make(_Narrow(code, instants[0], instants[1], instants[-1], np.arange(number, number + len(rows))))

    rows_least = LARGE_PIECE_ROWS if lookup.wants_many else PIECE_ROWS
    return stored_rows.each_piece([*lookup.columns, *own], made, rows_least)


def _us(rows: pa.Table, name: str) -> Ints:
    return np.asarray(rows[name].combine_chunks().cast(pa.int64()))
