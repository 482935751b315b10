"""Who writes a run's log: NDJSON files that grow, or Redis Streams, of events or of chunks, which may be trimmed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import redis

from forebay import RedisStream
from forebay.offline.archive import Archive
from streaming.entries import CHUNKED, SEQUENCE_BITS, id_before, layout_of
from streaming.redis_log import partition_name, stream_name
from tests.simulation.shop import Event, Line, Log


class Producer:
    """Appends lines to a log, and notes them where the reference looks: in `log`, and their events in `by_id`."""

    def __init__(
        self, online: redis.Redis, log: Log, by_id: dict[str, Event], folder: Path, stream: RedisStream | None
    ) -> None:
        self._online, self._log, self._by_id, self._folder, self._stream = online, log, by_id, folder, stream
        self._chunks: dict[str, list[Line]] = defaultdict(list)

    def open(self, partitions: int) -> None:
        """Make the partitions, empty."""
        if self._stream is not None:
            self._log.lines = {partition_name(self._stream, n): {} for n in range(partitions)}
            return
        self._folder.mkdir()
        for n in range(partitions):
            (self._folder / f"{n}.ndjson").touch()
            self._log.lines[f"{n}.ndjson"] = {}

    def append(self, partition: str, line: Line, now_us: int) -> None:
        """One line arrives; in a stream of chunks it waits for `send_chunks`."""
        self.note([line.event] if line.event is not None else [])
        lines = self._log.lines[partition]
        if self._stream is None:
            lines[len(lines)] = line
            with (self._folder / partition).open("ab") as file:
                file.write(line.raw + b"\n")
            return
        if self._stream.chunked:
            self._chunks[partition].append(line)
            return
        last, now_ms = next(reversed(lines), 0), now_us // 1000
        offset = max(last + 1, now_ms << SEQUENCE_BITS)
        lines[offset] = line
        self._online.xadd(partition, {"event": line.raw}, id=id_before(offset + 1))

    def send_chunks(self, now_us: int) -> None:
        """What waits arrives, as one entry of each partition."""
        for partition, added in self._chunks.items():
            assert self._stream is not None
            lines = self._log.lines[partition]
            last_ms = next(reversed(lines), 0) >> (CHUNKED.sequence_bits + CHUNKED.index_bits)
            entry = f"{max(last_ms + 1, now_us // 1000)}-0"
            first = CHUNKED.offset(entry.encode())
            lines |= {first + n: line for n, line in enumerate(added)}
            chunk = b"\n".join(line.raw for line in added)
            self._online.xadd(stream_name(self._stream, partition), {"events": chunk}, id=entry)
        self._chunks.clear()

    def note(self, events: Iterable[Event]) -> None:
        """Events that exist from now on."""
        self._by_id.update({event.id: event for event in events})

    def trim(self, archive: Archive) -> None:
        """Redis Streams lose what the archive holds; files lose nothing."""
        for partition in self._log.lines if self._stream is not None else ():
            end = archive.next_offset(partition)
            if end and self._stream is not None:
                kept = layout_of(self._stream).last_id(end)
                self._online.xtrim(stream_name(self._stream, partition), minid=kept)
