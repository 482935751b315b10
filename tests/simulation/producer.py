"""Who writes a run's log: NDJSON files that grow, or Redis Streams, which may be trimmed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import redis

from forebay import RedisStream
from forebay.offline.archive import Archive
from streaming.redis_log import SEQUENCE_BITS, id_before
from tests.simulation.shop import Event, Line, Log


class Producer:
    """Appends lines to a log, and notes them where the reference looks: in `log`, and their events in `by_id`."""

    def __init__(
        self, online: redis.Redis, log: Log, by_id: dict[str, Event], folder: Path, stream: RedisStream | None
    ) -> None:
        self._online, self._log, self._by_id, self._folder, self._stream = online, log, by_id, folder, stream

    def open(self, partitions: int) -> None:
        """Make the partitions, empty."""
        if self._stream is not None:
            self._log.lines = {f"{self._stream.key}:{n}": {} for n in range(partitions)}
            return
        self._folder.mkdir()
        for n in range(partitions):
            (self._folder / f"{n}.ndjson").touch()
            self._log.lines[f"{n}.ndjson"] = {}

    def append(self, partition: str, line: Line, now_us: int) -> None:
        """One line arrives."""
        self.note([line.event] if line.event is not None else [])
        lines = self._log.lines[partition]
        if self._stream is None:
            lines[len(lines)] = line
            with (self._folder / partition).open("ab") as file:
                file.write(line.raw + b"\n")
            return
        last, now_ms = next(reversed(lines), 0), now_us // 1000
        offset = max(last + 1, now_ms << SEQUENCE_BITS)
        lines[offset] = line
        self._online.xadd(partition, {"event": line.raw}, id=id_before(offset + 1))

    def note(self, events: Iterable[Event]) -> None:
        """Events that exist from now on."""
        self._by_id.update({event.id: event for event in events})

    def trim(self, archive: Archive) -> None:
        """Redis Streams lose what the archive holds; files lose nothing."""
        for partition in self._log.lines if self._stream is not None else ():
            end = archive.next_offset(partition)
            if end:
                self._online.xtrim(partition, minid=id_before(end))
