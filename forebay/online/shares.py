"""The transactions that a write of many slots takes: on one server one, on a cluster one for each slot.

    one server    ┌─ all slots of the writer ─┐    one wire, one fence: WATCH, MULTI … EXEC, one send
    cluster       ┌─ 0 ─┐ ┌─ 1 ─┐ … ┌─ 63 ─┐       a wire and a fence each: all are sent, then all replies are read

A *share* is the slots of one transaction. WATCH, MULTI and MGET fail across hash tags even on one node, and EXEC clears
all WATCHes of a connection, so on a cluster each slot has a connection of its own. What a write means is the same: a
share is written whole while the writer's token is in its slots, and not at all once another's is. But of several shares
some may be written and others not; who needs to know reads what is there (`forebay.online.lane`).

On one server a writer takes all slots in one transaction. On a cluster its token begins with a number, `12:5f0c…`, and
is put into one slot after another, but never in the place of a greater one: of two writers that take the same slots at
once the one with the greater number has them all in the end, and the other one is refused or fenced.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import redis

from forebay.errors import FencedError, ForebayError, StoreUnavailableError
from forebay.online.cluster import Cluster
from forebay.online.fence import Fence
from forebay.online.resp import Chunk
from forebay.online.wire import Wire, pack

TAKES_MAX = 16
"""Each try that fails was overtaken by another writer, so somebody went on."""
_MULTI, _EXEC = pack(("MULTI",)), pack(("EXEC",))

Ints = npt.NDArray[np.int64]
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
    """The shares of a writer of some slots; `apart` says that each slot is one. Numbered from 0, by ascending slot."""

    def __init__(self, client: redis.Redis, slots: Sequence[int], owned: Owned, token: bytes | None = None) -> None:
        self.apart = isinstance(client, Cluster)
        self.slots = [(slot,) for slot in slots] if self.apart else [tuple(slots)]
        self._owned = owned
        self._names = [[name for slot in share for name in owned.names(slot)] for share in self.slots]
        self._wires = [Wire(client, names[0] if names else "") for names in self._names]
        self._places = np.full(max(slots, default=0) + 1, 0, np.int64)
        for place, share in enumerate(self.slots):
            self._places[list(share)] = place
        self._fences = self._fenced_by(token or uuid.uuid4().hex.encode())

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
        try:
            for wire in self._wires:
                wire.open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Disconnect. The tokens stay."""
        for wire in self._wires:
            wire.close()

    def arm(self) -> None:
        """Watch the tokens. Raises `FencedError` where one is gone."""
        every = dict.fromkeys(range(len(self.slots)))
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
        return self._fences[int(self._places[slot])]

    # ---- one after another or by the number of a share -----------------------------------------------------------

    def order(self, slots: Ints) -> Ints | None:
        """How rows of these slots are to be ordered for `spans`; `None`: as they are."""
        return np.argsort(slots, kind="stable") if self.apart else None

    def spans(self, slots: Ints) -> list[tuple[int, slice]]:
        """Which rows, whose slots are in that order, belong to which share; none is without rows."""
        if not len(slots):
            return []
        if not self.apart:
            return [(0, slice(0, len(slots)))]
        places = self._places[slots]
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        ends = [*starts[1:].tolist(), len(places)]
        return [(int(places[first]), slice(int(first), last)) for first, last in zip(starts, ends, strict=True)]

    def commit(self, commands: Mapping[int, Sequence[Command]]) -> dict[int, list[Any]]:
        """Run the commands of each share as one transaction of it; the replies to them.

        Raises as `Fence.commit` does, for any of them; the others may have been written. Then it is closed.
        """
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
        self._fences = self._fenced_by(b"%d:%s" % (number, self.token.rpartition(b":")[2]))
        rank, waiting = _rank(self.token), dict(enumerate(self.slots))
        for _ in range(TAKES_MAX):
            self._check_older(waiting, rank)
            waiting = {
                place: self.slots[place]
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
        more = [command for slot in self.slots[place] for command in beside(slot)]
        return [_MULTI, pack(("MSET", *pairs)), *more, _EXEC]

    def _taken(self) -> FencedError:
        return FencedError(f"Another writer took over {self._owned.what} at the same time. This one must stop.")

    def _fenced_by(self, token: bytes) -> list[Fence]:
        owned = self._owned
        fences = []
        for share, names, wire in zip(self.slots, self._names, self._wires, strict=True):
            others = {name: value for slot in share for name, value in owned.others(slot).items()}
            where = f" in slot {share[0]}" if self.apart else ""
            fences.append(Fence(wire, names, owned.what, owned.gone, token, others, where))
        return fences

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
