"""The right to write, which another writer can take away.

A writer puts its token into some keys. Each of its transactions is sent under WATCH of those keys, with their
values compared before, so that it is written whole while the token is there and not at all once it is not:

    WATCH k; MGET k     MULTI … EXEC; WATCH k; MGET k     MULTI … EXEC; WATCH k; MGET k     …
    └─ armed ─────────→ └─ one send ────────────────→     └─ one send

The guard of the next transaction travels behind the present one, so a commit costs one round trip. EXEC clears all
WATCHes of the connection: exactly one transaction per send.

A connection may break with a transaction on its way, which the network may deliver when its writer has long written on
another one, under the same token:

    one         WATCH k     MULTI … EXEC ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ▶ nil: k was touched
    the next                × no reply    WATCH k; MULTI, SET k to the same, EXEC   what is there?   MULTI … EXEC
                                          └─ void ────────────────────────────┘

A SET touches what is watched, also one to the same value. So whoever may not write twice sends `touch` first, and then
looks at what is there: what had arrived by then is seen, what had not never runs (docs/adr/0250).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import hiredis

from forebay.errors import FencedError, StoreError, StoreUnavailableError
from forebay.online.connection import address, is_unwritable
from forebay.online.resp import OK, Chunk
from forebay.online.wire import ELSEWHERE, Wire, pack

_MULTI, _EXEC, _UNWATCH = pack(("MULTI",)), pack(("EXEC",)), pack(("UNWATCH",))
_QUEUED = b"+QUEUED\r\n"


class Fence:
    """A token in `keys`, for transactions on `wire`; errors name `what` it guards and what it means if it is `gone`.

    `others` are keys that must stay as they are, besides: the tokens of somebody whose take-over ends this writer.
    `where` is where a commit was not written, if it has other parts (`forebay.online.shares`).
    """

    def __init__(
        self,
        wire: Wire,
        keys: Sequence[str],
        what: str,
        gone: str,
        token: bytes | None = None,
        others: Mapping[str, bytes | None] | None = None,
        where: str = "",
    ) -> None:
        self._wire, self._keys, self.what, self._gone = wire, list(keys), what, gone
        self._where = where
        self._others = dict(others or {})
        self.token = token or uuid.uuid4().hex.encode()
        watched = (*self._keys, *self._others)
        self._guard = pack(("WATCH", *watched)) + pack(("MGET", *watched))
        self._expected = [*[self.token] * len(self._keys), *self._others.values()]
        self._still_there = b"*%d\r\n" % len(watched) + b"".join(map(_bulk, self._expected))
        self._lost: list[bytes | None] | None = None
        self._is_armed = False

    @property
    def tokens(self) -> dict[str, bytes]:
        """What taking it is: this token in all keys, whoever's was there."""
        return dict.fromkeys(self._keys, self.token)

    @property
    def touch(self) -> bytes:
        """A packed command for a transaction of its own, after which none runs any more that was sent before it, on
        any connection. The token must be one that does not expire.
        """
        return pack(("MSET", *(part for pair in self.tokens.items() for part in pair)))

    def take(self) -> None:
        """Put the token into all keys, whoever's was there, and arm; a take that arrives late replaces nobody's since.

        Raises `StoreUnavailableError` where somebody else put theirs there at the same moment.
        """
        self._wire.call("WATCH", *self._keys)
        if self._wire.checked(self._wire.ask([_MULTI, self.touch, _EXEC], 3)[-1]) is None:
            self._wire.close()
            raise StoreUnavailableError(f"Another writer took over {self.what} at the same moment. Try again.")
        self.arm()

    def another(self, wire: Wire) -> Fence:
        """The same token on another connection, still to be armed."""
        return Fence(wire, self._keys, self.what, self._gone, self.token, self._others, self._where)

    @property
    def is_armed(self) -> bool:
        """Whether it watches its keys, as far as it knows."""
        return self._wire.is_open and self._is_armed

    def rearm(self) -> None:
        """Connect anew where that is needed, and arm. Raises `FencedError` where the token is gone."""
        if not self._wire.is_open:
            self._wire.open()
        self.arm()

    def arm(self) -> None:
        """Watch the keys, as they are now. Raises `FencedError` where the token is gone."""
        self.send_guard()
        self.receive_guard()

    def send_guard(self) -> None:
        """Send what `arm` does, whose replies are to be received."""
        self._wire.send([_UNWATCH, self._guard])

    def receive_guard(self) -> None:
        """What `arm` finds, once it was sent."""
        self._look(self._wire.receive(3)[1:])
        self.check()

    def commit(self, commands: Sequence[bytes | Chunk]) -> list[Any]:
        """Run packed commands, and chunks of them, as one transaction and return the reply of each command.

        Raises `FencedError`, and has written nothing, where another writer took over; `StoreUnavailableError`, and has
        written nothing, where the tokens were touched only; `StoreError` for a command that was refused.
        """
        self.send(commands)
        return self.receive(commands)

    def send(self, commands: Sequence[bytes | Chunk]) -> None:
        """Send what `commit` does, whose replies are to be received."""
        self.check()
        parts = [one.data if isinstance(one, Chunk) else one for one in commands]
        self._wire.send([_MULTI, *parts, _EXEC, self._guard])

    def receive(self, commands: Sequence[bytes | Chunk]) -> list[Any]:
        """What `commit` returns, for commands that were sent."""
        count = sum(one.commands if isinstance(one, Chunk) else 1 for one in commands)
        return self._outcome(count, self._wire.receive(count + 4))

    @property
    def opened(self) -> int:
        """How often it was connected."""
        return self._wire.opened

    def read(self, name: str) -> bytes | None:
        """A value beside its keys."""
        found: bytes | None = self._wire.call("GET", name)
        return found

    def write(self, chunk: Chunk, counted: bytes = b"") -> None:
        """Run a chunk of commands as one transaction, `counted` by a packed SET. Raises as `commit` does.

        What the server answers if all is well is known beforehand, so it is compared and not parsed.
        """
        self.check()
        count = chunk.commands + bool(counted)
        replies_fine = chunk.reply * chunk.commands + (OK if counted else b"")
        fine = b"".join((OK, _QUEUED * count, b"*%d\r\n" % count, replies_fine, OK, self._still_there))
        replies = self._wire.ask([_MULTI, chunk.data, counted, _EXEC, self._guard], count + 4, fine)
        if replies is not None:
            self._outcome(count, replies)

    def _outcome(self, count: int, replies: list[Any]) -> list[Any]:
        self._look(replies[-2:])
        outcome = replies[count + 1]
        if outcome is None:
            self._wire.close()
            self.check()
            raise self._touched()
        if isinstance(outcome, hiredis.ReplyError):
            why = next((reply for reply in replies[: count + 1] if isinstance(reply, hiredis.ReplyError)), outcome)
            if str(why).startswith(ELSEWHERE):
                raise self._wire.moved(why)
            if is_unwritable(why):
                raise self._wire.unwritable(why)
            raise StoreError(
                f"Redis at {address(self._wire.client)} refused to write: {why}. Nothing was written{self._where}."
            )
        self._wire.checked(outcome)
        return list(outcome)

    def check(self) -> None:
        """Raise `FencedError` if the last look found that the token is gone."""
        if self._lost is not None:
            raise self._fenced()

    def _look(self, replies: list[Any]) -> None:
        for reply in replies:
            self._wire.checked(reply)
        lost = [token for token, expected in zip(replies[1], self._expected, strict=True) if token != expected]
        self._lost = lost or None
        self._is_armed = True

    def _touched(self) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"Whoever writes {self.what}, or the flow beside it, has reconnected to Redis at "
            f"{address(self._wire.client)} meanwhile. Nothing of this commit was written{self._where}. Try again."
        )

    def _fenced(self) -> FencedError:
        if self._lost is not None and all(token is None for token in self._lost):
            return FencedError(
                f"The token of {self.what} is gone. {self._gone} Nothing of this commit was written{self._where}."
            )
        return FencedError(
            f"Another writer took over {self.what}. This one must stop; nothing of this commit was written"
            f"{self._where}."
        )


def _bulk(value: bytes | None) -> bytes:
    """A value as the server sends it."""
    return b"$-1\r\n" if value is None else b"$%d\r\n%b\r\n" % (len(value), value)
