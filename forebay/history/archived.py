"""The archived events of a view, for the entities of one call.

    row groups   →   some at a time, each time by one of several threads: read, found among the keys, made columns of

May live here: reading the archive piece by piece into the core's columns, so that neither columns that no asked feature
needs nor events of entities that nobody asks about pile up in memory. What is made of the events is not decided here.

Invariants: pieces come in the order of the files, however many threads read; one thread does all by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from forebay.core.arrivals import Arrivals, Arrived
from forebay.core.compiled import can_compile
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.lookup import KeyLookup
from forebay.core.threads import worked_ahead
from forebay.ingest.batch import EVENT_ID
from forebay.ingest.select import ROW_NUMBER, Selector
from forebay.ingest.sessions import Sessionizer, rule_of
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import ARRIVED_AT
from forebay.offline.reading import RowGroup
from forebay.offline.rooted import read_rooted
from forebay.offline.tables import OfflineStore

if TYPE_CHECKING:
    from forebay.core.chunked import Piece

LOOKED_UP_MAX = 1_000
"""So few entities are looked up in the archive; of more, everything within reach is read."""
OTHERS_MAX = 0.25
"""A smaller share of events of other entities is sooner carried along than left out."""
ROOM_MAX = 2**26
"""Events for which room is made at once."""
PIECE_ROWS = 2**17
"""Stored rows that become columns at a time: what is made of them stays in a processor's cache."""
LARGE_PIECE_ROWS = 2_000_000
"""Where Arrow looks keys up, which makes a table of them for each piece."""
Made = TypeVar("Made")
Make = Callable[[Arrived], Made]


class Reader(Protocol):
    """Reads the events of some entities."""

    @property
    def late_ids(self) -> bool:
        """Whether ids can be had later, so that they need not be read where nothing turns on them."""
        ...

    @property
    def threads(self) -> int:
        """How many may work on what is read."""
        ...

    def size(self, source: EventSource) -> int:
        """At most about how many events of a source there are."""
        ...

    def pieces(
        self,
        selector: Selector,
        keys: list[str],
        first_us: int | None,
        end_us: int,
        made: Make[Made],
        others_max: float = 0.0,
    ) -> Iterator[Made]:
        """What is made of each piece (at least one, which may be empty) of the events in `[first, end)` (`None`: all
        before `end`); such a share may be of others.
        """
        ...


@dataclass(frozen=True)
class ArchivedEvents:
    """Reads what is archived."""

    store: OfflineStore
    late_ids = True

    @property
    def threads(self) -> int:
        """Those of the deployment."""
        return self.store.threads

    def size(self, source: EventSource) -> int:
        """What the archive holds."""
        return (self.store.archive(source).size() or (0, 0))[0]

    def pieces(
        self,
        selector: Selector,
        keys: list[str],
        first_us: int | None,
        end_us: int,
        made: Make[Made],
        others_max: float = 0.0,
    ) -> Iterator[Made]:
        """Reads row groups, on several threads. Raises `RequestError` where events were removed that are needed."""
        view = selector.view
        archive = self.store.archive(view.source)
        archive.check_retained(first_us, f"View {view.key!r}")
        asked = KeyLookup(view.entity, keys, self.size(view.source))
        few = len(keys) <= LOOKED_UP_MAX
        reading = archive.reading(selector.columns, first_us, end_us, pa.table(asked.columns) if few else None)
        select = Selecting(selector, asked, (first_us, end_us), 0.0 if few else others_max)

        def make(groups: Sequence[RowGroup]) -> Made:
            def read(columns: Sequence[str] | None = None) -> pa.Table:
                return pa.concat_tables([group.read(columns) for group in groups])

            return made(select(read(), lambda: read([EVENT_ID])))

        yield made(select(reading.schema.empty_table()))
        rows = PIECE_ROWS if can_compile() else LARGE_PIECE_ROWS
        yield from worked_ahead(make, _together(reading.groups(self.threads), rows), self.threads)
        archive.check_retained(first_us, f"View {view.key!r}")


class Selecting:
    """The events of some entities in `[first, end)` in tables, of which several threads may hand in one each.

    Expressions are computed of one table after another.
    """

    def __init__(
        self, selector: Selector, asked: KeyLookup, within_us: tuple[int | None, int], others_max: float = 0.0
    ) -> None:
        self._selector, self._asked, self._within_us, self._others_max = selector, asked, within_us, others_max
        self._computing = Lock()

    def __call__(self, rows: pa.Table, ids: Callable[[], pa.Table] | None = None) -> Arrived:
        """The events of a table; `ids` reads the ids of the same rows."""
        selector = self._selector
        if selector.numbered:
            rows = rows.append_column(ROW_NUMBER, pa.array(np.arange(len(rows))))
        rows = self._within(rows.combine_chunks())
        with self._computing:
            rows = selector.computed(rows)
        (events,) = selector.select_of(self._asked, rows.combine_chunks(), self._others_max)
        return Arrived(events, _LateIds(selector, ids) if selector.numbered and ids else None)

    def _within(self, rows: pa.Table) -> pa.Table:
        first_us, end_us = self._within_us
        us = np.asarray(rows[self._selector.view.source.timestamp].combine_chunks().cast(pa.int64()))
        inside = us < end_us if first_us is None else (us >= first_us) & (us < end_us)
        return rows if inside.all() else rows.filter(pa.array(inside))


class _LateIds:
    """The ids of some rows by their numbers, of a table that is read when it is first asked for."""

    def __init__(self, selector: Selector, read: Callable[[], pa.Table]) -> None:
        self._selector, self._read = selector, read
        self._known: pa.ChunkedArray | None = None

    def __call__(self, numbers: Any) -> Any:
        if self._known is None:
            self._known = self._read()[EVENT_ID]  # two threads may both do it
        return self._selector.ids(self._known.take(pa.array(numbers)).combine_chunks())


def _together(groups: Iterator[RowGroup], rows: int) -> Iterator[list[RowGroup]]:
    """Row groups, so many at a time as have some rows: of small files many."""
    held: list[RowGroup] = []
    for group in groups:
        held.append(group)
        if sum(map(len, held)) >= rows:
            yield held
            held = []
    if held:
        yield held


def reader_of(store: OfflineStore) -> Reader:
    """Reads what is archived."""
    return ArchivedEvents(store)


def read_arrivals(
    read: Reader, view: WindowedView, keys: list[str], start_us: int, end_us: int, names: Sequence[str], to: Arrivals
) -> list[Arrived | Piece]:
    """The events of the entities `keys` that count at instants in `[start_us, end_us]`, as `to` takes them.

    `code` is an index into `keys`, or beyond them: where more than `LOOKED_UP_MAX` are asked for, some events of others
    may be among them.
    """
    selector = Selector(view, names, late_ids=read.late_ids)
    return list(read.pieces(selector, keys, first_counted(view, start_us), end_us, to.take, OTHERS_MAX))


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
    """As `read_arrivals`, in one: all of a view's features or some. Of a view of sessions these are its sessions.

    With `arrivals`, `offset` is the instant at which each event arrived.
    """
    names = list(view.outputs()) if features is None else features
    if view.sessions is not None:
        return Sessionizer(view, names).of(read_unsessionized(read, view, keys, start_us, end_us))
    selector = Selector(view, names, ARRIVED_AT if arrivals else None)
    return _joined(read, selector, keys, first_counted(view, start_us), end_us, OTHERS_MAX)


def _joined(
    read: Reader, selector: Selector, keys: list[str], first_us: int | None, end_us: int, others_max: float = 0.0
) -> Events:
    room = 0 if len(keys) <= LOOKED_UP_MAX else min(read.size(selector.view.source), ROOM_MAX)
    return Events.joined(read.pieces(selector, keys, first_us, end_us, Arrived.whole, others_max), room)


def read_unsessionized(
    read: Reader, view: WindowedView, keys: list[str], start_us: int, end_us: int, *, arrivals: bool = False
) -> Events:
    """The events that the sessions are made of which count at instants in `[start_us, end_us]`."""
    assert view.sessions is not None
    history_us = view.source.history_start_us
    selector = Selector(view, [], ARRIVED_AT if arrivals else None)

    def reading(first_us: int, last_us: int, names: Sequence[str] | None) -> Events:
        return _joined(read, selector, keys if names is None else list(names), first_us, last_us)

    first_us = first_counted(view, start_us)
    needed_us = history_us if first_us is None else first_us
    return read_rooted(rule_of(view.sessions), reading, history_us, needed_us, end_us)[0]


def first_counted(view: WindowedView, start_us: int) -> int | None:
    """The first instant of an event that can count at an instant; `None` where a lifetime counts all."""
    lookback_us = Layout.of(view).lookback_us
    return None if lookback_us is None else start_us - lookback_us
