"""The readers of a flow: every partition of every source's log, in chunks, as soon as there is something.

Lives here: which partitions a reader has, polling them, and its face towards Bytewax. What files, a topic, a stream or
the archive are lives in `file_reader.py`, `kafka_log.py`, `redis_log.py` and `archive_log.py`. Partitions that appear
while the flow runs are picked up by the reader that they fall to: a part for Bytewax is a reader and not a partition.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import redis
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from forebay.language.source import EventSource, FileStream, KafkaTopic, RedisStream
from forebay.offline.archive import REVIVED
from forebay.offline.revived import Revived
from forebay.offline.table_source import expand_path
from streaming.archive_log import Archived, Continued
from streaming.backlog import Backlog
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.file_reader import FileReader
from streaming.gone import WithGone
from streaming.heartbeat import INTERVAL_MAX_US, Heartbeat, Pulse
from streaming.interpreter import FINE_S, sleep_within
from streaming.kafka_log import Topics
from streaming.log import LogReader, LogStarts, NamedLog
from streaming.redis_log import StreamReader, connect, partition_name
from streaming.retry import Patience
from streaming.revived_log import With
from streaming.routing import part_names, reader_of
from streaming.stop import Stop

POLL_INTERVAL = timedelta(milliseconds=3)
"""How long an idle reader waits before it looks again: most of the delay of a fresh event (DESIGN §6)."""
LINGER_S_MAX = 1.0
"""Events are fresh within a second."""


@dataclass(frozen=True)
class Logs:
    """How the logs of some sources are opened for one reader of a flow."""

    sources: Sequence[EventSource]
    home: Path
    online: Callable[[], redis.Redis]
    topics: Topics
    archived: Callable[[EventSource, Callable[[str], bool], Patience], Archived]
    """What is read from the archive, of some partitions of a source."""
    starts: Callable[[EventSource], LogStarts]
    """Where the log is read on behind that."""
    known: Callable[[EventSource], Mapping[str, int]]
    """The partitions that the stores know, whether the log still has them, and how far they are archived."""
    applied: Callable[[EventSource], Mapping[str, int]]
    """How far the online store has applied them."""
    revived: Revived
    until_end: bool
    patience: Patience
    accepted: Collection[str]
    """Sources of which events may be lost."""

    def open(self, reader: int, readers: int) -> list[LogReader]:
        """The partitions that fall to a reader, ready to be polled."""
        return [self._open(source, reader, readers) for source in self.sources]

    def _open(self, source: EventSource, reader: int, readers: int) -> LogReader:
        def mine(partition: str) -> bool:
            return reader_of(source.name, partition, readers) == reader

        known = {name: end for name, end in self.known(source).items() if mine(name)}
        start = self.starts(source)
        log: LogReader = WithGone(self.patience(lambda: self._log(source, mine, start)), known, self.applied(source))
        if mine(REVIVED):
            log = With(log, self.revived, start(REVIVED).offset)
        return Continued(self.patience(lambda: self.archived(source, mine, self.patience)), log)

    def _log(self, source: EventSource, mine: Callable[[str], bool], start: LogStarts) -> NamedLog:
        stream = source.stream
        if isinstance(stream, FileStream):
            path = expand_path(stream.path, self.home, os.environ, f"Stream of {source.name!r}")
            return FileReader(source, path, mine, start, until_end=self.until_end)
        if isinstance(stream, KafkaTopic):
            return self.topics.open(source, mine, start, until_end=self.until_end)
        assert isinstance(stream, RedisStream)
        names = [name for i in range(stream.partitions) if mine(name := partition_name(stream, i))]
        starts = {name: start(name) for name in names}
        return StreamReader(
            source, connect(stream, self.online), starts, self.patience, accepted=source.name in self.accepted
        )


class Reader(StatefulSourcePartition[Chunk | Heartbeat, None]):
    """One reader of the flow, as Bytewax sees it. It never raises: an error stops the flow through `stop`."""

    def __init__(
        self,
        logs: Logs,
        reader: int,
        readers: int,
        stop: Stop,
        backlog: Backlog,
        ended: Callable[[Sequence[str]], None],
        beat_interval_us: int = INTERVAL_MAX_US,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        polled: Callable[[int, int], None] = lambda reader, now_us: None,
        linger_s: float = 0.0,
    ) -> None:
        self._linger = timedelta(seconds=0.0 if logs.until_end else linger_s)
        self._polled = partial(polled, reader)
        self._stop, self._backlog, self._ended, self._until_end = stop, backlog, ended, logs.until_end
        self._logs: list[LogReader] = []
        self._awake: datetime | None = None
        self._pulse, self._now_us, self._done = Pulse(beat_interval_us, reader), now_us, False
        with stop.failing(BaseException):
            self._logs = logs.open(reader, readers)

    def next_batch(self) -> list[Chunk | Heartbeat]:
        """What there is now. Raises `StopIteration` at the end, or when the flow stops."""
        self._polled(self._now_us())
        if self._stop.requested or self._done:
            raise StopIteration
        items: list[Chunk | Heartbeat] = []
        if not self._backlog.full():
            with self._stop.draining():
                items = self._poll()
        if self._stop.requested:
            raise StopIteration
        self._awake = self._when_again(items)
        return items

    def _poll(self) -> list[Chunk | Heartbeat]:
        """Chunks, and behind them, when it is time or at the end of everything, what their partitions ended at."""
        seen_us = self._now_us()  # before the poll: what is written during it may be missed by it
        chunks = [chunk for log in self._logs for chunk in log.poll()]
        if self._until_end and not chunks and all(log.ended for log in self._logs):
            self._ended([name for log in self._logs for name in log.unfinished])
            self._done = True
        if not (self._done or self._pulse.is_due(seen_us, busy=bool(chunks))):
            return [*chunks]
        beats = [self._pulse.beat(log.source, log.ends(), seen_us) for log in self._logs]
        return [*chunks, *(beat for beat in beats if beat is not None)]

    def _when_again(self, items: Sequence[Chunk | Heartbeat]) -> datetime | None:
        """A little later after nothing; after something at once, or when it has lingered, unless it is behind."""
        if not items:
            return datetime.now(UTC) + max(POLL_INTERVAL, self._linger)
        behind = sum(len(item) for item in items if isinstance(item, Chunk)) >= EVENTS_MAX
        return datetime.now(UTC) + self._linger if self._linger and not behind else None

    def next_awake(self) -> datetime | None:
        """When to poll again; `None` is at once."""
        return self._awake

    def snapshot(self) -> None:
        """Nothing: positions live in the stores."""

    def close(self) -> None:
        """Let go of files and connections."""
        for log in self._logs:
            log.close()


class Readers(FixedPartitionedSource[Chunk | Heartbeat, None]):
    """All readers of a flow, one a worker."""

    def __init__(self, build: Callable[[int], Reader], workers: int) -> None:
        self._build, self._workers = build, workers

    def list_parts(self) -> list[str]:
        """The readers."""
        return part_names(self._workers)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> Reader:
        """One reader, in its worker's thread, which was started by one that sleeps coarsely."""
        sleep_within(FINE_S)
        return self._build(int(for_part))
