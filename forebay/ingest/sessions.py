"""From the events of a view of sessions to its sessions: the core's rule, then `where` and derived columns over them.

Stream, backfill, online reads and training all come through here, as they come through `forebay.ingest.select` for the
events themselves. A view without expressions needs no DuckDB; one with them needs it wherever it is read.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.answer import partials_of
from forebay.core.events import Column, Events
from forebay.core.layout import Layout
from forebay.core.sessions import Rule, Sessions, session_events, sessionize
from forebay.ingest.batch import stored_type
from forebay.ingest.convert import decimal_array
from forebay.ingest.select import computed, expressions_of, stored_column, within
from forebay.language.limits import limits_of
from forebay.language.sessions import Sessionize
from forebay.language.types import AnyType, DecimalType, StringType
from forebay.language.view import WindowedView

Ints = npt.NDArray[np.int64]
_ROW = "row"
"""Where a session was before `where`; no column of a session is called so, and no expression sees it."""


def rule_of(sessions: Sessionize) -> Rule:
    """The declared rule as the core takes it."""
    return Rule(sessions.gap_us, sessions.longest_us)


class Sessionizer:
    """Makes the sessions of one view, as its events. Belongs to one thread.

    With `features`, only with the columns that these are computed from.
    """

    def __init__(self, view: WindowedView, features: Sequence[str] | None = None) -> None:
        assert view.sessions is not None
        self.view, self.rule, layout = view, rule_of(view.sessions), Layout.of(view)
        self._expressions = expressions_of(view)
        partials = layout.partials if features is None else partials_of(layout, features)
        self._columns = {p.column: layout.columns[p.column] for p in partials}
        self._limits = limits_of(view)

    def of(self, raw: Events) -> Events:
        """The sessions of events."""
        return self.described(sessionize(self.rule, raw.code, raw.ts), raw.keys)

    def described(self, sessions: Sessions, keys: pa.StringArray) -> Events:
        """Sessions as events of the view: those that `where` lets pass, with the columns that are asked for."""
        events = session_events(self.rule, sessions, keys)
        if self._expressions is None or not len(events):
            return self._with(events, {name: events.columns[name] for name in self._columns if name in events.columns})
        schema = self.view.schema
        table = pa.table({name: _array(schema[name], column) for name, column in events.columns.items()})
        table = computed(self.view, self._expressions, table.append_column(_ROW, pa.array(np.arange(len(events)))))
        kept = _whole(table[_ROW]).to_numpy()
        columns = {name: stored_column(kind, _whole(table[name])) for name, kind in self._columns.items()}
        events = Events(keys, events.code[kept], events.ts[kept], events.ids[kept], events.offset[kept], events.columns)
        return self._with(events, columns)

    def _with(self, events: Events, columns: dict[str, Column]) -> Events:
        for name, kind in self._columns.items():
            if name not in columns:  # a derived column of no sessions
                columns[name] = Column(np.empty(0, kind.storage), np.empty(0, np.bool_))
            if name in self._limits:
                columns[name] = within(columns[name], self._limits[name])
        return Events(events.keys, events.code, events.ts, events.ids, events.offset, columns)


class Sessionizers(threading.local):
    """Sessionizers for whatever views, remembered by each thread for itself."""

    def __init__(self) -> None:
        self._known: dict[str, Sessionizer] = {}

    def of(self, view: WindowedView) -> Sessionizer:
        """That of a view."""
        known = self._known.get(view.key)
        if known is None or known.view is not view:
            known = self._known[view.key] = Sessionizer(view)
        return known


def _array(kind: AnyType, column: Column) -> pa.Array:
    """A column of sessions as events of the archive have it."""
    if isinstance(kind, DecimalType):
        return decimal_array(column.values, column.valid, kind.scale)
    if isinstance(kind, StringType):
        return pa.array(column.values.astype(str), pa.string())
    values: Any = pa.array(column.values)
    return values.cast(stored_type(kind))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
