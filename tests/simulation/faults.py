"""What may happen at any operation on a store: nothing, a death, a lost reply, a store that is away, somebody else.

    before ──┬── the operation ──┬── after          before: dies, or cannot reach the store: nothing has arrived
             │                   │                  after:  dies, or never gets the reply: all of it has arrived
             └ others act        └ others act       others: a reader, a writer, a publisher takes its turn in between

    held ────── gives up, reconnects, goes on ──────── delivered: it arrives at any later operation of anybody, on the
                                                       connection on which it was sent, with what that watches

Lives here: the hooks around the real sends (`Wire.send`, `Wire.receive`) and the real commits (`LakeTable._write`).
Only operations of an actor of the simulation are touched; checks and preparations are not. What the network holds and
delivers is drawn from a chance of its own.
"""

from __future__ import annotations

import random
import select
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from forebay.errors import StoreUnavailableError
from forebay.offline.commit import Commit
from forebay.offline.lake_table import LakeTable
from forebay.offline.publications import PUBLICATION
from forebay.online import bulk
from forebay.online.wire import Wire, pack

REPLY_MS = 10_000
MULTI = pack(("MULTI",))
DEPTH_MAX = 3
"""How many actors may stand in the middle of something."""


class Killed(BaseException):
    """The process died here."""


class AtOnce(Executor):
    """What is handed over is done before the hand is withdrawn: a run has one thread, so that a seed decides it."""

    def __init__(self, *_: object) -> None:
        """However many threads were asked for."""

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        """The outcome, which is known when this returns."""
        done: Future[Any] = Future()
        try:
            done.set_result(call(*arguments, **named))
        except BaseException as error:  # noqa: BLE001  a death too is told to whoever waits for the outcome
            done.set_exception(error)
        return done


@dataclass(frozen=True)
class Held:
    """What was sent on a connection and has not arrived; `saw` looks at what it does when it does."""

    wire: Wire
    connection: Any
    sent: bytes
    saw: Callable[[], None]

    def arrive(self) -> None:
        """Have the server get it, and return once it has dealt with it; then the connection ends."""
        there = self.connection._sock
        with suppress(OSError):
            there.sendall(self.sent)
            there.shutdown(socket.SHUT_WR)
            while there.recv(1 << 16):
                pass
        self.close()

    def close(self) -> None:
        """It never arrives."""
        self.connection.disconnect()
        self.wire.client.connection_pool.release(self.connection)


@dataclass
class Faults:
    """The hooks, and how often what happens at them."""

    chance: random.Random
    kill: float = 0.0
    lose: float = 0.0
    others: float = 0.0
    apart: bool = False
    """Whether a write is many sends, some of them before the first reply is read."""
    away: int = 0
    """Commits that the offline store still refuses."""
    act: Callable[[], None] = lambda: None
    """Let somebody else take a turn."""
    saw: Callable[[str], None] = lambda what: None
    """Look at what an operation of an actor has done."""
    network: random.Random = field(default_factory=random.Random)
    hold: float = 0.0
    """How often the network holds a transaction up."""
    deliver: float = 0.0
    """How often, at an operation, something of that arrives."""
    looking: Callable[[], Callable[[], None]] = lambda: lambda: None
    """A look at what the operation under way does, whenever it arrives."""
    held: list[Held] = field(default_factory=list)
    acting: list[object] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def as_actor(self, actor: object) -> Iterator[None]:
        """Operations within the block are those of an actor."""
        self.acting.append(actor)
        try:
            yield
        finally:
            self.acting.pop()

    @contextmanager
    def none(self) -> Iterator[None]:
        """No operation within the block is touched."""
        acting, self.acting = self.acting, []
        try:
            yield
        finally:
            self.acting = acting

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the hooks around sends and commits; call it after a `MemoryLake` was installed."""
        send, receive, write = Wire.send, Wire.receive, LakeTable._write

        def before(wire: Wire, commands: Iterable[bytes]) -> None:
            self._before("online", wire.close)
            self._deliver_some()
            sent = b"".join(commands)
            if self.acting and self.hold and wire.is_open and _writes(sent) and self.network.random() < self.hold:
                self._hold(wire, sent)
            send(wire, [sent])
            if self.apart and self.acting:
                self._arrived(wire)

        def after(wire: Wire, count: int, expected: bytes | None = None) -> list[Any] | None:
            replies = receive(wire, count, expected)
            self._deliver_some()
            self._after("online", wire.close)
            return replies

        def commit(table: LakeTable, snapshot: Any, prepared: Commit, **how: Any) -> None:
            what = f"note of {table.path}" if PUBLICATION in prepared.positions else table.path
            self._before(what, lambda: None)
            write(table, snapshot, prepared, **how)
            self._after(what, lambda: None)

        patch.setattr(Wire, "send", before)
        patch.setattr(Wire, "receive", after)
        patch.setattr(bulk, "ThreadPoolExecutor", AtOnce)
        patch.setattr(LakeTable, "_write", commit)

    def deliver_all(self) -> None:
        """What is held up arrives now."""
        while self.held:
            self._deliver()

    def _hold(self, wire: Wire, sent: bytes) -> None:
        """The sender gives it up, and its connection; the server knows nothing of that."""
        self._count("held")
        connection, wire._connection = wire._connection, None
        self.held.append(Held(wire, connection, sent, self.looking()))
        raise StoreUnavailableError("online: no reply yet")

    def _deliver_some(self) -> None:
        if self.acting and self.held and self.network.random() < self.deliver:
            self._deliver()

    def _deliver(self) -> None:
        self._count("delivered")
        one = self.held.pop(self.network.randrange(len(self.held)))
        one.arrive()
        one.saw()

    def _before(self, what: str, forget: Callable[[], None]) -> None:
        if not self.acting:
            return
        if what != "online" and self.away > 0:
            self.away -= 1
            self._count("away")
            raise StoreUnavailableError(f"{what}: away")
        self._maybe(what, forget, "before")

    def _after(self, what: str, forget: Callable[[], None]) -> None:
        if not self.acting:
            return
        if what != "online" or not self.apart:
            self.saw(what)
        self._maybe(what, forget, "after")

    def _arrived(self, wire: Wire) -> None:
        """Look once it was done: other slots are sent to before the reply is read, and others may act in between."""
        reply = select.poll()
        reply.register(wire._socket, select.POLLIN)
        reply.poll(REPLY_MS)
        self.saw("online")

    def _maybe(self, what: str, forget: Callable[[], None], when: str) -> None:
        draw = self.chance.random()
        if draw < self.kill:
            self._count(f"killed {when}")
            raise Killed
        if draw < self.kill + self.lose:
            self._count(f"lost {when}")
            forget()
            raise StoreUnavailableError(f"{what}: no reply")
        if draw < self.kill + self.lose + self.others and len(self.acting) < DEPTH_MAX:
            self._count("others")
            self.act()
            if getattr(self.acting[-1], "dead", False):
                raise Killed

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


def _writes(sent: bytes) -> bool:
    """Whether it is a transaction: it matters little when a question arrives that nobody asks any more."""
    return sent.startswith(MULTI)
