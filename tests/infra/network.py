"""A network between clients and servers that holds up what one connection sends, and delivers it when it was given up.

    client ──▶ held │ ✕ its connection breaks           client ──▶ a new connection, which is not held ──▶ server
                    └───────────────────────────────────────────── deliver ──────────────────────────────▶ server

That is what TCP does with what was sent when no packet came through for a while, and a proxy that has buffered it. The
server knows nothing of it: to it the old connection is there, with what it watches. Invariants: it listens on 127.0.0.1
only; what one client sends at once is passed on whole, or held whole.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Self

import hiredis

BLOCK_BYTES = 1 << 16
POLL_S = 0.01


class Network:
    """Passes on from ports to those of servers of Redis; as a context manager it runs within the block."""

    def __init__(self, ports: Mapping[int, int]) -> None:
        self.ports = list(ports)
        self._words: tuple[bytes, ...] = ()
        self._held: list[tuple[socket.socket, threading.Thread, bytes]] = []
        self._listeners = [_Listener(self, listened, to) for listened, to in ports.items()]
        for listener in self._listeners:
            threading.Thread(target=listener.serve_forever, args=(POLL_S,), daemon=True).start()

    def hold(self, *words: bytes) -> None:
        """Hold up what is sent next that has all of these words in it, and break its connection."""
        self._words = words

    def deliver(self) -> int:
        """Have servers get what was held up, and return once they have dealt with it; how much it was."""
        held, self._held = self._held, []
        for there, answers, sent in held:
            there.sendall(sent)
            there.shutdown(socket.SHUT_WR)  # the server has read all that came before it finds the end
            answers.join()
        return len(held)

    def is_held(self, there: socket.socket, answers: threading.Thread, sent: bytes) -> bool:
        """Whether something that is sent to a server is held up, from now on."""
        if not self._words or not all(word in sent for word in self._words):
            return False
        self._words = ()
        self._held.append((there, answers, sent))
        return True

    def close(self) -> None:
        """End it."""
        self.deliver()
        for listener in self._listeners:
            listener.shutdown()
            listener.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Listener(ThreadingTCPServer):
    """What listens in the place of one server."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, network: Network, port: int, to: int) -> None:
        self.network, self.to = network, to
        super().__init__(("127.0.0.1", port), _Passing)


class _Passing(BaseRequestHandler):
    """One connection, until its client ends it or it is held."""

    def handle(self) -> None:
        """Pass on what the client sends, command by command, transactions whole."""
        listener, client = self.server, self.request
        assert isinstance(listener, _Listener)
        there = socket.create_connection(("127.0.0.1", listener.to))
        answers = threading.Thread(target=_answer, args=(there, client), daemon=True)
        answers.start()
        sent = b""
        with suppress(OSError):
            while block := client.recv(BLOCK_BYTES):
                sent += block
                if _is_whole(sent):
                    if listener.network.is_held(there, answers, sent):
                        return
                    there.sendall(sent)
                    sent = b""
            there.shutdown(socket.SHUT_WR)


def _is_whole(sent: bytes) -> bool:
    """Whether it ends with a command, and outside a transaction."""
    reader = hiredis.Reader()
    reader.feed(sent)
    commands = [command[0].upper() for command in iter(reader.gets, False)]
    return not reader.has_data() and commands.count(b"MULTI") == commands.count(b"EXEC")


def _answer(there: socket.socket, client: socket.socket) -> None:
    """Pass on what a server sends, to its end, whether or not anybody is there to hear it."""
    with suppress(OSError), there:
        while block := there.recv(BLOCK_BYTES):
            with suppress(OSError):
                client.sendall(block)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)
