"""Entries of Redis Streams that were trimmed before they were read.

    a stream    (trimmed)  ● ● ┆ ● ●     an entry that was read is still there: none behind it is gone, because
                                         trimming takes the oldest first
    a stream    (trimmed)      ┆   ●     none is there: what was added since it was last counted, less what was read
                                         since, has to be what there is

Lives here: seeing that nothing was lost when a reader begins, when its server was away, and with each reply. Invariant:
entries are handed on only after it was seen that none before them is missing, or that this loss is accepted; looked at
after they were read, an entry that is there was there when they were.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from forebay.errors import ConfigError, StoreError
from forebay.language.source import EventSource
from streaming.entries import Entry, EntryLayout
from streaming.log_losses import say_lost, say_unarchived, say_went_back


@dataclass
class _Counted:
    """How many entries a stream had ever got (`None`: its server does not count) up to an offset, and how many behind
    that were read.
    """

    end: int = 0
    added: int | None = 0
    read: int = 0


class Trimmed:
    """Looks after the streams of one reader, whose client it uses; `accepted` losses are said and passed over."""

    def __init__(
        self,
        source: EventSource,
        client: redis.Redis,
        layout: EntryLayout,
        streams: Mapping[str, str],
        *,
        accepted: bool,
    ) -> None:
        self._source, self._client, self._layout, self._streams = source, client, layout, streams
        self._accepted = accepted
        self._counted: dict[str, _Counted] = {}
        self._lost_until: dict[str, int] = {}
        """Up to where a loss was accepted, as long as no entry behind it was read."""

    def begin(self, partition: str, offset: int, applied: int = 0) -> None:
        """Refuse to resume where an entry at or after an offset may be gone; one that is accepted is said when what is
        left is read. Where nothing is archived, it is at least seen that not all of what counts online is gone.
        """
        info, read = self._count(partition), offset or applied
        if read and (info is None or self._oldest(info) > (offset or applied - 1)):
            if not self._accepted:
                raise self._lost(partition, read, "archived" if offset else "counted online, before any was archived")
            if not offset:
                say_unarchived(self._source, partition, offset, applied)
            if info is not None:
                self._lost_until[partition] = self._oldest(info)
        elif read > self._counted[partition].end:
            say_went_back(self._source, partition, self._counted[partition].end, read)

    def passed(self, offsets: Mapping[str, int], found: Collection[str]) -> dict[str, int]:
        """Up to where partitions of which a read found nothing are passed over, as was accepted at the beginning; so
        that the archive knows, and the next flow need not be told again.
        """
        ends, self._lost_until = self._lost_until, {}
        passed = {name: end for name, end in ends.items() if name not in found and end > offsets[name]}
        for name, end in passed.items():
            say_lost(self._source, name, offsets[name], end)
        return passed

    def check(self, offsets: Mapping[str, int], found: Mapping[str, Sequence[Entry]]) -> None:
        """Refuse to go on with what was found behind offsets where entries may be gone that came before."""
        begun = {partition: offset for partition in found if (offset := offsets[partition])}
        for (partition, offset), kept in zip(begun.items(), self._kept(begun), strict=True):
            if not kept and not self._is_whole(partition, offset):
                if not self._accepted:
                    raise self._lost(partition, offset, "read")
                say_lost(self._source, partition, offset, self._layout.offset(found[partition][0][0]))
                self._count(partition)

    def read(self, partition: str, entries: Sequence[Entry]) -> None:
        """Some entries were handed on."""
        counted, offset = self._counted[partition], self._layout.offset
        if offset(entries[0][0]) >= counted.end:
            counted.read += len(entries)
        elif offset(entries[-1][0]) >= counted.end:
            counted.read += sum(offset(entry_id) >= counted.end for entry_id, _ in entries)

    def _kept(self, offsets: Mapping[str, int]) -> list[bool]:
        """Whether each partition has an entry before an offset, or at it."""
        behind = 1 << self._layout.index_bits
        asked = [
            (self._streams[partition], "-", self._layout.last_id(offset + behind), 1)
            for partition, offset in offsets.items()
        ]
        if len(asked) <= 1:
            return [bool(self._client.xrange(*one)) for one in asked]
        together = self._client.pipeline(transaction=False)
        for one in asked:
            together.xrange(*one)
        return [bool(found) for found in together.execute()]

    def _is_whole(self, partition: str, offset: int) -> bool:
        """Whether a partition of which nothing is left before an offset has all that it ever got behind it."""
        counted, info = self._counted[partition], self._info(partition)
        if info is None or counted.added is None or offset < counted.end:
            return False
        return bool(info.get("entries-added", -1) - counted.added - counted.read == info["length"])

    def _count(self, partition: str) -> Any:
        """Count a partition anew; what the server says of its stream."""
        info = self._info(partition)
        self._counted[partition] = _Counted()
        if info is not None:
            end = self._layout.end(info["last-generated-id"])
            self._counted[partition] = _Counted(end, info.get("entries-added"))
        return info

    def _info(self, partition: str) -> Any:
        stream = self._streams[partition]
        try:
            return self._client.xinfo_stream(stream) if self._client.exists(stream) else None
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            raise ConfigError(
                f"{stream!r}, partition {partition!r} of {self._source.name!r}, is no stream in Redis. Give the "
                "source another key, or remove what is there (`TYPE` says what it is), and add events by XADD"
            ) from None

    def _oldest(self, info: Any) -> int:
        """The offset of the oldest entry; of an empty stream, behind the last that it ever held."""
        first = info["first-entry"]
        return self._layout.offset(first[0]) if first else self._layout.end(info["last-generated-id"])

    def _lost(self, partition: str, offset: int, what: str) -> StoreError:
        return StoreError(
            f"Stream {self._streams[partition]!r} of {self._source.name!r} no longer holds entry "
            f"{self._layout.last_id(offset)}, the last that is {what}, so events after it may be lost. Restore the "
            "stream, and trim it only before that entry; or start with "
            f"--accept-loss {self._source.name} to read on where it begins"
        )
