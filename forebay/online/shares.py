"""The transactions that a write of many slots takes: on one server one, or one for each lane; on a cluster one for each
slot.

    one server    ┌─ all slots of the writer ─┐    one wire, one fence: WATCH, MULTI … EXEC, one send
      large       ┌ lane 0 ┐ … ┌ lane 7 ┐          two more wires in turn: two are on their way at a time
    cluster       ┌─ 0 ─┐ ┌─ 1 ─┐ … ┌─ 63 ─┐       a wire and a fence each: all are sent, then all replies are read

A *share* is the slots of one transaction. WATCH, MULTI and MGET fail across hash tags even on one node, and EXEC clears
all WATCHes of a connection, so on a cluster each slot has a connection of its own. On one server a transaction of many
thousand commands is divided by lanes: the server keeps all of its commands until EXEC, and what leaves its processor's
cache costs twice as much each (docs/adr/0267). What a write means is the same: a share is written whole while the
writer's token is in its slots, and not at all once another's is. But of several shares some may be written and others
not; who needs to know reads what is there (`forebay.online.lane`).

On one server a writer takes all slots in one transaction. On a cluster its token begins with a number, `12:5f0c…`, and
is put into one slot after another, but never in the place of a greater one: of two writers that take the same slots at
once the one with the greater number has them all in the end, and the other one is refused or fenced.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import redis

from forebay.core.identity import LANES
from forebay.errors import FencedError, ForebayError, StoreUnavailableError
from forebay.online.cluster import Cluster
from forebay.online.division import Division
from forebay.online.fence import Fence
from forebay.online.resp import Chunk
from forebay.online.wire import Wire, pack

DIVIDED_MIN = 3072
"""Keys appended to, from which on a commit is divided on one server: some 2,000 in one transaction cost as few do."""
TURNS = 2
"""Shares of a divided commit that are on their way at a time."""
TURNS_REST_S = 5.0
"""Their connections are opened anew after so long without one: a server, or what lies between, may have closed them."""
TAKES_MAX = 16
"""Each try that fails was overtaken by another writer, so somebody went on."""
_MULTI, _EXEC = pack(("MULTI",)), pack(("EXEC",))

Command = bytes | Chunk
T = TypeVar("T")
Asked = TypeVar("Asked")


@dataclass(frozen=True)
class Owned:
    """What a writer's token is put into, by slot; what it watches besides; and how its errors name it."""

    names: Callable[[int], Sequence[str]]
    what: str
    gone: str
    others: Callable[[int], Mapping[str, bytes | None]] = lambda slot: {}


class Shares:
    """The shares of a writer of some slots; `apart` says that each slot is one, always. `whole` is the division of what
    is small, and of all that is no commit of many keys; `finest` that of what is large.
    """

    def __init__(self, client: redis.Redis, slots: Sequence[int], owned: Owned, token: bytes | None = None) -> None:
        self.apart = isinstance(client, Cluster)
        self.whole = Division([(slot,) for slot in slots] if self.apart else [tuple(slots)])
        lanes = [] if self.apart else _by_lane(slots)
        self.finest = Division(lanes) if len(lanes) > 1 else self.whole
        self._owned = owned
        self._names = [[name for slot in share for name in owned.names(slot)] for share in self.whole.shares]
        self._wires = [Wire(client, names[0] if names else "") for names in self._names]
        self._turns = [] if self.apart else [Wire(client) for _ in range(TURNS)]
        self._turned_s = time.monotonic()
        self._fence(token or uuid.uuid4().hex.encode())

    @property
    def token(self) -> bytes:
        """What another process needs to write as this writer."""
        return self._fences[0].token

    @property
    def tokens(self) -> dict[str, bytes]:
        """What makes it the writer, once it is in the store."""
        return {name: token for fence in self._fences for name, token in fence.tokens.items()}

    @property
    def client(self) -> redis.Redis:
        """A server that it writes to."""
        return self._wires[0].client

    @property
    def is_open(self) -> bool:
        """Whether it is connected, as far as it knows."""
        return all(wire.is_open for wire in self._wires)

    def open(self) -> None:
        """Connect anew. Raises `StoreUnavailableError`."""
        self.close()
        try:
            for wire in self._wires:
                wire.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. The tokens stay."""
        for wire in (*self._wires, *self._turns):
            wire.close()

    def arm(self) -> None:
        """Watch the tokens. Raises `FencedError` where one is gone."""
        every = dict.fromkeys(range(len(self._fences)))
        self._together(
            every,
            lambda place, _: self._fences[place].send_guard(),
            lambda place, _: self._fences[place].receive_guard(),
        )

    def void(self) -> None:
        """See that nothing runs any more that was sent under this token before, on any connection; they are armed.

        Raises as `commit` does.
        """
        self.commit({place: [fence.touch] for place, fence in enumerate(self._fences)})

    def fence(self, slot: int) -> Fence:
        """The fence of a slot's share."""
        return self._fences[self.whole.place(slot)]

    # ---- by the number of a share --------------------------------------------------------------------------------

    def division(self, keys: int) -> Division:
        """How a commit that appends to so many keys is divided."""
        return self.finest if keys >= DIVIDED_MIN else self.whole

    def commit(
        self, commands: Mapping[int, Sequence[Command]], division: Division | None = None
    ) -> dict[int, list[Any]]:
        """Run the commands of each share of a division (`whole`) as one transaction of it; the replies to them.

        Raises as `Fence.commit` does, for any of them; the others may have been written. Where it
        does not know what was written, it is closed.
        """
        if division is not None and division is not self.whole:
            return self._in_turns(commands)
        return self._together(
            commands if commands or self.apart else {0: ()},
            lambda place, some: self._fences[place].send(some),
            lambda place, some: self._fences[place].receive(some),
        )

    def mget(self, names: Mapping[int, Sequence[str]]) -> dict[int, list[bytes | None]]:
        """The values of names of each share, as of one instant of it."""
        return self._together(
            names,
            lambda place, some: self._wires[place].send([pack(("MGET", *some))]),
            lambda place, some: self._wires[place].checked(self._wires[place].receive(1)[0]),
        )

    # ---- taking ------------------------------------------------------------------------------------------------

    def take(self) -> None:
        """Become the writer, whoever was it, with nobody's number; and arm. On one server, in one transaction."""
        if self.apart:
            self.take_as(self.newest() + 1)
        else:
            self._fences[0].take()

    def newest(self) -> int:
        """The greatest number of a token in any of its slots."""
        found = self.mget(dict(enumerate(self._names)))
        return max((_rank(token)[0] for tokens in found.values() for token in tokens), default=0)

    def take_as(self, number: int, beside: Callable[[int], Sequence[bytes]] = lambda slot: ()) -> None:
        """Become the writer of the slots of a cluster under a number, and arm; with each slot, `beside` is written.

        Raises `FencedError` where somebody has a slot under a greater one, and may have taken other slots then.
        """
        self._fence(b"%d:%s" % (number, self.token.rpartition(b":")[2]))
        rank, waiting = _rank(self.token), dict(enumerate(self.whole.shares))
        for _ in range(TAKES_MAX):
            self._check_older(waiting, rank)
            waiting = {
                place: self.whole.shares[place]
                for place, outcome in self._together(
                    {place: self._taking(place, beside) for place in waiting},
                    lambda place, some: self._wires[place].send(some),
                    lambda place, some: self._wires[place].receive(len(some)),
                ).items()
                if self._wires[place].checked(outcome)[-1] is None
            }
            if not waiting:
                return self.arm()
        raise self._taken()

    def _check_older(self, places: Mapping[int, Any], rank: tuple[int, bytes]) -> None:
        """Watch what is to be taken. Raises `FencedError` where somebody has it whose rank is greater."""
        found = self._together(
            {place: self._names[place] for place in places},
            lambda place, some: self._wires[place].send([pack(("WATCH", *some)), pack(("MGET", *some))]),
            lambda place, some: self._wires[place].checked(
                [self._wires[place].checked(reply) for reply in self._wires[place].receive(2)][1]
            ),
        )
        if any(_rank(token) > rank for tokens in found.values() for token in tokens):
            self.close()
            raise self._taken()

    def _taking(self, place: int, beside: Callable[[int], Sequence[bytes]]) -> list[bytes]:
        pairs = [part for name in self._names[place] for part in (name, self.token)]
        more = [command for slot in self.whole.shares[place] for command in beside(slot)]
        return [_MULTI, pack(("MSET", *pairs)), *more, _EXEC]

    def _taken(self) -> FencedError:
        return FencedError(f"Another writer took over {self._owned.what} at the same time. This one must stop.")

    def _fence(self, token: bytes) -> None:
        """Write under a token from now on."""
        self._fences = []
        for share, wire in zip(self.whole.shares, self._wires, strict=True):
            self._fences.append(self._fence_of(share, wire, token, f" in slot {share[0]}" if self.apart else ""))
        every = [slot for share in self.whole.shares for slot in share]
        self._fences_in_turn = [self._fence_of(every, wire, token, " in some of its lanes") for wire in self._turns]

    def _fence_of(self, slots: Sequence[int], wire: Wire, token: bytes, where: str) -> Fence:
        owned = self._owned
        names = [name for slot in slots for name in owned.names(slot)]
        others = {name: value for slot in slots for name, value in owned.others(slot).items()}
        return Fence(wire, names, owned.what, owned.gone, token, others, where)

    def _in_turns(self, commands: Mapping[int, Sequence[Command]]) -> dict[int, list[Any]]:
        """One share after another, of which two are on their way: the server has the next when it has applied one."""
        found: dict[int, list[Any]] = {}
        sent: deque[tuple[int, Fence]] = deque()
        try:
            if time.monotonic() - self._turned_s > TURNS_REST_S:
                for wire in self._turns:
                    wire.close()
            for fence in self._fences_in_turn:
                if not fence.is_armed:
                    fence.rearm()
            for place, fence in zip(commands, itertools.cycle(self._fences_in_turn), strict=False):
                if len(sent) == TURNS:
                    earlier, its = sent.popleft()
                    found[earlier] = its.receive(commands[earlier])
                fence.send(commands[place])
                sent.append((place, fence))
            for place, fence in sent:
                found[place] = fence.receive(commands[place])
        except BaseException:
            self.close()
            raise
        self._turned_s = time.monotonic()
        return found

    def _together(
        self, asked: Mapping[int, Asked], send: Callable[[int, Asked], None], receive: Callable[[int, Asked], T]
    ) -> dict[int, T]:
        """Send to all shares that are asked, then receive from them, from those too that come after a failure: what was
        sent is applied by then, or its connection is at an end.
        """
        found: dict[int, T] = {}
        sent: list[int] = []
        failures: list[ForebayError] = []
        try:
            with _noting(failures):
                for place, some in asked.items():
                    send(place, some)
                    sent.append(place)
            for place in sent:
                with _noting(failures):
                    found[place] = receive(place, asked[place])
            if failures:
                raise min(failures, key=lambda error: isinstance(error, StoreUnavailableError))
        except BaseException:
            if self.apart:
                self.close()
            raise
        return found


def _by_lane(slots: Sequence[int]) -> list[tuple[int, ...]]:
    lanes = sorted({slot % LANES for slot in slots})
    return [tuple(slot for slot in slots if slot % LANES == lane) for lane in lanes]


@contextmanager
def _noting(failures: list[ForebayError]) -> Iterator[None]:
    try:
        yield
    except ForebayError as error:
        failures.append(error)


def _rank(token: bytes | None) -> tuple[int, bytes]:
    """The number of a token and, of equal ones, itself."""
    number, colon, _ = (token or b"").partition(b":")
    return (int(number) if colon and number.isdigit() else 0, token or b"")
