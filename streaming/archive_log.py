"""The archive as the beginning of a log: what a store needs again and the archive holds is read from there.

    offsets     0 ─────────── resume ─────────── archived ──────────────▶
    a reader                  ├── the archive ──┤├── the log ───────────▶

Lives here: reading a source's partitions from the archive up to its position, and then from the log. What the archive
holds has been judged: whether it was an event, a duplicate, dated too far ahead. So a store that is behind gets exactly
the events that the archive has, whatever clock, definitions or log there are by now; and a log needs to reach back to
the archive's position only. Invariants: the archive's chunks of a partition join, and the log's begin where they end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pyarrow as pa

from forebay.errors import StoreUnavailableError
from forebay.ingest.batch import SOURCE_OFFSET, event_schema
from forebay.language.source import EventSource
from forebay.offline.archive import Archive
from forebay.offline.replay import Stretches, replay
from streaming.chunk import CHUNKS_MAX, Chunk
from streaming.heartbeat import End
from streaming.log import LogReader
from streaming.retry import Forbearance, Patience


class Archived:
    """Some partitions of a source, from where they are resumed to where they are archived, in chunks."""

    def __init__(self, archive: Archive, stretches: Stretches, patience: Patience) -> None:
        self._source, self._archive, self._stretches = archive.source, archive, stretches
        self._next = {name: first for name, (first, _) in stretches.items()}
        self._chunks, self._forbearance = self._all(), Forbearance(patience)

    @property
    def away(self) -> bool:
        """Whether the last poll gave nothing because the archive could not be reached."""
        return self._forbearance.away

    def poll(self) -> Sequence[Chunk]:
        """The next chunks; none at the end, or while the archive is away."""
        return self._forbearance(self._some)

    def _some(self) -> Sequence[Chunk]:
        found: list[Chunk] = []
        try:
            found.extend(itertools.islice(self._chunks, CHUNKS_MAX))
        except StoreUnavailableError:
            self._chunks = self._all()  # from where the chunks end that were handed out, or are now
            if not found:
                raise
        return found

    def _all(self) -> Iterator[Chunk]:
        left = {name: (first, end) for name, (_, end) in self._stretches.items() if (first := self._next[name]) < end}
        for name, rows in replay(self._archive, left) if left else ():
            yield self._chunk(name, rows[SOURCE_OFFSET][-1].as_py() + 1, rows)
        for name, (_, end) in left.items():
            if self._next[name] < end:
                yield self._chunk(name, end, event_schema(self._source).empty_table())

    def _chunk(self, name: str, end: int, rows: pa.Table) -> Chunk:
        first, self._next[name] = self._next[name], end
        return Chunk(self._source, name, first, end, archived=True, table=rows)


class Continued:
    """A log behind what the archive holds of its partitions."""

    def __init__(self, archived: Archived, log: LogReader) -> None:
        self._archived: Archived | None = archived
        self._log = log

    @property
    def source(self) -> EventSource:
        """The source that it is of."""
        return self._log.source

    @property
    def ended(self) -> bool:
        """Whether a poll without chunks was the end."""
        return self._archived is None and self._log.ended

    @property
    def unfinished(self) -> Sequence[str]:
        """Partitions that end in something half written."""
        return self._log.unfinished

    def ends(self) -> Sequence[End]:
        """The partitions that were at their end at the last poll."""
        return () if self._archived is not None else self._log.ends()

    def poll(self) -> Sequence[Chunk]:
        """What there is now: of the archive, until nothing is left there."""
        if self._archived is not None:
            chunks = self._archived.poll()
            if chunks or self._archived.away:
                return chunks
            self._archived = None
        return self._log.poll()

    def close(self) -> None:
        """Let go of files and connections."""
        self._log.close()
