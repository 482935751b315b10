"""A client of a Redis Cluster, for all who know a client of one server.

    name ──▶ hash tag ──▶ hash slot ──▶ the node that has it          by the map, which any node tells (`CLUSTER SLOTS`)

redis-py keeps the map, and follows `MOVED` and `ASK` of a command of one key. What lives here is what it cannot know:
one MGET of many names is one of each hash tag, sent to all nodes before any reply is read, so that what shares a tag is
of one instant; whoever needs a connection of its own (`forebay.online.wire`) is told which server has a key; looking at
all keys goes from primary to primary. Invariant: nothing of one hash tag is ever asked for in two commands.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import hiredis
import redis
from redis.backoff import ExponentialBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterError,
    RedisClusterException,
    TryAgainError,
)
from redis.retry import Retry

CONNECTIONS_MAX = 1_024
"""Of one process to one node. A writer of all slots has 64, a publication up to two for each slot."""
TRIES = 8
"""Some three seconds, with growing pauses: a slot that is handed over is there by then, and a read waits no longer."""
ELSEWHERE = (AskError, TryAgainError, ClusterError, RedisClusterException)
"""A key is on another node (`MOVED`, `ASK`), between two (`TRYAGAIN`), or on none (`CLUSTERDOWN`)."""

T = TypeVar("T")


class Cluster(redis.Redis):
    """A client of all nodes; `seed` is one of the node that was named."""

    def __init__(self, seed: redis.Redis, nodes: redis.RedisCluster) -> None:
        super().__init__(connection_pool=seed.connection_pool)
        self._nodes = nodes
        self._is_outdated = False

    @classmethod
    def at(cls, url: str, seed: redis.Redis, **options: Any) -> Cluster:
        """That of the cluster to which the server at a URL belongs. Raises redis-py's errors."""
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), TRIES)
        with _formed():
            nodes = redis.RedisCluster.from_url(
                url, require_full_coverage=False, max_connections=CONNECTIONS_MAX, retry=retry, **options
            )
        return cls(seed, nodes)

    # ---- which server ------------------------------------------------------------------------------------------

    def server_of(self, name: str) -> redis.Redis:
        """A client of the node that has a key, by the map, which is asked for again once it was found to be old."""
        self._renew()
        node = self._nodes.nodes_manager.get_node_from_slot(hash_slot(name))
        return self._nodes.get_redis_connection(node)

    def outdated(self) -> None:
        """The map was found to be old: a key was elsewhere, or its node cannot be reached."""
        self._is_outdated = True

    def primaries(self) -> list[redis.Redis]:
        """A client of each node that has hash slots."""
        self._renew()
        nodes = {node.name: node for some in self._nodes.nodes_manager.slots_cache.values() for node in some[:1]}
        return [self._nodes.get_redis_connection(nodes[name]) for name in sorted(nodes)]

    def _renew(self) -> None:
        if self._is_outdated:
            with _formed():
                self._nodes.nodes_manager.initialize(disconnect_startup_nodes_pools=False)
            self._is_outdated = False

    # ---- reading -----------------------------------------------------------------------------------------------

    def mget(self, keys: Any, *args: Any) -> Any:
        """The values of many names: an MGET of each hash tag, all of a node in one send, all nodes at once."""
        names = [_text(name) for name in ([keys] if isinstance(keys, str | bytes) else keys)] + list(args)
        return self._patiently(lambda: self._mget(names))

    def _mget(self, names: Sequence[str]) -> list[bytes | None]:
        by_tag: dict[int, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            by_tag[hash_slot(name)].append(row)
        by_server: dict[redis.Redis, list[list[int]]] = defaultdict(list)
        for rows in by_tag.values():
            by_server[self.server_of(names[rows[0]])].append(rows)
        asked = {
            server: [hiredis.pack_command(("MGET", *[names[row] for row in rows])) for rows in groups]  # type: ignore[arg-type]  # typed as a 1-tuple
            for server, groups in by_server.items()
        }
        found: list[bytes | None] = [None] * len(names)
        for server, replies in _answered(asked).items():
            for rows, values in zip(by_server[server], replies, strict=True):
                for row, value in zip(rows, values, strict=True):
                    found[row] = value
        return found

    def xread(self, streams: Any, count: int | None = None, *_: Any, **named: Any) -> Any:
        """What some streams have, one after another: two of them may be on two nodes. It never waits."""
        found = [self._nodes.xread({name: after}, count=count) for name, after in streams.items()]
        return [one for reply in found for one in (reply.items() if isinstance(reply, dict) else reply or [])]

    def scan_iter(self, *args: Any, **named: Any) -> Iterator[Any]:
        """The keys of all primaries, one after another."""
        for server in self.primaries():
            yield from server.scan_iter(*args, **named)

    def info(self, *args: Any, **named: Any) -> Any:
        """What one primary says of itself."""
        return self._patiently(lambda: self.primaries()[0].info(*args, **named))

    # ---- as on one server --------------------------------------------------------------------------------------

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """A command of one key."""
        return self._nodes.execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py has no types for it

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Any:
        """Commands of one key each, sent to each node together; of one hash tag, if it is a transaction."""
        return self._nodes.pipeline(transaction=transaction)  # type: ignore[no-untyped-call]  # redis-py has no types for it

    def transaction(self, func: Callable[..., Any], *watches: Any, **named: Any) -> Any:
        """A transaction on keys of one hash tag, where they are now; one that may be run again."""
        return self._patiently(lambda: self.server_of(_text(watches[0])).transaction(func, *watches, **named))

    def delete(self, *names: Any) -> Any:
        """Delete keys, wherever they are."""
        return self._nodes.delete(*names)

    def exists(self, *names: Any) -> Any:
        """How many of some keys there are."""
        return self._nodes.exists(*names)

    def close(self) -> None:
        """Disconnect from all nodes."""
        self._nodes.close()
        super().close()

    def _patiently(self, call: Callable[[], T]) -> T:
        """What a call returns, tried again by a new map while keys are elsewhere or a node cannot be reached."""
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), TRIES, (*ELSEWHERE, *AWAY))
        return retry.call_with_retry(call, self._failed)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, AuthenticationError):
            raise error
        self.outdated()


AWAY = (redis.ConnectionError, redis.TimeoutError, OSError)


def hash_slot(name: str) -> int:
    """Where a cluster keeps a key.

    >>> hash_slot("forebay:{17}:ann:spend@1:s") == hash_slot("forebay:{17}:progress:spend@1") == hash_slot("17")
    True
    """
    first = name.find("{") + 1
    last = name.find("}", first) if first else -1
    return _slot_of_tag(name[first:last] if last > first else name)


@functools.lru_cache(maxsize=4_096)
def _slot_of_tag(tag: str) -> int:
    return key_slot(tag.encode())


@contextmanager
def _formed() -> Iterator[None]:
    """Within it the map is read; redis-py takes the first of its nodes."""
    try:
        yield
    except IndexError:
        raise RedisClusterException("no node of it has hash slots") from None


def _answered(asked: Mapping[redis.Redis, Sequence[bytes]]) -> dict[redis.Redis, list[Any]]:
    """The replies of some servers to packed commands: all is sent before any reply is waited for."""
    held: dict[redis.Redis, Any] = {}
    try:
        for server, commands in asked.items():
            held[server] = server.connection_pool.get_connection()
            held[server].send_packed_command([b"".join(commands)])
        return {server: [held[server].read_response() for _ in commands] for server, commands in asked.items()}
    except BaseException:
        for connection in held.values():
            with suppress(OSError):
                connection.disconnect()  # a reply that nobody reads would be the next one's
        raise
    finally:
        for server, connection in held.items():
            server.connection_pool.release(connection)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
