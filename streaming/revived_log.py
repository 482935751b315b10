"""Dead letters that became events, beside the log of their source: one more partition of it, `revived`.

Lives here: following the table that `forebay dead-letters --replay` appends to. Invariants: its chunks join from where
they are resumed; a store that does not answer delays them and stops nobody. It says nothing of where it ends: letters
come when somebody mends something, so it neither holds a watermark back nor moves one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.errors import StoreUnavailableError
from forebay.language.source import EventSource
from forebay.offline.archive import REVIVED
from forebay.offline.revived import Revived
from streaming.aside import ask_aside
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.heartbeat import End
from streaming.log import LogReader

LOOK_INTERVAL_S = 2.0
"""How often the table is looked at: one request on S3, for what a person has just asked for."""


class RevivedLog:
    """The revived letters of one source, from an offset on."""

    def __init__(self, source: EventSource, revived: Revived, offset: int) -> None:
        self._source, self._revived, self._next = source, revived, offset
        self._rows: pa.Table | None = None
        self._asked: Future[pa.Table | None] | None = None
        self._looked_s = -LOOK_INTERVAL_S
        self.seen = False
        """Whether the table was looked at: before that nobody knows whether there is anything."""

    def poll(self) -> list[Chunk]:
        """The next letters; none where there are none, or where the table cannot be reached now."""
        if not (self._rows or self._asked) and time.monotonic() - self._looked_s >= LOOK_INTERVAL_S:
            self._looked_s, self._asked = time.monotonic(), ask_aside(self._read)
        if self._asked is not None and self._asked.done():
            asked, self._asked = self._asked, None
            with contextlib.suppress(StoreUnavailableError):  # whoever writes to that store waits for it, and says so
                self._rows = asked.result()
                self.seen = True
        if not self._rows:
            return []
        rows = self._rows.slice(0, EVENTS_MAX)
        events = np.flatnonzero(rows["event"].is_valid())
        count = int(events[-1]) + 1 if len(events) else len(rows)  # a chunk ends in an event, if it has one
        self._rows = self._rows.slice(count)
        return [self._chunk(rows.slice(0, count))]

    def _read(self) -> pa.Table | None:
        if self._revived.end(self._source.name) <= self._next:
            return None
        return self._revived.read(self._source.name, self._next)

    def _chunk(self, rows: pa.Table) -> Chunk:
        first, self._next = self._next, rows["revived_offset"][-1].as_py() + 1
        rows = rows.filter(pc.is_valid(rows["event"]))
        offsets = np.asarray(rows["revived_offset"]).astype(np.int64)
        return Chunk(self._source, REVIVED, first, self._next, lines=rows["event"].to_pylist(), offsets=offsets)


class With:
    """A log and, as one more partition, the revived letters of its source."""

    def __init__(self, log: LogReader, revived: Revived, offset: int) -> None:
        self._log, self._letters = log, RevivedLog(log.source, revived, offset)

    @property
    def source(self) -> EventSource:
        """The source that both are of."""
        return self._log.source

    @property
    def ended(self) -> bool:
        """Whether a poll without chunks was the end."""
        return self._letters.seen and self._log.ended

    @property
    def unfinished(self) -> Sequence[str]:
        """Partitions of the log that end in something half written."""
        return self._log.unfinished

    def ends(self) -> Sequence[End]:
        """The partitions of the log that held nothing more at the last poll."""
        return self._log.ends()

    def poll(self) -> Sequence[Chunk]:
        """What there is now."""
        return [*self._log.poll(), *self._letters.poll()]

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
