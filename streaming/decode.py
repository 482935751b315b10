"""From raw events to columns: the first step of the flow.

Lives here: calling ingest on a chunk, and judging which events are late and which are duplicates. An event that cannot
be one becomes a dead letter; nothing here raises for what is in a log. Below the archive's position nothing is judged
anew: an event is what the archive holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.ingest.arrow import conform
from forebay.ingest.batch import EVENT_ID, SOURCE_OFFSET, DeadLetter, EventBatch, event_schema
from forebay.ingest.dedupe import Dedupe
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Codec, Messages, decode_rows
from forebay.language.source import EventSource
from forebay.stores.archived_offsets import ArchivedOffsets
from streaming.chunk import Chunk
from streaming.lateness import INT64_MIN, late_rows
from streaming.remembered import Remembered, fresh_dedupe

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Decoded:
    """The events of a chunk as columns, its dead letters, which events are late, and how many duplicates went."""

    batch: EventBatch
    dead: list[DeadLetter]
    ts: npt.NDArray[np.int64]
    late: Mask
    duplicates: int

    @property
    def newest_us(self) -> int:
        """The newest event; INT64_MIN where there is none."""
        return int(self.ts.max(initial=INT64_MIN))


@dataclass
class _Seen:
    """How far a partition was archived before this flow and what of that counts, the newest event up to there or up to
    what was read since, and what duplicates are known by.
    """

    archived: int
    held: ArchivedOffsets
    newest_us: int
    dedupe: Dedupe | None


class Decoder:
    """Decodes the chunks of a flow; a partition's chunks come in order."""

    def __init__(
        self,
        limits: Mapping[str, Mapping[str, int]],
        remembered: Callable[[EventSource, str], Remembered],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        codecs: Mapping[str, Codec] | None = None,
    ) -> None:
        self._limits, self._remembered, self._now_us = limits, remembered, now_us
        self._codecs = codecs or {}
        self._seen: dict[tuple[str, str], _Seen] = {}

    def __call__(self, chunk: Chunk) -> Decoded:
        """The columns of one chunk."""
        batch, dead = self._ingest(chunk)
        seen, ts, offsets = self._seen_of(chunk), instants(batch), np.asarray(batch.table[SOURCE_OFFSET])
        again = int(np.searchsorted(offsets, seen.archived))
        late, repeated = _judged(seen, batch, ts, again)
        counted = ~repeated
        if again:
            counted[:again] = seen.held.hold(offsets[:again])
        if not counted.all():
            batch = replace(batch, table=batch.table.filter(pa.array(counted)))
            ts, late = ts[counted], late[counted]
        return Decoded(batch, dead, ts, late, int(repeated.sum()))

    def _ingest(self, chunk: Chunk) -> tuple[EventBatch, list[DeadLetter]]:
        source, limits = chunk.source, self._limits.get(chunk.source.name, {})
        if not len(chunk):
            nothing = event_schema(source).empty_table()
            return EventBatch(source, chunk.partition, nothing, chunk.first_offset, chunk.next_offset), []
        if chunk.table is not None:
            return conform(source, chunk.partition, chunk.first_offset, chunk.table, self._now_us(), limits)
        if source.name in self._codecs:
            rows = self._codecs[source.name](chunk.lines)
            messages = Messages(source, chunk.partition, chunk.first_offset, chunk.lines, chunk.offsets)
            return decode_rows(messages, rows, self._now_us(), limits)
        return decode_json(
            source, chunk.partition, chunk.first_offset, chunk.lines, self._now_us(), limits, offsets=chunk.offsets
        )

    def _seen_of(self, chunk: Chunk) -> _Seen:
        where = (chunk.source.name, chunk.partition)
        if where not in self._seen:
            known = self._remembered(chunk.source, chunk.partition)
            dedupe = fresh_dedupe(chunk.source) if known.dedupe is None else known.dedupe
            self._seen[where] = _Seen(known.next_offset, known.held, known.newest_us, dedupe)
        return self._seen[where]


def _judged(seen: _Seen, batch: EventBatch, ts: npt.NDArray[np.int64], since: int) -> tuple[Mask, Mask]:
    """Which events of a batch are late and which are duplicates; those before row `since` were judged once."""
    late, repeated = np.zeros(len(ts), np.bool_), np.zeros(len(ts), np.bool_)
    if since < len(ts):
        late[since:] = late_rows(ts[since:], seen.newest_us, batch.source.lateness_us)
        seen.newest_us = max(seen.newest_us, int(ts[since:].max()))
        if seen.dedupe is not None:
            repeated[since:] = seen.dedupe(ts[since:], batch.table[EVENT_ID].slice(since))
    return late, repeated


def instants(batch: EventBatch) -> npt.NDArray[np.int64]:
    """The timestamps of a batch in microseconds."""
    column = batch.table[batch.source.timestamp]
    return column.cast(pa.int64()).to_numpy() if batch.table.num_rows else np.empty(0, np.int64)
