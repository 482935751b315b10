"""One socket to the online store for the bulk paths: bytes go out in one send, replies are read until all are there.

Why not redis-py's pipeline: packing with hiredis and reading its replies in one loop costs 1.6 µs a command against
8–10. redis-py still opens the connection (TLS, authentication, database); from then on the socket is ours alone,
because WATCH is remembered by connection. The server keeps reading while its replies queue up on its side, so one send
can be of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import hiredis
import redis

from forebay.errors import StoreError
from forebay.online.connection import address, loading, translated

RECEIVE_BYTES = 1 << 20

Part = str | bytes | int
pack: Callable[[tuple[Part, ...]], bytes] = hiredis.pack_command  # type: ignore[assignment]  # typed as a 1-tuple
"""The bytes of one command: a tuple of text, bytes and numbers."""


class Wire:
    """A connection of its own to the server of a client."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self._connection: Any = None
        self._reader: Any = None

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return self._connection is not None

    def open(self) -> None:
        """Connect anew. Raises `StoreUnavailableError`."""
        self.close()
        with translated(self.client):
            self._connection = self.client.connection_pool.get_connection()
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
        try:
            with translated(self.client):
                socket = self._connection._sock  # redis-py has no public way to read many replies at once
                socket.sendall(b"".join(commands))
                if expected is not None:
                    unlike = _unlike(socket, expected)
                    if unlike is None:
                        return None
                    self._reader.feed(unlike)
                return self._replies(socket, count)
        except BaseException:
            self.close()
            raise

    def call(self, *parts: Part) -> Any:
        """One command and its reply. Raises `StoreError` for an error reply."""
        return self.checked(self.ask([pack(parts)], 1)[0])

    def checked(self, reply: Any) -> Any:
        """The reply, unless it is or holds an error. Raises `StoreError`.

        A server that is still loading its data is one that is away: `StoreUnavailableError`, and the wire is closed.
        """
        for part in reply if isinstance(reply, list) else (reply,):
            if isinstance(part, hiredis.ReplyError):
                if str(part).startswith("LOADING"):
                    self.close()
                    raise loading(self.client)
                raise StoreError(f"Redis at {address(self.client)} refused a command: {part}")
        return reply

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
