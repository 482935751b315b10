"""The archived events of a view, for the entities of one call.

May live here: reading the archive piece by piece into the core's columns, so that neither columns that no asked feature
needs nor events of entities that nobody asks about pile up in memory. What is made of the events is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import pyarrow as pa

from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.lookup import KeyLookup
from forebay.history.buckets import in_pieces
from forebay.ingest.select import Selector
from forebay.ingest.sessions import Sessionizer, rule_of
from forebay.language.view import WindowedView
from forebay.offline.archive import ARRIVED_AT
from forebay.offline.rooted import read_rooted
from forebay.offline.row_groups import worked_ahead
from forebay.offline.tables import OfflineStore

LOOKED_UP_MAX = 1_000
"""So few entities are looked up in the archive; of more, everything within reach is read."""
OTHERS_MAX = 0.25
"""A smaller share of events of other entities is sooner carried along than left out."""
ROOM_MAX = 2**26
"""Events for which room is made at once."""
THREADS_MAX = 4
"""Threads that look keys up and make columns, a piece each: with more, reading them in is what takes the time."""
PIECE_ROWS = 2_000_000
"""Rows that become columns at a time: enough for matching their keys with those asked to cost little."""


Reader = Callable[[Selector, list[str], int | None, int, float], Events]
"""Reads the events of some entities in `[first, end)` (`None`: all before `end`); such a share may be of others."""


def reader_of(store: OfflineStore) -> Reader:
    """Reads what is archived."""

    def read(selector: Selector, keys: list[str], first_us: int | None, end_us: int, others_max: float) -> Events:
        view = selector.view
        archive, asked = store.archive(view.source), KeyLookup(view.entity, keys)
        archive.check_retained(first_us, f"View {view.key!r}")
        entities = pa.table(asked.columns) if len(keys) <= LOOKED_UP_MAX else None
        found = archive.pieces(selector.columns, first_us, end_us, entities)
        nothing = archive.table.schema.empty_table().select(selector.columns)
        others, room = (0.0, 0) if entities is not None else (others_max, min((archive.size() or (0, 0))[0], ROOM_MAX))
        tables, threads = chain([nothing], in_pieces(found, PIECE_ROWS)), min(pa.cpu_count(), THREADS_MAX)
        events = selected(selector, asked, tables, others, room, threads)
        archive.check_retained(first_us, f"View {view.key!r}")
        return events

    return read


def read_events(
    read: Reader,
    view: WindowedView,
    keys: list[str],
    start_us: int,
    end_us: int,
    features: Sequence[str] | None = None,
    *,
    arrivals: bool = False,
) -> Events:
    """The events of the entities `keys` that count at instants in `[start_us, end_us]`, for some features of a view.

    Of a view of sessions these are its sessions, whole. `code` is an index into `keys`, or beyond them: where more than
    `LOOKED_UP_MAX` are asked for, some events of others may be among them; with `arrivals`, `offset` is the instant at
    which each arrived.
    """
    names = list(view.outputs()) if features is None else features
    if view.sessions is not None:
        return Sessionizer(view, names).of(read_unsessionized(read, view, keys, start_us, end_us))
    selector = Selector(view, names, ARRIVED_AT if arrivals else None)
    return read(selector, keys, first_counted(view, start_us), end_us, OTHERS_MAX)


def read_unsessionized(
    read: Reader, view: WindowedView, keys: list[str], start_us: int, end_us: int, *, arrivals: bool = False
) -> Events:
    """The events that the sessions are made of which count at instants in `[start_us, end_us]`."""
    assert view.sessions is not None
    history_us = view.source.history_start_us
    selector = Selector(view, [], ARRIVED_AT if arrivals else None)

    def reading(first_us: int, last_us: int, names: Sequence[str] | None) -> Events:
        return read(selector, keys if names is None else list(names), first_us, last_us, 0.0)

    first_us = first_counted(view, start_us)
    needed_us = history_us if first_us is None else first_us
    return read_rooted(rule_of(view.sessions), reading, history_us, needed_us, end_us)[0]


def first_counted(view: WindowedView, start_us: int) -> int | None:
    """The first instant of an event that can count at an instant; `None` where a lifetime counts all."""
    lookback_us = Layout.of(view).lookback_us
    return None if lookback_us is None else start_us - lookback_us


def selected(
    selector: Selector,
    asked: KeyLookup,
    tables: Iterator[pa.Table],
    others: float = 0.0,
    room: int = 0,
    threads: int = 1,
) -> Events:
    """The events of some entities in tables (at least one, which may be empty), as `Selector.select_of` finds them.

    Expressions are computed one table after another; so many threads do the rest, on a table each.
    """

    def select(rows: pa.Table) -> list[Events]:
        return list(selector.select_of(asked, rows, others))

    found = worked_ahead(select, map(selector.computed, tables), threads)
    return Events.joined(chain.from_iterable(found), room)
