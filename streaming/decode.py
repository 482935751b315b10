"""From raw events to columns: the first step of the flow.

Lives here: calling ingest on a chunk, and judging which are late. An event that cannot be one becomes a
dead letter; nothing here raises for what is in a log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.ingest.arrow import conform
from forebay.ingest.batch import DeadLetter, EventBatch, event_schema
from forebay.ingest.json import decode_json
from forebay.language.source import EventSource
from streaming.chunk import Chunk
from streaming.lateness import INT64_MIN, dates_of, late_rows


@dataclass(frozen=True)
class Decoded:
    """The events of a chunk as columns, its dead letters, and what is late in it."""

    batch: EventBatch
    dead: list[DeadLetter]
    ts: npt.NDArray[np.int64]
    late: int
    late_dates: list[str]

    @property
    def newest_us(self) -> int:
        """The newest event; INT64_MIN where there is none."""
        return int(self.ts.max(initial=INT64_MIN))


@dataclass
class _Seen:
    """How far a partition was archived before this flow, and the newest event up to there or up to what was read
    since.
    """

    archived: int
    newest_us: int


class Decoder:
    """Decodes the chunks of a flow; a partition's chunks come in order."""

    def __init__(
        self,
        limits: Mapping[str, Mapping[str, int]],
        archived: Callable[[EventSource, str], tuple[int, int]],
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._limits, self._archived, self._now_us = limits, archived, now_us
        self._seen: dict[tuple[str, str], _Seen] = {}

    def __call__(self, chunk: Chunk) -> Decoded:
        """The columns of one chunk."""
        batch, dead = self._ingest(chunk)
        ts = instants(batch)
        late, dates = self._late(chunk, batch, ts)
        return Decoded(batch, dead, ts, late, dates)

    def _ingest(self, chunk: Chunk) -> tuple[EventBatch, list[DeadLetter]]:
        source, limits = chunk.source, self._limits.get(chunk.source.name, {})
        if not len(chunk):
            nothing = event_schema(source).empty_table()
            return EventBatch(source, chunk.partition, nothing, chunk.first_offset, chunk.next_offset), []
        if chunk.table is not None:
            return conform(source, chunk.partition, chunk.first_offset, chunk.table, self._now_us(), limits)
        return decode_json(
            source, chunk.partition, chunk.first_offset, chunk.lines, self._now_us(), limits, offsets=chunk.offsets
        )

    def _late(self, chunk: Chunk, batch: EventBatch, ts: npt.NDArray[np.int64]) -> tuple[int, list[str]]:
        """Judge the events that the archive does not hold yet; the others were judged when they were new."""
        seen = self._seen.get((chunk.source.name, chunk.partition))
        if seen is None:
            seen = _Seen(*self._archived(chunk.source, chunk.partition))
            self._seen[chunk.source.name, chunk.partition] = seen
        if batch.first_offset < seen.archived:
            offsets = batch.table["source_offset"].to_numpy()
            ts = ts[offsets >= seen.archived]
        if not len(ts):
            return 0, []
        late = late_rows(ts, seen.newest_us, chunk.source.lateness_us)
        seen.newest_us = max(seen.newest_us, int(ts.max()))
        return int(late.sum()), dates_of(ts[late]) if late.any() else []


def instants(batch: EventBatch) -> npt.NDArray[np.int64]:
    """The timestamps of a batch in microseconds."""
    column = batch.table[batch.source.timestamp]
    return column.cast(pa.int64()).to_numpy() if batch.table.num_rows else np.empty(0, np.int64)
