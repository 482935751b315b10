"""From raw events to columns: the first step of the flow.

Lives here: calling ingest on chunks, and judging which events are late and which are duplicates. An event that cannot
be one becomes a dead letter; nothing here raises for what is in a log. What comes from the archive is judged already.
Small chunks of several partitions are decoded as one (`numbered.py`), and judged each by its own partition. What
duplicates of a partition are known by is let go of when nothing has come of it for a while, and read from the archive
when something does (docs/adr/0270).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.ingest.admit import JUDGE, Clock
from forebay.ingest.arrow import conform
from forebay.ingest.batch import (
    EVENT_BYTES_MAX,
    EVENT_ID,
    REVIVED_BYTES_MAX,
    SOURCE_OFFSET,
    DeadLetter,
    EventBatch,
    event_schema,
)
from forebay.ingest.dedupe import Dedupe
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Codec, Messages, decode_rows
from forebay.ingest.select import int64_of
from forebay.language.limits import Limit
from forebay.language.source import EventSource
from forebay.offline.archive import REVIVED, PartitionPosition
from streaming.chunk import Chunk
from streaming.lateness import INT64_MIN, late_rows
from streaming.numbered import Numbered, together
from streaming.remembered import Remembered, Settled, fresh_dedupe

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Ingested = tuple[EventBatch, list[DeadLetter]]
"""The events of a chunk, and its dead letters."""
Recall = Callable[[EventSource, str, PartitionPosition], Dedupe]
"""What duplicates of a partition are known by, before a position."""
DORMANT_S = 600.0
"""What nothing came of for so long is let go of: long since archived."""
EVENT_BYTES = 1024
"""What an event that waits may take, and not more, by and large."""


@dataclass(frozen=True)
class Decoded:
    """The events of a chunk as columns, its dead letters, which events are late, how many duplicates went, and whether
    all of it comes from the archive.
    """

    batch: EventBatch
    dead: list[DeadLetter]
    ts: npt.NDArray[np.int64]
    late: Mask
    duplicates: int
    archived: bool = False

    @property
    def weight(self) -> int:
        """What it counts in the backlog: a dead letter is an event, and may be a thousand times as large as one."""
        return len(self.batch) + sum(1 + len(letter.raw) // EVENT_BYTES for letter in self.dead)

    @property
    def newest_us(self) -> int:
        """The newest event; INT64_MIN where there is none, or where it says nothing of the log."""
        return INT64_MIN if self.batch.partition == REVIVED else int(self.ts.max(initial=INT64_MIN))


@dataclass
class _Seen:
    """The newest event of a partition up to what was read, what duplicates are known by, and what was settled of
    offsets that are read again.
    """

    newest_us: int
    dedupe: Dedupe | None
    settled: Settled
    used_s: float = 0.0


class Decoder:
    """Decodes the chunks of a flow; a partition's chunks come in order."""

    def __init__(
        self,
        limits: Mapping[str, Mapping[str, Limit]],
        remembered: Callable[[EventSource, str], Remembered],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        codecs: Mapping[str, Codec] | None = None,
        recall: Recall | None = None,
    ) -> None:
        self._limits, self._remembered, self._now_us = limits, remembered, now_us
        self._codecs, self._recall = codecs or {}, recall
        self._seen: dict[tuple[str, str], _Seen] = {}
        self._looked_s = time.monotonic()

    def __call__(self, chunks: Sequence[Chunk]) -> list[Decoded]:
        """The columns of each of some chunks."""
        decoded: list[Decoded] = []
        for some in together(chunks, _alike, _weight):
            if some[0].archived:
                decoded += map(_as_archived, some)
            else:
                decoded += [self._decoded(*one) for one in zip(some, self._ingested(some), strict=True)]
        self._let_go(time.monotonic())
        return decoded

    def _decoded(self, chunk: Chunk, ingested: Ingested) -> Decoded:
        batch, dead = ingested
        # offsets may have gaps behind the last event too
        batch = replace(batch, next_offset=chunk.next_offset, bookmark=chunk.bookmark)
        ts = instants(batch)
        late, repeated = _judged(self._awake(chunk), batch, ts)
        if repeated.any():
            batch = replace(batch, table=batch.table.filter(pa.array(~repeated)))
            ts, late = ts[~repeated], late[~repeated]
        return Decoded(batch, dead, ts, late, int(repeated.sum()))

    def _ingested(self, chunks: Sequence[Chunk]) -> Sequence[Ingested]:
        """The events and dead letters of each; of several, whose rows are numbered through, at once."""
        now_us = self._now_us()
        clocks = [self._seen_of(chunk).settled.clock(now_us, chunk.first_offset) for chunk in chunks]
        if len(chunks) == 1:
            return [self._ingest(chunks[0], clocks[0])]
        rows = Numbered.of([chunk.positions for chunk in chunks])
        lines = [line for chunk in chunks for line in chunk.lines]
        whole = Chunk(chunks[0].source, "", 0, len(lines), lines=lines)
        return _apart(chunks, rows, *self._ingest(whole, _clock_of(rows, clocks, now_us)))

    def _ingest(self, chunk: Chunk, clock: int | Clock) -> Ingested:
        source, limits = chunk.source, self._limits.get(chunk.source.name, {})
        if not len(chunk):
            nothing = event_schema(source).empty_table()
            return EventBatch(source, chunk.partition, nothing, chunk.first_offset, chunk.next_offset), []
        if chunk.table is not None:
            return conform(source, chunk.partition, chunk.first_offset, chunk.table, clock, limits)
        if source.name in self._codecs and chunk.partition != REVIVED:
            rows = self._codecs[source.name](chunk.lines)
            messages = Messages(source, chunk.partition, chunk.first_offset, chunk.lines, chunk.offsets)
            return decode_rows(messages, rows, clock, limits)
        most = REVIVED_BYTES_MAX if chunk.partition == REVIVED else EVENT_BYTES_MAX
        place = chunk.partition, chunk.first_offset
        return decode_json(source, *place, chunk.lines, clock, limits, offsets=chunk.offsets, bytes_max=most)

    def _seen_of(self, chunk: Chunk) -> _Seen:
        where = (chunk.source.name, chunk.partition)
        if where not in self._seen:
            known = self._remembered(chunk.source, chunk.partition)
            self._seen[where] = _Seen(known.newest_us, known.dedupe, known.settled)
        return self._seen[where]

    def _awake(self, chunk: Chunk) -> _Seen:
        """What was seen of a partition before a chunk that is judged now, with what duplicates are known by."""
        seen = self._seen_of(chunk)
        seen.used_s = time.monotonic()
        if seen.dedupe is None and chunk.partition != REVIVED:
            seen.dedupe = fresh_dedupe(chunk.source)
            if seen.dedupe is not None and seen.newest_us != INT64_MIN and self._recall is not None:
                position = PartitionPosition(chunk.first_offset, seen.newest_us)
                seen.dedupe = self._recall(chunk.source, chunk.partition, position)
        return seen

    def _let_go(self, now_s: float) -> None:
        """Let go of what duplicates are known by, of partitions that nothing came of for long; seldom."""
        if self._recall is None or now_s - self._looked_s < DORMANT_S / 10:
            return
        self._looked_s = now_s
        for seen in self._seen.values():
            if now_s - seen.used_s > DORMANT_S:
                seen.dedupe = None


def _alike(chunk: Chunk) -> str | None:
    """Chunks that may be decoded as one: messages of one source."""
    return chunk.source.name if chunk.lines and chunk.partition != REVIVED else None


def _weight(chunk: Chunk) -> int:
    return chunk.weight


def _as_archived(chunk: Chunk) -> Decoded:
    """What was decoded and judged when it was archived."""
    batch = EventBatch(chunk.source, chunk.partition, chunk.table, chunk.first_offset, chunk.next_offset)
    return Decoded(batch, [], instants(batch), np.zeros(len(batch), np.bool_), 0, archived=True)


def _apart(chunks: Sequence[Chunk], rows: Numbered, whole: EventBatch, dead: Sequence[DeadLetter]) -> list[Ingested]:
    """What was ingested as one, by chunk, at the offsets that it has there."""
    numbers = np.asarray(whole.table[SOURCE_OFFSET])
    column = whole.table.schema.get_field_index(SOURCE_OFFSET)
    table = whole.table.set_column(column, SOURCE_OFFSET, pa.array(rows.offsets[numbers]))
    letters: list[list[DeadLetter]] = [[] for _ in chunks]
    for letter in dead:
        place, offset = rows.place(letter.offset)
        letters[place].append(replace(letter, partition=chunks[place].partition, offset=offset))
    return [
        (EventBatch(chunk.source, chunk.partition, table[span], chunk.first_offset, chunk.next_offset), some)
        for chunk, span, some in zip(chunks, rows.spans(numbers), letters, strict=True)
    ]


def _clock_of(rows: Numbered, clocks: Sequence[int | Clock], now_us: int) -> int | Clock:
    """The clock of rows that are numbered through, each of which is judged by the clock of its own chunk."""
    if all(isinstance(clock, int) for clock in clocks):
        return now_us

    def settled(numbers: Ints) -> Ints:
        spans = zip(clocks, rows.spans(numbers), strict=True)
        return np.concatenate([_settled_by(clock, rows.offsets[numbers[span]]) for clock, span in spans])

    return Clock(now_us, settled)


def _settled_by(clock: int | Clock, offsets: Ints) -> Ints:
    return np.full(len(offsets), JUDGE, np.int64) if isinstance(clock, int) else clock.settled(offsets)


def _judged(seen: _Seen, batch: EventBatch, ts: npt.NDArray[np.int64]) -> tuple[Mask, Mask]:
    """Which events of a batch are late and which are duplicates; what was revived is late by nature, and distinct."""
    if batch.partition == REVIVED:
        return np.ones(len(ts), np.bool_), np.zeros(len(ts), np.bool_)
    late = late_rows(ts, seen.newest_us, batch.source.lateness_us)
    seen.newest_us = max(seen.newest_us, int(ts.max(initial=INT64_MIN)))
    if seen.dedupe is None:
        return late, np.zeros(len(ts), np.bool_)
    return late, seen.dedupe(ts, batch.table[EVENT_ID])


def instants(batch: EventBatch) -> npt.NDArray[np.int64]:
    """The timestamps of a batch in microseconds."""
    return int64_of(batch.table[batch.source.timestamp])
