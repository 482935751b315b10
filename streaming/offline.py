"""The offline store, as the flow sees it: events with what belongs to them, and partials where they are missing.

Lives here: which tables a flow appends to, in which order, and what it knows of their positions. Order of a chunk:
repair marks, dead letters, archive; a crash in between repeats the first two, and dead letters are dropped by their
position. After the archive has an event its published cuts are looked at once more, because a publication may have
moved one meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from forebay.errors import FencedError
from forebay.ingest.batch import SOURCE_OFFSET
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.stores.archive import SOURCE_PARTITION, Appended, Archive
from forebay.stores.tables import OfflineStore
from forebay.stores.tiles_table import StreamedTable
from streaming.decode import Decoded
from streaming.lateness import INT64_MIN, dates_of
from streaming.partials import Partials, ends, missing

LATE, BEFORE_CUT = "late", "before the cut"
REFOLDS_MAX = 5
"""Times that another flow may move a table's positions under an append; it is fenced online, so it ends soon."""


@dataclass(frozen=True)
class Added:
    """What an append of chunks of one source added to the archive."""

    events: int
    late: int
    dead: list[str]


@dataclass
class Offline:
    """The tables of a flow. Its appends come from one thread; each may be repeated after an error."""

    store: OfflineStore
    cut_us: Callable[[EventSource], int]
    """The newest published cut of a source's views; INT64_MIN where nothing is published."""
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    _archives: dict[str, Archive] = field(default_factory=dict)
    _archived: dict[tuple[str, str], int] = field(default_factory=dict)
    _tables: dict[str, StreamedTable] = field(default_factory=dict)
    _positions: dict[str, dict[str, int]] = field(default_factory=dict)

    def archived(self, source: EventSource) -> dict[str, tuple[int, int]]:
        """How far each partition is archived: the next offset, and the newest event (INT64_MIN: none)."""
        found = self._archive(source).positions()
        self._archived |= {(source.name, name): position.next_offset for name, position in found.items()}
        return {
            name: (position.next_offset, INT64_MIN if position.newest_us is None else position.newest_us)
            for name, position in found.items()
        }

    def streamed(self, view: WindowedView) -> dict[str, int]:
        """How far each lane and partition is in a view's streamed tiles."""
        self._tables[view.key] = self.store.streamed(view)
        self._positions[view.key] = self._tables[view.key].positions()
        return dict(self._positions[view.key])

    def first_offsets(self, source: EventSource, since_us: int) -> dict[str, int]:
        """For each partition, the least offset of the archived events that are not before an instant."""
        events = self._archive(source).scan([SOURCE_PARTITION, SOURCE_OFFSET], since_us)
        least = events.group_by(SOURCE_PARTITION).aggregate([(SOURCE_OFFSET, "min")])
        return dict(zip(least[SOURCE_PARTITION].to_pylist(), least[f"{SOURCE_OFFSET}_min"].to_pylist(), strict=True))

    def append_events(self, chunks: Sequence[Decoded]) -> Added:
        """Make the events and dead letters of some chunks of one source durable, and mark what they make wrong."""
        source = chunks[0].batch.source
        now_us, cut_us = self.now_us(), self.cut_us(source)
        late = [(source.name, day, LATE) for chunk in chunks for day in chunk.late_dates]
        before = self._marks_before(cut_us, chunks)
        self.store.repairs().append(sorted({*late, *before}), now_us)
        letters = [letter for chunk in chunks for letter in chunk.dead]
        self.store.dead_letters().append(letters, now_us)
        appended = self._archive(source).append([chunk.batch for chunk in chunks], now_us)
        moved_us = self.cut_us(source)
        if moved_us > cut_us:
            self.store.repairs().append(sorted({*self._marks_before(moved_us, chunks)} - {*before}), now_us)
        for chunk in chunks:
            self._archived[source.name, chunk.batch.partition] = chunk.batch.next_offset
        return _added(chunks, appended)

    def append_partials(self, partials: Sequence[Partials]) -> None:
        """Append the tiles that a view's table lacks, with the positions that they bring it to."""
        key = partials[0].view.key
        for attempt in range(REFOLDS_MAX):
            known = self._positions[key]
            after = ends(partials, known)
            rows = [row for piece in partials if (row := missing(piece, known)) is not None]
            try:
                self._tables[key].append(rows, {name: (known.get(name, 0), to) for name, to in after.items()})
            except FencedError:
                self._positions[key] = self._tables[key].positions()
                if attempt == REFOLDS_MAX - 1:
                    raise
            else:
                self._positions[key] = known | after
                return

    def _archive(self, source: EventSource) -> Archive:
        if source.name not in self._archives:
            self._archives[source.name] = self.store.archive(source)
        return self._archives[source.name]

    def _marks_before(self, cut_us: int, chunks: Sequence[Decoded]) -> list[tuple[str, str, str]]:
        """Marks for the events before a cut that the archive did not hold before these chunks."""
        marks = []
        for chunk in chunks:
            source, partition = chunk.batch.source.name, chunk.batch.partition
            early = chunk.ts < cut_us
            if early.any():
                early &= np.asarray(chunk.batch.table[SOURCE_OFFSET]) >= self._archived.get((source, partition), 0)
                marks += [(source, day, BEFORE_CUT) for day in dates_of(chunk.ts[early])]
        return marks


def _added(chunks: Sequence[Decoded], appended: Appended) -> Added:
    dead = [
        letter.reason
        for chunk in chunks
        for letter in chunk.dead
        if letter.offset >= appended.since.get(letter.partition, 0)
    ]
    return Added(appended.rows, sum(chunk.late for chunk in chunks), dead)
