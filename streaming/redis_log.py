"""Redis Streams as a log: partition `<key>:<i>` is one stream, an entry holds one event or a chunk of them.

Lives here: reading streams from an offset on. The offset of an entry is its id as one number, `milliseconds << 20 |
sequence`: it grows as ids do, leaves gaps, and gives the id back, so that a stream is resumed by XREAD after the id
of the offset before. Where entries hold chunks (`chunked=True`), each of their events has an offset of its own,
`milliseconds << 21 | sequence << 10 | index` (docs/adr/0106). Invariant: no `Chunk` holds a part of an entry, so
positions lie between entries; what one read holds is bounded by what entries were like before, in events and in bytes.
A stream that was trimmed beyond what was read is an error (`trimmed.py`), unless that was accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from forebay.errors import ConfigError
from forebay.language.source import EventSource, RedisStream
from forebay.online.connection import ONLINE_URL, is_clustered, shown, translated
from streaming.chunk import BYTES_MAX, CHUNKS_MAX, EVENTS_MAX, Chunk
from streaming.entries import EVENTS_PER_ENTRY_MAX, Entry, layout_of
from streaming.heartbeat import End
from streaming.log import LogStart
from streaming.retry import Forbearance, Patience
from streaming.trimmed import Trimmed

CHUNKED_ENTRIES = 64
"""Chunked entries that are read at a time, at most: 65,536 events a stream."""
ENTRIES_FIRST, GROWTH = 16, 8
"""Entries of the first read, whose size nobody knows, and by how much a read may be larger than the one before."""
WEIGHED = 32
"""Entries of a reply that are weighed; the rest are alike, or the next reply tells."""
HANGS_AFTER_S = 1.0
"""A server that hangs holds its worker up for so long at each try; one that is well answers in milliseconds."""
FIELD, CHUNK_FIELD = b"event", b"events"


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
    client: redis.Redis = redis.Redis.from_url(stream.url, **_options())
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


class StreamReader:
    """Some partitions of one source (maybe none), read together: one XREAD for all of them."""

    def __init__(
        self,
        source: EventSource,
        client: redis.Redis,
        starts: Mapping[str, LogStart],
        patience: Patience,
        *,
        accepted: bool = False,
    ) -> None:
        assert isinstance(source.stream, RedisStream)
        self._forbearance = Forbearance(patience)
        self.source, self._client, self._layout = source, client, layout_of(source.stream)
        self._chunked, self._url = source.stream.chunked, url_of(source.stream)
        self._streams = {name: stream_name(source.stream, name) for name in starts}
        self._partitions = {stream: name for name, stream in self._streams.items()}
        self._next = {name: start.offset for name, start in starts.items()}
        self._starts = starts
        self._at_end: set[str] = set()
        self._count, self._bytes = ENTRIES_FIRST, dict[str, int]()
        self._trimmed = Trimmed(source, client, self._layout, self._streams, accepted=accepted)
        self._begin()

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
            self._begin()
        after = {self._streams[name]: self._layout.last_id(offset) for name, offset in self._next.items()}
        asked: dict[Any, Any] = after
        with translated(self._client, self._url):
            reply: Any = self._client.xread(asked, count=self._count) or []
            replied = reply.items() if isinstance(reply, dict) else reply
            found = {self._partitions[_text(name)]: entries for name, entries in replied}
            self._trimmed.check(self._next, found)
        self._at_end = self._next.keys() - found.keys()
        if found:
            self._weigh(found)
        passed = [self._chunk(name, end, [], []) for name, end in self._trimmed.passed(self._next, found).items()]
        return passed + [chunk for partition, entries in found.items() for chunk in self._chunks(partition, entries)]

    def _weigh(self, found: Mapping[str, Sequence[Entry]]) -> None:
        """Take as many entries of each stream at a time from now on as their size allows. How large those of a stream
        are that now holds nothing is forgotten by halves.
        """
        self._bytes = {partition: size // 2 for partition, size in self._bytes.items() if size > 1}
        for partition, entries in found.items():
            some = entries[:: -(-len(entries) // WEIGHED)]
            self._bytes[partition] = sum(len(value) for _, fields in some for value in fields.values()) // len(some)
        room = BYTES_MAX * min(CHUNKS_MAX, len(self._next)) // len(self._next)
        fitting = room // max(1, *self._bytes.values())
        most = CHUNKED_ENTRIES if self._chunked else EVENTS_MAX
        self._count = max(1, min(fitting, self._count * GROWTH, most))

    def _chunks(self, partition: str, entries: Sequence[Entry]) -> Iterator[Chunk]:
        """Whole entries, some EVENTS_MAX events at a time."""
        self._trimmed.read(partition, entries)
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

    def _begin(self) -> None:
        """Refuse to begin, or to go on with a server that was away, where entries may be gone."""
        with translated(self._client, self._url):
            for partition, offset in self._next.items():
                self._trimmed.begin(partition, offset, self._starts[partition].applied)

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()


def _events(fields: Mapping[bytes, bytes]) -> list[bytes]:
    """The lines of a chunked entry, each an event or a dead letter of its own; of too many, all as one that is none."""
    value = fields.get(CHUNK_FIELD, b"")
    lines = value.removesuffix(b"\n").split(b"\n")
    return lines if len(lines) <= EVENTS_PER_ENTRY_MAX else [value]


def _options() -> dict[str, Any]:
    """What a connection has to a server of its own; its URL may say otherwise."""
    again = Retry(NoBackoff(), 1, supported_errors=(redis.ConnectionError,))
    return {"socket_timeout": HANGS_AFTER_S, "socket_connect_timeout": HANGS_AFTER_S, "retry": again}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode()
