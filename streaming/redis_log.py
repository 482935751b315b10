"""Redis Streams as a log: partition `<key>:<i>` is one stream, the field `event` of an entry is an event's JSON.

Lives here: reading streams from an offset on. The offset of an entry is its id as one number, `milliseconds << 20 |
sequence`: it grows as ids do, leaves gaps, and gives the id back, so that a stream is resumed by XREAD after the id
of the offset before. A stream that was trimmed beyond what was applied is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import redis

from forebay.errors import StoreError
from forebay.language.source import EventSource
from forebay.stores.connection import translated
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.heartbeat import End

SEQUENCE_BITS = 20
"""A million entries of one millisecond; milliseconds then fit until the year 2248."""
FIELD = b"event"


def offset_of(entry_id: bytes) -> int:
    """The offset of an entry.

    >>> offset_of(b"5-2") == (5 << 20) + 2
    True
    """
    milliseconds, _, sequence = entry_id.partition(b"-")
    if int(sequence) >> SEQUENCE_BITS or int(milliseconds) >> (63 - SEQUENCE_BITS):
        raise StoreError(
            f"Stream entry {entry_id.decode()} has no offset of 64 bits; "
            f"expected less than 2^{SEQUENCE_BITS} entries in a millisecond"
        )
    return int(milliseconds) << SEQUENCE_BITS | int(sequence)


def id_before(offset: int) -> str:
    """The id after which XREAD finds the entry at `offset` or the next one.

    >>> id_before(offset_of(b"5-2"))
    '5-1'
    """
    last = max(0, offset - 1)
    return f"{last >> SEQUENCE_BITS}-{last & ((1 << SEQUENCE_BITS) - 1)}"


class StreamReader:
    """Some partitions of one source (maybe none), read together: one XREAD for all of them."""

    def __init__(self, source: EventSource, client: redis.Redis, offsets: Mapping[str, int]) -> None:
        self.source, self._client = source, client
        self._next = dict(offsets)
        self._at_end: set[str] = set()
        for partition, offset in self._next.items():
            self._check_trimmed(partition, offset)

    @property
    def ended(self) -> bool:
        """A stream ends where nothing is left to read."""
        return True

    def ends(self) -> Sequence[End]:
        """The streams of which the last reply held nothing."""
        return [End(name, self._next[name]) for name in sorted(self._at_end)]

    @property
    def unfinished(self) -> Sequence[str]:
        """Entries are whole: none."""
        return ()

    def poll(self) -> list[Chunk]:
        """The next entries of each partition that has some now."""
        if not self._next:
            return []
        asked: dict[Any, Any] = {partition: id_before(offset) for partition, offset in self._next.items()}
        with translated(self._client):
            reply: Any = self._client.xread(asked, count=EVENTS_MAX) or []
        streams = reply.items() if isinstance(reply, dict) else reply
        self._at_end = self._next.keys() - {_text(name) for name, _ in streams}
        return [self._chunk(_text(name), entries) for name, entries in streams]

    def _chunk(self, partition: str, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]) -> Chunk:
        offsets = np.fromiter((offset_of(entry_id) for entry_id, _ in entries), np.int64, len(entries))
        lines = [fields.get(FIELD, b"") for _, fields in entries]
        first, self._next[partition] = self._next[partition], int(offsets[-1]) + 1
        return Chunk(self.source, partition, first, self._next[partition], lines=lines, offsets=offsets)

    def _check_trimmed(self, partition: str, offset: int) -> None:
        """Refuse to resume where an entry at or after `offset` may be gone: trimming takes the oldest first."""
        with translated(self._client):
            if not offset or (self._client.exists(partition) and self._oldest(partition) <= offset):
                return
        where = f"Stream {partition!r} of {self.source.name!r}"
        raise StoreError(
            f"{where} no longer holds entry {id_before(offset)}, the last that is archived, so events after it may be "
            "lost. Restore the stream, and trim it only before that entry"
        )

    def _oldest(self, partition: str) -> int:
        """The offset of the oldest entry; of an empty stream, behind the last that it ever held."""
        stream: Any = self._client.xinfo_stream(partition)
        first = stream["first-entry"]
        return offset_of(first[0]) if first else offset_of(stream["last-generated-id"]) + 1

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
