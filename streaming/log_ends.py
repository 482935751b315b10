"""Where logs end: what waits in them, for whoever asks how far behind a flow is.

Lives here: asking each kind of log for the end of its partitions, without reading it as a flow does. A flow never
depends on it. Ends are offsets behind the last event; how many events wait is known where a log can tell: of a
compacted or transactional topic it is an upper bound, of a Redis Stream entries are counted up to a bound, unless they
hold many events each.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from forebay.language.source import EventSource, FileStream, KafkaTopic, RedisStream
from forebay.offline.archive import PartitionPosition
from forebay.offline.table_source import expand_path
from forebay.online.connection import translated
from forebay.settings import Settings
from streaming.bookmark import place_of
from streaming.chunk import BYTES_MAX
from streaming.entries import id_before, layout_of
from streaming.file_log import PARQUET, files_of, open_rows
from streaming.kafka_client import KafkaCluster
from streaming.kafka_log import partition_name as topic_partition
from streaming.redis_log import connect, partition_name, stream_name, url_of

COUNTED_MAX = 100_000
"""Entries of a Redis Stream that are counted one by one; of more it is not known how many wait."""
PAGE = 10_000
KAFKA_ANSWER_S = 5.0
"""A person waits for it."""


@dataclass(frozen=True)
class LogEnd:
    """Where a partition ends, and how many events wait behind an offset (`None`: it cannot tell)."""

    end_offset: int | None
    waiting: int | None


@dataclass
class LogEnds:
    """Asks the logs of a deployment; keep it to be asked again, it remembers how far it has counted files."""

    settings: Settings
    online: Callable[[], redis.Redis]
    _lines: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Of each file the lines counted, and the bytes that they take."""
    _clusters: dict[str, KafkaCluster] = field(default_factory=dict)
    """By source: a client of Kafka has threads and connections, and is collected late."""

    def __call__(
        self, source: EventSource, applied: Mapping[str, int], archived: Mapping[str, PartitionPosition] | None = None
    ) -> dict[str, LogEnd]:
        """The ends of the partitions that a source's log has, and what waits in each behind its `applied` offset.

        From what is `archived` files are counted, where that has a bookmark.

        Raises `StoreUnavailableError` where the log cannot be reached, `ConfigError` where there is none.
        """
        stream = source.stream
        if isinstance(stream, FileStream):
            return self._files(source, stream, applied, archived or {})
        if isinstance(stream, RedisStream):
            return self._streams(stream, applied)
        return self._topic(source, applied) if isinstance(stream, KafkaTopic) else {}

    def _files(
        self,
        source: EventSource,
        stream: FileStream,
        applied: Mapping[str, int],
        archived: Mapping[str, PartitionPosition],
    ) -> dict[str, LogEnd]:
        path = expand_path(stream.path, self.settings.home, os.environ, f"Stream of {source.name!r}")
        ends = {}
        for file in files_of(source, path):
            with contextlib.suppress(FileNotFoundError):  # it has gone since
                end = self._length(file, archived.get(file.name, PartitionPosition()))
                ends[file.name] = LogEnd(end, max(0, end - applied.get(file.name, 0)))
        return ends

    def _length(self, file: Path, archived: PartitionPosition) -> int:
        if file.suffix in PARQUET:
            return _rows(file)
        lines, read = self._lines.get(file, (0, 0))
        if file.stat().st_size == read:
            return lines
        with file.open("rb") as stream:
            if file not in self._lines and (place := place_of(stream, archived.next_offset, archived.bookmark)):
                lines, read = archived.next_offset, place
            stream.seek(read)
            while block := stream.read(BYTES_MAX):
                lines, read = lines + block.count(b"\n"), read + len(block)
        self._lines[file] = (lines, read)
        return lines

    def _streams(self, stream: RedisStream, applied: Mapping[str, int]) -> dict[str, LogEnd]:
        client, layout = connect(stream, self.online), layout_of(stream)
        ends = {}
        for name in (partition_name(stream, i) for i in range(stream.partitions)):
            key = stream_name(stream, name)
            with translated(client, url_of(stream)):
                if client.exists(key):
                    info: Any = client.xinfo_stream(key)
                    end = layout.end(info["last-generated-id"])
                    first = applied.get(name, 0)
                    ends[name] = LogEnd(end, self._waiting(client, stream, key, first) if end > first else 0)
        return ends

    def _waiting(self, client: redis.Redis, stream: RedisStream, key: str, first: int) -> int | None:
        """How many events wait behind an offset; of entries that hold many it is not known."""
        return None if stream.chunked else _entries(client, key, first)

    def _topic(self, source: EventSource, applied: Mapping[str, int]) -> dict[str, LogEnd]:
        if source.name not in self._clusters:
            self._clusters[source.name] = KafkaCluster(source, self.settings.kafka, KAFKA_ANSWER_S)
        cluster = self._clusters[source.name]
        assert isinstance(source.stream, KafkaTopic)
        ends = {}
        for number in cluster.partitions():
            first, end = cluster.bounds(number)
            name = topic_partition(source.stream, number)
            ends[name] = LogEnd(end, max(0, end - max(first, applied.get(name, 0))))
        return ends


def _rows(file: Path) -> int:
    """The rows of a Parquet file; none while it is being written. Raises `FileNotFoundError` where it has gone."""
    whole = open_rows(file)
    if whole is None:
        file.stat()
        return 0
    with whole:
        return int(whole.metadata.num_rows)


def _entries(client: redis.Redis, name: str, first: int) -> int | None:
    """How many entries a stream has from an offset on; `None` beyond COUNTED_MAX."""
    after, count = f"({id_before(first)}", 0
    while count <= COUNTED_MAX:
        page: Any = client.xrange(name, after, "+", PAGE)
        count += len(page)
        if len(page) < PAGE:
            return count
        after = f"({page[-1][0].decode()}"
    return None
