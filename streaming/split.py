"""From the events of a source to the pieces of each writer: `where`, derived columns, keys, slots.

Lives here: running the selectors of a source's views and cutting their events by writer. Every writer gets a piece of
every chunk, also when nothing in it is for its slots, so that the progress of idle slots moves too.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from forebay.core.events import Events
from forebay.ingest.batch import FUTURE
from forebay.ingest.select import Selector
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from streaming.backlog import Backlog
from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.routing import split


@dataclass(frozen=True)
class Piece:
    """What one chunk holds for one writer: per view of the source the events of its slots, and the offsets covered."""

    writer: int
    source: EventSource
    partition: str
    first_offset: int
    next_offset: int
    newest_us: int
    events: Mapping[str, Events]
    size: int
    """The writer's share of the events of the chunk, as the backlog counts them."""
    refused: Sequence[int] = ()
    """Offsets of the chunk that are no events because of the clock."""


class Splitter:
    """Cuts decoded chunks for the writers of a flow. A selector belongs to one thread, so each thread makes its own.

    Not in a `threading.local`: Bytewax's threads begin anew for Python at each call, so it would be empty every time.
    """

    def __init__(self, views: Sequence[WindowedView], writers: int, backlog: Backlog) -> None:
        self._views, self._writers, self._backlog = views, writers, backlog
        self._selectors: dict[int, dict[str, dict[str, Selector]]] = {}

    def __call__(self, decoded: Decoded | Heartbeat) -> list[Piece | Heartbeat]:
        """A piece for each writer, in their order; none where the source has no windowed view."""
        if isinstance(decoded, Heartbeat):
            return [replace(decoded, writer=writer) for writer in range(self._writers)]
        batch = decoded.batch
        selectors = self._mine().get(batch.source.name, {})
        if not selectors:
            return []
        cut = {
            key: split(selector.select(batch.table.select(selector.columns)), self._writers)
            for key, selector in selectors.items()
        }
        size = -(-len(batch) // self._writers)
        self._backlog.add("online", size * self._writers)
        refused = [letter.offset for letter in decoded.dead if letter.reason == FUTURE]
        return [
            Piece(
                writer,
                batch.source,
                batch.partition,
                batch.first_offset,
                batch.next_offset,
                decoded.newest_us,
                {key: events[writer] for key, events in cut.items()},
                size,
                refused,
            )
            for writer in range(self._writers)
        ]

    def _mine(self) -> dict[str, dict[str, Selector]]:
        """The selectors of this thread, by source and view."""
        mine = self._selectors.get(threading.get_ident())
        if mine is None:
            mine = {}
            for view in self._views:
                mine.setdefault(view.source.name, {})[view.key] = Selector(view)
            self._selectors[threading.get_ident()] = mine
        return mine
