"""The offline store, as the flow sees it: events with what belongs to them, and partials where they are missing.

Lives here: which tables a flow appends to, in which order, and what it knows of their positions. Order of a chunk:
repair marks, dead letters, archive; a crash in between repeats the first two, and dead letters are dropped by their
position. After the archive has an event its published cuts are looked at once more, because a publication may have
moved one meanwhile; a flow that begins looks as well, for a predecessor that died before it could (`parts.py`). A
heartbeat moves a quiet partition's watermark only here, between appends, so an event that comes after it is judged
against it (docs/adr/0024).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from forebay.backfill.dates import SessionsOfDates
from forebay.errors import FencedError, StoreUnavailableError
from forebay.ingest.batch import DEFINED, SOURCE_OFFSET, EventBatch, event_schema
from forebay.ingest.dedupe import Dedupe
from forebay.instants import SECOND_US
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import SOURCE_PARTITION, Archive, PartitionPosition
from forebay.offline.dead_letters import DeadLetters
from forebay.offline.repairs import Mark, Repairs
from forebay.offline.replay import Stretches
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_table import StreamedTable
from forebay.online.refusals import Refusals
from forebay.online.source_clock import clock_us
from streaming.archive_log import Archived
from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.lateness import INT64_MIN, dates_of
from streaming.partials import Partials, ends, missing
from streaming.remembered import Remembered, Settled, recall, remember
from streaming.retry import Patience

LATE, BEFORE_CUT = "late", "before the cut"
IDLE_AFTER_US = 60 * SECOND_US
"""A partition that was quiet for so long holds the archive's watermark, and with it the cut, back no longer."""
MARKED_AGAIN_US = 3600 * SECOND_US
"""A date that gets late events all the time is marked once an hour, not with each append."""
REFOLDS_MAX = 5
"""Times that another flow may move a table's positions under an append; it is fenced online, so it ends soon."""


@dataclass(frozen=True)
class Added:
    """What an append of chunks of one source added to the archive."""

    events: int
    late: int
    duplicates: int
    dead: list[str]
    marked: set[str]
    """Dates that were marked for repair."""


@dataclass
class Offline:
    """The tables of a flow. Its appends come from one thread; each may be repeated after an error."""

    store: OfflineStore
    cut_us: Callable[[EventSource], int]
    """The newest published cut of a source's views; INT64_MIN where nothing is published."""
    now_us: Callable[[], int] = lambda: time.time_ns() // 1000
    refusals: Refusals | None = None
    """What was passed online because of the clock; `None` where nothing is written online."""
    _archives: dict[str, Archive] = field(default_factory=dict)
    _known: dict[tuple[str, str], PartitionPosition] = field(default_factory=dict)
    """What this process knows of the archive's positions: it alone moves those of the partitions that it reads."""
    _shared: bool = False
    """Whether other processes of the flow move other partitions."""
    _looked: dict[str, tuple[int, dict[str, PartitionPosition]]] = field(default_factory=dict)
    """When the archive of a source was looked at for those, and what it said."""
    _letters: DeadLetters = field(init=False)
    _tables: dict[str, StreamedTable] = field(default_factory=dict)
    _positions: dict[str, dict[str, int]] = field(default_factory=dict)

    _repairs: Repairs = field(init=False)
    _marked_us: dict[Mark, int] = field(default_factory=dict)
    """When this process marked what it has marked."""

    def __post_init__(self) -> None:
        self._letters, self._repairs = self.store.dead_letters(), self.store.repairs()

    def flow(self, sources: Sequence[EventSource]) -> int:
        """The greatest number of a flow that took the tables of some sources."""
        numbers = [(self._archive(source).flow(), self._letters.flow(source.name)) for source in sources]
        return max(max(pair) for pair in numbers)

    def take(self, sources: Sequence[EventSource], number: int) -> None:
        """Take the tables of some sources: flows with smaller numbers append nothing more. Raises `FencedError`."""
        for source in sources:
            self._archive(source).take(number)
            self._letters.take(source.name, number)

    def share(self, sources: Sequence[EventSource], number: int, worker: int) -> None:
        """Append as one worker of the flow that took the tables with a number."""
        self._shared = True
        for source in sources:
            self._archive(source).share(number, worker)
            self._letters.share(source.name, number, worker)

    def stand(
        self,
        views: Sequence[WindowedView],
        archived: Mapping[tuple[str, str], PartitionPosition],
        streamed: Mapping[str, Mapping[str, int]],
    ) -> None:
        """Go by positions that were read when the flow began."""
        self._known = dict(archived)
        for view in views:
            self._tables[view.key] = self.store.streamed(view)
            self._positions[view.key] = dict(streamed[view.key])

    def archived(self, source: EventSource) -> dict[str, PartitionPosition]:
        """How far each partition is archived."""
        found = self._archive(source).positions()
        self._known |= {(source.name, name): position for name, position in found.items()}
        return found

    def remembered(
        self, source: EventSource, positions: Mapping[str, PartitionPosition], settled: Mapping[str, Settled]
    ) -> dict[str, Remembered]:
        """What the archive remembers of its partitions, and what was settled elsewhere."""
        return remember(self._archive(source), positions, settled)

    def recalled(self, source: EventSource, partition: str, position: PartitionPosition) -> Dedupe:
        """What the archive knows of the duplicates of a partition that was dormant, before a position.

        Raises `StoreUnavailableError` while that is not archived.
        """
        archived = self._known.get((source.name, partition), PartitionPosition()).next_offset
        if archived < position.next_offset:
            raise StoreUnavailableError(
                f"The archive of {source.name!r} has {partition!r} up to offset {archived}, "
                f"not yet {position.next_offset}"
            )
        return recall(self._archive(source), partition, position)

    def refused(self, source: EventSource) -> dict[str, dict[int, str]]:
        """The offsets behind the archive that were refused, online or as dead letters, each by its reason."""
        found = self.refusals.read(source.name) if self.refusals else {}
        since = {name: one.next_offset for (of, name), one in self._known.items() if of == source.name}
        for name, offset, reason in self._letters.refused(source.name, since):
            found.setdefault(name, {})[offset] = reason
        behind = {
            name: {n: reason for n, reason in offsets.items() if n >= since.get(name, 0)}
            for name, offsets in found.items()
        }
        return {name: offsets for name, offsets in behind.items() if offsets}

    def replay(self, source: EventSource, stretches: Stretches, patience: Patience) -> Archived:
        """What the archive holds of stretches of partitions, as the beginning of their log."""
        return Archived(self._archive(source), stretches, patience)

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

    def sessions_since_us(self, view: WindowedView, cut_us: int) -> int:
        """A midnight before all archived events of sessions that are over at or after a cut."""
        return SessionsOfDates(self._archive(view.source), view).since_us(cut_us)

    def begin(self, source: EventSource, firsts: Mapping[str, int]) -> None:
        """Make durable where some partitions begin of which the archive has nothing, before there are events of them.

        What goes from a log behind that is missed, although the first events count online before they are archived.
        May be called while another thread appends.
        """
        none = event_schema(source).empty_table()
        batches = [EventBatch(source, name, none, 0, first) for name, first in firsts.items()]
        self._archive(source).append(batches, self.now_us())

    def append_events(self, chunks: Sequence[Decoded]) -> Added:
        """Make the events and dead letters of some chunks of one source durable, and mark what they make wrong."""
        source = chunks[0].batch.source
        now_us, cut_us = self.now_us(), self.cut_us(source)
        lates = [self._late(chunk) for chunk in chunks]
        days = {day for chunk, late in zip(chunks, lates, strict=True) for day in dates_of(chunk.ts[late])}
        late = [(source.name, day, LATE) for day in days]
        before = self._marks_before(cut_us, chunks)
        self._mark({*late, *before}, now_us)
        letters = [letter for chunk in chunks for letter in chunk.dead]
        self._letters.append(letters, now_us)
        self._archive(source).append([chunk.batch for chunk in chunks], now_us)
        moved_us = self.cut_us(source)
        after = {*self._marks_before(moved_us, chunks)} - {*before} if moved_us > cut_us else set()
        self._mark(after, now_us)
        since = {name: one.next_offset for (of, name), one in self._known.items() if of == source.name}
        for chunk in chunks:
            self._note(chunk)
        if any(letter.reason in DEFINED for letter in letters):
            self._forget_refused(source)
        marked = {day for _, day, _ in (*late, *before, *after)}
        return _added(chunks, since, sum(int(late.sum()) for late in lates), marked)

    def beat(self, heartbeat: Heartbeat) -> bool:
        """Move the partitions that were quiet for IDLE_AFTER, and of which all is archived, on with their source.

        False where there is none to be moved.
        """
        source = heartbeat.source
        to_us, moved = clock_us(self._newest_us(source, heartbeat.seen_us), heartbeat.seen_us), dict[str, int]()
        for name, quiet in heartbeat.ends.items():
            known = self._known.get((source.name, name), PartitionPosition())
            idle = heartbeat.seen_us - quiet.since_us >= IDLE_AFTER_US and known.next_offset >= quiet.next_offset
            if idle and known.watermark_us is not None and to_us > known.watermark_us:
                moved[name] = to_us
        if moved:
            self._archive(source).beat(moved)
        for name, us in moved.items():
            self._known[source.name, name] = replace(self._known[source.name, name], heartbeat_us=us)
        return bool(moved)

    def _newest_us(self, source: EventSource, seen_us: int) -> int:
        """The newest event of a source that is archived; those of other workers' partitions are looked up at times."""
        looked_us, found = self._looked.get(source.name, (INT64_MIN, dict[str, PartitionPosition]()))
        if self._shared and seen_us - looked_us >= IDLE_AFTER_US:
            found = self._archive(source).positions()
            self._looked[source.name] = seen_us, found
        mine = [known for (name, _), known in self._known.items() if name == source.name]
        instants = [known.watermark_us for known in [*mine, *found.values()]]
        return max((us for us in instants if us is not None), default=INT64_MIN)

    def not_archived(self, partials: Sequence[Partials]) -> list[Partials]:
        """Those of some partials, in their order, whose events the archive does not have yet.

        Raises `FencedError` where another flow archives them now.
        """
        found = dict[tuple[str, str], int]()
        early = []
        for one in partials:
            where = one.view.source.name, one.partition
            end = max(found.get(where, 0), self._known.get(where, PartitionPosition()).next_offset)
            if end < one.next_offset and where not in found:
                archive = self._archive(one.view.source)
                archive.check_owned()
                end = found[where] = archive.next_offset(one.partition)
            if end < one.next_offset:
                early.append(one)
        return early

    def append_partials(self, partials: Sequence[Partials]) -> None:
        """Append the tiles that a view's table lacks, with the positions that they bring it to."""
        key = partials[0].view.key
        for attempt in range(REFOLDS_MAX):
            known = self._positions[key]
            after = ends(partials, known)
            rows = missing(partials, known)
            try:
                self._tables[key].append(rows, {name: (known.get(name, 0), to) for name, to in after.items()})
            except FencedError:
                self._positions[key] = self._tables[key].positions()
                if attempt == REFOLDS_MAX - 1:
                    raise
            else:
                self._positions[key] = known | after
                return

    def _mark(self, marks: Collection[Mark], now_us: int) -> None:
        """See that some marks are there: one that was made not long ago is, and who has mended a date leaves it."""
        due = sorted(mark for mark in marks if now_us - self._marked_us.get(mark, 0) >= MARKED_AGAIN_US)
        self._repairs.append(due, now_us)
        self._marked_us |= dict.fromkeys(due, now_us)

    def _late(self, chunk: Decoded) -> npt.NDArray[np.bool_]:
        """Which events are late: behind the newest before them, or behind a heartbeat that was archived before them."""
        known = self._known.get((chunk.batch.source.name, chunk.batch.partition), PartitionPosition())
        if known.heartbeat_us is None or not len(chunk.ts):
            return chunk.late
        new = np.asarray(chunk.batch.table[SOURCE_OFFSET]) >= known.next_offset
        return chunk.late | (new & (chunk.ts < known.heartbeat_us - chunk.batch.source.lateness_us))

    def _forget_refused(self, source: EventSource) -> None:
        """The archive is past some offsets: what else was said of them decides nothing any more."""

        def is_past(partition: str, offset: int) -> bool:
            return offset < self._known.get((source.name, partition), PartitionPosition()).next_offset

        with contextlib.suppress(StoreUnavailableError):  # they may stay
            if self.refusals:
                self.refusals.forget(source.name, is_past)

    def _note(self, chunk: Decoded) -> None:
        """A chunk is archived."""
        where = (chunk.batch.source.name, chunk.batch.partition)
        known = self._known.get(where, PartitionPosition())
        newest_us = known.newest_us
        if chunk.newest_us != INT64_MIN:
            newest_us = chunk.newest_us if newest_us is None else max(newest_us, chunk.newest_us)
        next_offset = max(known.next_offset, chunk.batch.next_offset)
        self._known[where] = PartitionPosition(next_offset, newest_us, known.heartbeat_us)

    def _archive(self, source: EventSource) -> Archive:
        if source.name not in self._archives:
            self._archives[source.name] = self.store.archive(source)
        return self._archives[source.name]

    def _marks_before(self, cut_us: int, chunks: Sequence[Decoded]) -> list[Mark]:
        """Marks for the events before a cut that the archive did not hold before these chunks."""
        marks = []
        for chunk in chunks:
            source, partition = chunk.batch.source.name, chunk.batch.partition
            early = chunk.ts < cut_us
            if early.any():
                known = self._known.get((source, partition), PartitionPosition())
                early &= np.asarray(chunk.batch.table[SOURCE_OFFSET]) >= known.next_offset
                marks += [(source, day, BEFORE_CUT) for day in dates_of(chunk.ts[early])]
        return marks


def _added(chunks: Sequence[Decoded], since: Mapping[str, int], late: int, marked: set[str]) -> Added:
    """What is new behind the offsets that were archived before: also where a first try had added it unheard."""
    new = [np.asarray(chunk.batch.table[SOURCE_OFFSET]) >= since.get(chunk.batch.partition, 0) for chunk in chunks]
    dead = [
        letter.reason for chunk in chunks for letter in chunk.dead if letter.offset >= since.get(letter.partition, 0)
    ]
    events = sum(int(some.sum()) for some in new)
    return Added(events, late, sum(chunk.duplicates for chunk in chunks), dead, marked)
