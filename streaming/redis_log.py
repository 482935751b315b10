"""Redis Streams as a log: partition `<key>:<i>` is one stream, an entry holds one event or a chunk of them.

Lives here: reading streams from an offset on. The offset of an entry is its id as one number, `milliseconds << 20 |
sequence`: it grows as ids do, leaves gaps, and gives the id back, so that a stream is resumed by XREAD after the id
of the offset before. Where entries hold chunks (`chunked=True`), each of their events has an offset of its own,
`milliseconds << 21 | sequence << 10 | index` (docs/adr/0106). Invariant: no `Chunk` holds a part of an entry, so
positions lie between entries. A stream that was trimmed beyond what was applied is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis

from forebay.errors import ConfigError, StoreError
from forebay.language.source import EventSource, RedisStream
from forebay.online.connection import ONLINE_URL, is_clustered, shown, translated
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.heartbeat import End
from streaming.retry import Forbearance, Patience

SEQUENCE_BITS = 20
"""A million entries of one millisecond; milliseconds then fit until the year 2248."""
EVENTS_PER_ENTRY_MAX = 1024
"""Of a chunked entry; one with more is a dead letter."""
CHUNKED_ENTRIES = 64
"""Chunked entries that are read at a time: at most 65,536 events a stream."""
FIELD, CHUNK_FIELD = b"event", b"events"


@dataclass(frozen=True)
class Layout:
    """What the 63 bits of an offset are: milliseconds, the entry's sequence number, the event's index in it."""

    sequence_bits: int
    index_bits: int

    def last_id(self, offset: int) -> str:
        """The last entry of which all events lie before an offset, whether the stream has it or not."""
        last = max(0, (offset >> self.index_bits) - 1)
        return f"{last >> self.sequence_bits}-{last & ((1 << self.sequence_bits) - 1)}"

    def offset(self, entry_id: bytes) -> int:
        """The offset of an entry's first event."""
        milliseconds, _, sequence = entry_id.partition(b"-")
        bits = self.sequence_bits + self.index_bits
        if int(sequence) >> self.sequence_bits or int(milliseconds) >> (63 - bits):
            raise StoreError(
                f"Stream entry {entry_id.decode()} has no offset of 64 bits; "
                f"expected less than 2^{self.sequence_bits} entries in a millisecond"
            )
        return int(milliseconds) << bits | int(sequence) << self.index_bits

    def end(self, entry_id: bytes) -> int:
        """The offset behind an entry, however many events it holds."""
        return self.offset(entry_id) + (1 << self.index_bits)


SINGLE = Layout(SEQUENCE_BITS, 0)
CHUNKED = Layout(11, EVENTS_PER_ENTRY_MAX.bit_length() - 1)
"""Two thousand entries of one millisecond, a thousand events of one entry; milliseconds then fit until the year
2109."""


def layout_of(stream: RedisStream) -> Layout:
    """How the offsets of a stream are made."""
    return CHUNKED if stream.chunked else SINGLE


def partition_name(stream: RedisStream, number: int) -> str:
    """The partition of a source that a stream is: others when it is chunked, because offsets then mean other events.

    >>> partition_name(RedisStream("shop"), 3), partition_name(RedisStream("shop", chunked=True), 3)
    ('shop:3', 'shop~chunked:3')
    """
    return f"{stream.key}~chunked:{number}" if stream.chunked else f"{stream.key}:{number}"


def stream_name(stream: RedisStream, partition: str) -> str:
    """The key of the stream that a partition is.

    >>> stream_name(RedisStream("shop", chunked=True), "shop~chunked:3")
    'shop:3'
    """
    return f"{stream.key}:{partition.rpartition(':')[2]}"


def connect(stream: RedisStream, online: Callable[[], redis.Redis]) -> redis.Redis:
    """A connection to where a stream is; `online` makes one to the online store.

    Raises `ConfigError` where a URL of its own names a node of a cluster, over which its partitions were spread.
    """
    if not stream.url:
        return online()
    client: redis.Redis = redis.Redis.from_url(stream.url)
    with translated(client, url_of(stream)):
        clustered = is_clustered(client)
    if clustered:
        client.close()
        raise ConfigError(
            f"RedisStream({stream.key!r}, url={shown(stream.url)!r}) names a node of a Redis Cluster; expected one "
            "server. Leave out url= where the online store is this cluster: the stream is then read from all of its "
            "nodes; or keep the stream on a server of its own"
        )
    return client


def url_of(stream: RedisStream) -> str:
    """Where the URL of its server is given.

    >>> url_of(RedisStream("shop")), url_of(RedisStream("shop", url="redis://events:6379/0"))
    ('FOREBAY_ONLINE_URL', "the url of RedisStream('shop')")
    """
    return f"the url of RedisStream({stream.key!r})" if stream.url else ONLINE_URL


def offset_of(entry_id: bytes) -> int:
    """The offset of an entry that is one event.

    >>> offset_of(b"5-2") == (5 << 20) + 2
    True
    """
    return SINGLE.offset(entry_id)


def id_before(offset: int) -> str:
    """The id after which XREAD finds the entry at `offset` or the next one.

    >>> id_before(offset_of(b"5-2"))
    '5-1'
    """
    return SINGLE.last_id(offset)


_Entry = tuple[bytes, Mapping[bytes, bytes]]


class StreamReader:
    """Some partitions of one source (maybe none), read together: one XREAD for all of them."""

    def __init__(
        self, source: EventSource, client: redis.Redis, offsets: Mapping[str, int], patience: Patience
    ) -> None:
        assert isinstance(source.stream, RedisStream)
        self._forbearance = Forbearance(patience)
        self.source, self._client, self._layout = source, client, layout_of(source.stream)
        self._chunked, self._url = source.stream.chunked, url_of(source.stream)
        self._streams = {name: stream_name(source.stream, name) for name in offsets}
        self._partitions = {stream: name for name, stream in self._streams.items()}
        self._next = dict(offsets)
        self._at_end: set[str] = set()
        self._check_whole()

    @property
    def ended(self) -> bool:
        """A stream ends where nothing is left to read, as far as its server says so."""
        return not self._forbearance.away

    def ends(self) -> Sequence[End]:
        """The streams of which the last reply held nothing."""
        return [End(name, self._next[name]) for name in sorted(self._at_end)]

    @property
    def names(self) -> Collection[str]:
        """The partitions that are declared, whether their streams were begun or not."""
        assert isinstance(self.source.stream, RedisStream)
        return {partition_name(self.source.stream, number) for number in range(self.source.stream.partitions)}

    @property
    def unfinished(self) -> Sequence[str]:
        """Entries are whole: none."""
        return ()

    def poll(self) -> Sequence[Chunk]:
        """The next entries of each partition that has some now; none while their server is away."""
        self._at_end = set()
        return self._forbearance(self._read) if self._next else ()

    def _read(self) -> list[Chunk]:
        if self._forbearance.away:
            self._check_whole()
        after = {self._streams[name]: self._layout.last_id(offset) for name, offset in self._next.items()}
        asked: dict[Any, Any] = after
        with translated(self._client, self._url):
            reply: Any = self._client.xread(asked, count=CHUNKED_ENTRIES if self._chunked else EVENTS_MAX) or []
        found = reply.items() if isinstance(reply, dict) else reply
        streams = [(self._partitions[_text(name)], entries) for name, entries in found]
        self._at_end = self._next.keys() - {partition for partition, _ in streams}
        return [chunk for partition, entries in streams for chunk in self._chunks(partition, entries)]

    def _chunks(self, partition: str, entries: Sequence[_Entry]) -> Iterator[Chunk]:
        """Whole entries, some EVENTS_MAX events at a time."""
        lines: list[bytes] = []
        offsets: list[int] = []
        for n, (entry_id, fields) in enumerate(entries, 1):
            events = _events(fields) if self._chunked else [fields.get(FIELD, b"")]
            first = self._layout.offset(entry_id)
            lines += events
            offsets += range(first, first + len(events))
            if len(lines) >= EVENTS_MAX or n == len(entries):
                yield self._chunk(partition, self._layout.end(entry_id), lines, offsets)
                lines, offsets = [], []

    def _chunk(self, partition: str, end: int, lines: Sequence[bytes], offsets: Sequence[int]) -> Chunk:
        known = np.array(offsets, np.int64)
        new = int(np.searchsorted(known, self._next[partition]))  # an entry may have been archived in part
        first, self._next[partition] = self._next[partition], end
        return Chunk(self.source, partition, first, end, lines=lines[new:], offsets=known[new:])

    def _check_whole(self) -> None:
        """Refuse to begin, or to go on with a server that was away, where entries may be gone."""
        for partition, offset in self._next.items():
            self._check_trimmed(partition, offset)

    def _check_trimmed(self, partition: str, offset: int) -> None:
        """Refuse to resume where an entry at or after `offset` may be gone: trimming takes the oldest first."""
        stream = self._streams[partition]
        with translated(self._client, self._url):
            if not offset or (self._client.exists(stream) and self._oldest(stream) <= offset):
                return
        where = f"Stream {stream!r} of {self.source.name!r}"
        raise StoreError(
            f"{where} no longer holds entry {self._layout.last_id(offset)}, the last that is archived, so events after "
            "it may be lost. Restore the stream, and trim it only before that entry"
        )

    def _oldest(self, stream: str) -> int:
        """The offset of the oldest entry; of an empty stream, behind the last that it ever held."""
        info: Any = self._client.xinfo_stream(stream)
        first = info["first-entry"]
        return self._layout.offset(first[0]) if first else self._layout.end(info["last-generated-id"])

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _events(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """The lines of a chunked entry, each an event or a dead letter of its own; of too many, all as one that is none."""
    value = fields.get(CHUNK_FIELD, b"")
    lines = value.removesuffix(b"\n").split(b"\n")
    return lines if len(lines) <= EVENTS_PER_ENTRY_MAX else [value]


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
