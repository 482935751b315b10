"""One socket to the online store for the bulk paths: bytes go out in one send, replies are read until all are there.

Why not redis-py's pipeline: packing with hiredis and reading its replies in one loop costs 1.6 µs a command against
8–10. redis-py still opens the connection (TLS, authentication, database); from then on the socket is ours alone,
because WATCH is remembered by connection. The server keeps reading while its replies queue up on its side, so one send
can be of any size.

On a cluster a wire is to the node that has its key. A node that has it no more is one that is away: the wire is closed,
and the next one that is opened goes where the key is by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, overload

import hiredis
import redis

from forebay.errors import StoreUnavailableError
from forebay.online.cluster import Cluster
from forebay.online.connection import elsewhere, is_unwritable, loading, refused, translated, unwritable

RECEIVE_BYTES = 1 << 20
LONG_BYTES = 1 << 16
"""Of so many bytes on, to copy them costs more than to send them by themselves."""

Part = str | bytes | int
pack: Callable[[tuple[Part, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # typed as a 1-tuple
"""The bytes of one command: a tuple of text, bytes and numbers."""


ELSEWHERE = ("MOVED ", "ASK ", "TRYAGAIN", "CLUSTERDOWN")
"""How a node of a cluster begins to say that a key is elsewhere, on its way, or nowhere."""


class Wire:
    """A connection of its own to the server of a client; of a cluster, to the one that has the keys of a hash tag."""

    def __init__(self, client: redis.Redis, key: str = "") -> None:
        self.client, self._store, self._key = client, client, key
        self._connection: Any = None
        self._reader: Any = None
        self.opened = 0
        """How often it was connected."""

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return self._connection is not None

    def open(self) -> None:
        """Connect anew. Raises `StoreUnavailableError`."""
        self.close()
        with self._translated():
            if isinstance(self._store, Cluster):
                self.client = self._store.server_of(self._key)
            self._connection = self.client.connection_pool.get_connection()
        self.opened += 1
        self._reader = hiredis.Reader()

    def close(self) -> None:
        """Disconnect, which also forgets what was watched."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()
            self.client.connection_pool.release(connection)

    @overload
    def ask(self, commands: Iterable[bytes | memoryview], count: int) -> list[Any]: ...

    @overload
    def ask(self, commands: Iterable[bytes | memoryview], count: int, expected: bytes) -> list[Any] | None: ...

    def ask(
        self, commands: Iterable[bytes | memoryview], count: int, expected: bytes | None = None
    ) -> list[Any] | None:
        """Send packed commands and return their `count` replies; an error reply is returned as one.

        `None` where the replies are the bytes that were `expected`: these are compared as they come, not parsed.
        Raises `StoreUnavailableError` and closes, because what of it arrived is then unknown.
        """
        self.send(commands)
        return self.receive(count, expected)

    def send(self, commands: Iterable[bytes | memoryview]) -> None:
        """Send packed commands, whose replies are to be received. Raises as `ask` does."""
        with self._closing(), self._translated():
            for sent in _sends(commands):
                self._socket.sendall(sent)

    @overload
    def receive(self, count: int) -> list[Any]: ...

    @overload
    def receive(self, count: int, expected: bytes | None) -> list[Any] | None: ...

    def receive(self, count: int, expected: bytes | None = None) -> list[Any] | None:
        """The replies to what was sent, as `ask` returns them."""
        with self._closing(), self._translated():
            socket = self._socket
            if expected is not None:
                unlike = _unlike(socket, expected)
                if unlike is None:
                    return None
                self._reader.feed(unlike)
            return self._replies(socket, count)

    def call(self, *parts: Part) -> Any:
        """One command and its reply. Raises `StoreError` for an error reply."""
        return self.checked(self.ask([pack(parts)], 1)[0])

    def checked(self, reply: Any) -> Any:
        """The reply, unless it is or holds an error. Raises `StoreError`.

        A server that is still loading its data, or takes no writes, is one that is away: `StoreUnavailableError`, and
        the wire is closed. So is a node of a cluster that does not have the key.
        """
        for part in reply if isinstance(reply, list) else (reply,):
            if isinstance(part, hiredis.ReplyError):
                if str(part).startswith("LOADING"):
                    self.close()
                    raise loading(self.client)
                if str(part).startswith(ELSEWHERE):
                    raise self.moved(part)
                if is_unwritable(part):
                    raise self.unwritable(part)
                raise refused(self.client, part)
        return reply

    def moved(self, error: Exception) -> StoreUnavailableError:
        """What a reply means that says that the key is elsewhere; the wire is closed."""
        self.close()
        if isinstance(self._store, Cluster):
            self._store.outdated()
        return elsewhere(self.client, error)

    def unwritable(self, error: Exception) -> StoreUnavailableError:
        """What a reply means that says that the server takes no writes; the wire is closed, so that whoever tries again
        looks anew at what is there.
        """
        self.close()
        return unwritable(self.client, error)

    @property
    def _socket(self) -> Any:
        if self._connection is None:
            raise ConnectionResetError("its connection was closed")
        return self._connection._sock  # redis-py has no public way to read many replies at once

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """As `translated`; whatever failed, the map of a cluster is asked for again."""
        try:
            with translated(self.client):
                yield
        except StoreUnavailableError:
            if isinstance(self._store, Cluster):
                self._store.outdated()
            raise

    @contextmanager
    def _closing(self) -> Iterator[None]:
        """Close when it fails, because what of it arrived is then unknown."""
        try:
            yield
        except BaseException:
            self.close()
            raise

    def _replies(self, socket: Any, count: int) -> list[Any]:
        replies: list[Any] = []
        next_reply = self._reader.gets
        while True:
            while len(replies) < count:
                reply = next_reply()
                if reply is False:
                    break
                replies.append(reply)
            if len(replies) == count:
                return replies
            self._reader.feed(_received(socket))


def _sends(commands: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """Packed commands as what is sent at once: short ones joined, long ones where they are."""
    short: list[bytes | memoryview] = []
    for command in commands:
        if len(command) < LONG_BYTES:
            short.append(command)
            continue
        if short:
            yield b"".join(short)
            short = []
        yield command
    if short:
        yield b"".join(short)


def _unlike(socket: Any, expected: bytes) -> bytes | None:
    """`None` once the bytes that were expected have come; what has come, as soon as it is anything else."""
    received = bytearray()
    while len(received) < len(expected):
        more = _received(socket)
        if more != expected[len(received) : len(received) + len(more)]:
            return bytes(received + more)
        received += more
    return None


def _received(socket: Any) -> bytes:
    data: bytes = socket.recv(RECEIVE_BYTES)
    if not data:
        raise ConnectionResetError("it closed the connection")
    return data
