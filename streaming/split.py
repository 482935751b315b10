"""From the events of a source to the pieces of each writer: `where`, derived columns, keys, slots.

Lives here: running the selectors of a source's views and cutting their events by writer. Every writer gets a piece of
every chunk, also when nothing in it is for its slots, so that the progress of idle slots moves too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa

from forebay.core.events import Events
from forebay.ingest.batch import DEFINED, SOURCE_OFFSET
from forebay.ingest.select import Selector
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from streaming.backlog import Backlog
from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.numbered import Numbered, together
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
    refused: Mapping[int, str] = field(default_factory=dict)
    """Offsets of the chunk that are no events because of the clock."""


class Splitter:
    """Cuts decoded chunks for the writers of a flow. A selector belongs to one thread, so each thread makes its own.

    Not in a `threading.local`: Bytewax's threads begin anew for Python at each call, so it would be empty every time.
    """

    def __init__(self, views: Sequence[WindowedView], writers: int, backlog: Backlog) -> None:
        self._views, self._writers, self._backlog = views, writers, backlog
        self._selectors: dict[int, dict[str, dict[str, Selector]]] = {}

    def __call__(self, items: Sequence[Decoded | Heartbeat]) -> list[Piece | Heartbeat]:
        """A piece of each item for each writer, in their order; none where the source has no windowed view.

        Small items of one source are gone through as one (`numbered.py`).
        """
        return [piece for some in together(items, _alike, _size) for piece in self._pieces(some)]

    def _pieces(self, items: Sequence[Decoded | Heartbeat]) -> Iterator[Piece | Heartbeat]:
        if isinstance(items[0], Heartbeat):
            yield from (replace(items[0], writer=writer) for writer in range(self._writers))
            return
        chunks = [item for item in items if isinstance(item, Decoded)]
        selectors = self._mine().get(chunks[0].batch.source.name, {})
        if selectors:
            rows, table = _whole([decoded.batch.table for decoded in chunks])
            cut = {key: self._cut(selector, table, rows) for key, selector in selectors.items()}
            for n, decoded in enumerate(chunks):
                yield from self._pieces_of(decoded, {key: parts[n] for key, parts in cut.items()})

    def _cut(self, selector: Selector, table: pa.Table, rows: Numbered | None) -> Sequence[Sequence[Events]]:
        """The events of a view in each chunk, of each writer."""
        by_writer = split(selector.select(table.select(selector.columns)), self._writers)
        if rows is None:
            return [by_writer]
        alone = self._writers == 1
        return [*zip(*(_by_stretch(rows, events, share_keys=alone) for events in by_writer), strict=True)]

    def _pieces_of(self, decoded: Decoded, cut: Mapping[str, Sequence[Events]]) -> Iterator[Piece]:
        batch, size = decoded.batch, -(-len(decoded.batch) // self._writers)
        self._backlog.add("online", size * self._writers)
        refused = {letter.offset: letter.reason for letter in decoded.dead if letter.reason in DEFINED}
        for writer in range(self._writers):
            yield Piece(
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

    def _mine(self) -> dict[str, dict[str, Selector]]:
        """The selectors of this thread, by source and view."""
        mine = self._selectors.get(threading.get_ident())
        if mine is None:
            mine = {}
            for view in self._views:
                mine.setdefault(view.source.name, {})[view.key] = Selector(view)
            self._selectors[threading.get_ident()] = mine
        return mine


def _alike(item: Decoded | Heartbeat) -> str | None:
    """Chunks that may be cut as one: those of one source."""
    return None if isinstance(item, Heartbeat) or item.archived else item.batch.source.name


def _size(item: Decoded | Heartbeat) -> int:
    return 0 if isinstance(item, Heartbeat) else len(item.batch)


def _whole(tables: Sequence[pa.Table]) -> tuple[Numbered | None, pa.Table]:
    """The rows of some chunks as one table; those of several numbered through, and the numbers for their offsets."""
    if len(tables) == 1:
        return None, tables[0]
    rows = Numbered.of([np.asarray(table[SOURCE_OFFSET]) for table in tables])
    table = pa.concat_tables(tables).combine_chunks()
    return rows, table.set_column(table.schema.get_field_index(SOURCE_OFFSET), SOURCE_OFFSET, pa.array(rows.rows))


def _by_stretch(rows: Numbered, events: Events, *, share_keys: bool) -> list[Events]:
    """The events of each stretch, at the offsets that they have there.

    Their entities are those of all of them, or each has its own: a piece that goes to another worker is pickled by
    itself, and would take the others' along.
    """
    spans, _ = rows.spans(events.offset), events.slots  # known to all parts, once it is known here
    whole = events.at(rows.offsets[events.offset])
    if share_keys:
        return [whole.part(span) for span in spans]
    return [whole.take(np.arange(span.start, span.stop)) for span in spans]
