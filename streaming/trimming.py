"""Trimming Redis Streams behind the archive, where a source says so (`RedisStream(key, trim=True)`).

Lives here: removing entries of which every event is durably archived, after each append to the archive. Nothing reads
them again: what is archived is read from the archive (docs/adr/0026). Invariants: the last archived entry stays,
because a flow that begins is sure by it that it lost nothing, and where its server has lost that entry, those before it
stay; a stream that cannot be trimmed now is trimmed later, and stops nothing: where its server refuses, that is said
once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence

import redis

from forebay.errors import StoreError, StoreUnavailableError
from forebay.language.source import EventSource, RedisStream
from forebay.online.connection import translated
from streaming.entries import layout_of
from streaming.logs import LOG
from streaming.redis_log import connect, partition_name, stream_name, url_of


class Trimming:
    """Trims the streams of some sources; called with how far partitions are archived."""

    def __init__(self, sources: Sequence[EventSource], online: Callable[[], redis.Redis]) -> None:
        self._online = online
        self._streams = {source.name: source.stream for source in sources if _is_trimmed(source)}
        self._clients: dict[str, redis.Redis] = {}
        self._refused: set[str] = set()

    def __call__(self, source: str, archived: Mapping[str, int]) -> None:
        """Remove what lies before the last archived entry of each partition, in whole nodes of the stream."""
        stream = self._streams.get(source)
        if not isinstance(stream, RedisStream):
            return
        names = [name for n in range(stream.partitions) if (name := partition_name(stream, n)) in archived]
        with self._bearing(source), contextlib.suppress(StoreUnavailableError):
            client = self._client(source, stream)
            for name in names:
                kept, key = layout_of(stream).last_id(archived[name]), stream_name(stream, name)
                with translated(client, url_of(stream)):
                    if client.xrange(key, kept, kept, 1):
                        client.xtrim(key, minid=kept, approximate=True)

    @contextlib.contextmanager
    def _bearing(self, source: str) -> Iterator[None]:
        """Go on where the server refuses to trim; say so once."""
        try:
            yield
        except StoreError as error:
            if source not in self._refused:
                self._refused.add(source)
                LOG.warning(
                    "untrimmed",
                    warning=f"the streams of {source!r} are not trimmed, though trim=True says so, and go on growing: "
                    f"{error} Let FOREBAY_ONLINE_URL's user, or that of the stream's url, run XTRIM on them",
                    source=source,
                    why=str(error),
                )

    def _client(self, source: str, stream: RedisStream) -> redis.Redis:
        if source not in self._clients:
            self._clients[source] = connect(stream, self._online)
        return self._clients[source]


def _is_trimmed(source: EventSource) -> bool:
    return isinstance(source.stream, RedisStream) and source.stream.trim
