"""The lease of a view's publisher: a token that expires, and the connections on which it lets one write.

All that is written is fenced by the token (`forebay.online.fence`), on every connection. Renewing the lease changes
what all of them watch: it is done between chunks, with nothing under way, and arms the other connections anew.

Lives here: the lease on one server, where its token guards all slots. On a cluster it is `forebay.online.slot_lease`;
`lease_of` chooses. What a publisher writes belongs to one share (`shares`) at a time: slots that one transaction holds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import redis

from forebay.core.identity import SLOTS
from forebay.errors import FencedError
from forebay.online.bulk import UNIT_BYTES, Bulk, Throttle
from forebay.online.cluster import Cluster
from forebay.online.fence import Fence
from forebay.online.keys import Keys
from forebay.online.resp import Commands, Ints, chunks
from forebay.online.wire import Wire, pack

LEASE_MS = 20_000
"""A publisher that is silent for so long is dead."""
RENEW_S = 5.0
"""The first chunk after so long renews the lease."""
LEASE_WAIT_S = 25.0
"""Long enough to outlive the lease of a publisher that was killed."""
POLL_S = 0.1
CHUNK_BYTES = 1 << 19
"""One transaction: some 4,000 rows, which hold up other clients for about two milliseconds."""
CHUNK_S = 0.1
"""Nor does a chunk hold more than the rate lets pass in so long: a slow publication is smooth, and keeps its lease."""
CONNECTIONS = 2
"""With two, the server has the next chunk when it has applied one, and packing goes on meanwhile."""


class AnyLease(Protocol):
    """The right to publish a view, once it is open."""

    @property
    def shares(self) -> Sequence[Sequence[int]]:
        """The slots that one transaction may hold, for all slots."""
        ...

    @property
    def keys_max(self) -> int:
        """Keys that are sent together, in one command or in many."""
        ...

    def open(self) -> None:
        """Take the lease, waiting for that of a publisher that was killed to run out. Raises `FencedError`."""
        ...

    def mget(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of some names."""
        ...

    def clock_ms(self) -> int:
        """The wall clock of the server, by which values expire."""
        ...

    def knows_msetex(self) -> bool:
        """Whether the server takes MSETEX from this user."""
        ...

    def write(self, columns: Iterable[tuple[Commands, Ints]]) -> None:
        """Columns of packed commands and the slot of each of their rows, in many transactions. Raises `FencedError`."""
        ...

    def commit(self, slot: int, commands: Sequence[bytes]) -> None:
        """Packed commands for the share of a slot in one transaction. Raises `FencedError`."""
        ...

    def check_written(self) -> None:
        """Raise `StoreError` where a server has lost something of what was written."""
        ...

    def close(self) -> None:
        """Give the lease back, if it is still there. Raises `StoreError`."""
        ...


def lease_of(client: redis.Redis, namespace: str, view: str, rate: int, wait_s: float) -> AnyLease:
    """The lease of a view, on one server or on a cluster, not yet open."""
    if isinstance(client, Cluster):
        from forebay.online.slot_lease import SlotLease

        return SlotLease(client, namespace, view, rate, wait_s)
    return Lease(client, Keys(namespace).lease(view), view, rate, wait_s)


def gone_text() -> str:
    """What it means when the token of a lease is gone."""
    return f"Its publisher was silent for {LEASE_MS // 1000} s and the lease ran out. Publish again."


class Lease:
    """The right to publish `view`, kept at `key` in the store, once it is open."""

    shares = (range(SLOTS),)

    def __init__(self, client: redis.Redis, key: str, view: str, rate: int, wait_s: float) -> None:
        self._key, self._view, self._wait_s = key, view, wait_s
        self._wires = [Wire(client) for _ in range(CONNECTIONS)]
        self._fence = Fence(self._wires[0], [key], f"the publication of view {view!r}", gone_text())
        self._others = [self._fence.another(wire) for wire in self._wires[1:]]
        self._bulk = Bulk([self._fence, *self._others], Throttle(rate))
        self.keys_max = max(1, int(rate * CHUNK_S)) if rate else sys.maxsize
        """Keys that are sent together, in one command or in many."""
        self._bytes_max = min(CHUNK_BYTES, self.keys_max * UNIT_BYTES)
        self._renewed_s = 0.0

    def open(self) -> None:
        """Take the lease, waiting for that of a publisher that was killed to run out. Raises `FencedError`."""
        try:
            for wire in self._wires:
                wire.open()
            self._take()
            for fence in (self._fence, *self._others):
                fence.arm()
        except BaseException:
            self._disconnect()
            raise

    def mget(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of some names."""
        found: list[bytes | None] = self._wires[0].call("MGET", *names)
        return found

    def clock_ms(self) -> int:
        """The wall clock of the server, by which values expire."""
        return milliseconds(self._wires[0].call("TIME"))

    def knows_msetex(self) -> bool:
        """Whether the server takes MSETEX from this user."""
        return takes_msetex(self._wires[0], self._key)

    def write(self, columns: Iterable[tuple[Commands, Ints]]) -> None:
        """Columns of packed commands, in many transactions. Raises `FencedError`."""
        for column, _ in columns:
            for chunk in chunks(column, self._bytes_max, self.keys_max):
                self._renew()
                self._bulk.send(chunk)
        self._bulk.settle()

    def commit(self, slot: int, commands: Sequence[bytes]) -> None:
        """Packed commands in one transaction. Raises `FencedError`."""
        self._renew()
        self._fence.commit(commands)

    def check_written(self) -> None:
        """Nothing is lost under connections that last; and what was written on one that breaks ends the publication."""

    def close(self) -> None:
        """Give the lease back, if it is still there. Raises `StoreError`."""
        self._bulk.close()
        try:
            if self._wires[0].is_open:
                self._fence.commit([pack(("DEL", self._key))])
        finally:
            self._disconnect()

    def _take(self) -> None:
        deadline = time.monotonic() + self._wait_s
        call = self._wires[0].call
        while call("SET", self._key, self._fence.token, "NX", "PX", LEASE_MS) is None:
            left_ms = int(call("PTTL", self._key))
            if time.monotonic() > deadline:
                raise held_by_another(self._view, left_ms)
            time.sleep(POLL_S)
        self._renewed_s = time.monotonic()

    def _renew(self) -> None:
        if time.monotonic() - self._renewed_s < RENEW_S:
            return
        self._bulk.settle()
        self._fence.commit([pack(("PEXPIRE", self._key, LEASE_MS))])
        self._renewed_s = time.monotonic()
        for fence in self._others:
            fence.arm()

    def _disconnect(self) -> None:
        for wire in self._wires:
            wire.close()


def held_by_another(view: str, left_ms: int) -> FencedError:
    """The one line about a lease that is somebody else's."""
    return FencedError(
        f"View {view!r} is being published by another process, which renewed its lease "
        f"{(LEASE_MS - left_ms) / 1000:.1f} s ago. Wait for it to end, then publish again."
    )


def takes_msetex(wire: Wire, key: str) -> bool:
    """Whether a server takes MSETEX from this user: it must refuse a command of no keys as such."""
    reply = wire.ask([pack(("MSETEX", 0, key, b""))], 1)[0]
    return not str(reply).startswith("NOPERM") and "unknown command" not in str(reply)


def milliseconds(time_reply: Any) -> int:
    """The reply to TIME as milliseconds."""
    seconds, micros = time_reply
    return int(seconds) * 1000 + int(micros) // 1000
