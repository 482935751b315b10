"""From the events of a source to the pieces of each writer: `where`, derived columns, keys, slots.

Lives here: running the selectors of a source's views and cutting their events by writer. Every writer gets a piece of
every chunk, also when nothing in it is for its slots, so that the progress of idle slots moves too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from forebay.ingest.select import Selector

from forebay.core.events import Events
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from streaming.backlog import Backlog
from streaming.decode import Decoded
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
    """Events in the whole chunk: what the writer still has before it, counted."""


class Splitter:
    """Cuts decoded chunks for the writers of a flow."""

    def __init__(self, views: Sequence[WindowedView], writers: int, backlog: Backlog) -> None:
        self._writers, self._backlog = writers, backlog
        self._selectors: dict[str, dict[str, Selector]] = {}
        for view in views:
            self._selectors.setdefault(view.source.name, {})[view.key] = Selector(view)

    def __call__(self, decoded: Decoded) -> list[Piece]:
        """A piece for each writer, in their order; none where the source has no windowed view."""
        batch = decoded.batch
        selectors = self._selectors.get(batch.source.name)
        if selectors is None:
            return []
        self._backlog.add(len(batch) * self._writers)
        cut = {key: split(selector.select(batch.table), self._writers) for key, selector in selectors.items()}
        return [
            Piece(
                writer,
                batch.source,
                batch.partition,
                batch.first_offset,
                batch.next_offset,
                decoded.newest_us,
                {key: events[writer] for key, events in cut.items()},
                len(batch),
            )
            for writer in range(self._writers)
        ]
