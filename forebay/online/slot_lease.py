"""The lease of a view's publisher on a cluster: one for the view, and a token in every slot that guards its writes.

    <ns>:lease:<view>            SET NX PX                who publishes; renewed, and gone with a publisher that is dead
    <ns>:{17}:publisher:<view>   WATCH, MULTI … EXEC      what each transaction of slot 17 is fenced by

A transaction cannot watch a key of another hash tag. So whoever has the lease takes a number, puts its token into every
slot, never in the place of a greater number (`forebay.online.shares`), and looks whether it still has the lease: it
then had it from before its number on. Of two publishers the one that had the lease later has the greater number, and
the other one writes nothing more from the moment at which the slot was taken from it.

A node may fail and a slot may be moved while a publication is under way: what it was to write is written again to where
the slot is by then, under the same token, for a bounded time. All that it writes may be written twice.

Where a replica takes over from a node, it may lack what the node had acknowledged last (docs/adr/0286). So each chunk
carries its number on its connection, which is in the slot once the chunk is; a node replicates in its order:

    connection 1   chunk 1   chunk 2   chunk 3            node: 3        replica that takes over: 2     lost
                                                          before it is written on, and before and behind the cuts
"""

from __future__ import annotations

import queue
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from forebay.core.identity import SLOTS
from forebay.errors import StoreError, StoreUnavailableError
from forebay.online.bulk import UNIT_BYTES, Bulk, Throttle
from forebay.online.cluster import Cluster
from forebay.online.connection import translated
from forebay.online.fence import Fence
from forebay.online.keys import Keys
from forebay.online.lease import (
    CHUNK_BYTES,
    CHUNK_S,
    CONNECTIONS,
    LEASE_MS,
    POLL_S,
    RENEW_S,
    gone_text,
    held_by_another,
    milliseconds,
    takes_msetex,
)
from forebay.online.resp import Chunk, Commands, Ints, chunks, section
from forebay.online.shares import Owned, Shares
from forebay.online.wire import Wire, pack

TRIES = 24
"""Some ten seconds, half of the lease: a slot that is moved is there by then, a node that was restarted is back."""

T = TypeVar("T")


class SlotLease:
    """The right to publish `view` on a cluster, once it is open."""

    shares = tuple((slot,) for slot in range(SLOTS))

    def __init__(self, client: Cluster, namespace: str, view: str, rate: int, wait_s: float) -> None:
        self._client, self._keys, self._view, self._wait_s = client, Keys(namespace), view, wait_s
        self._key = self._keys.lease(view)
        what = f"the publication of view {view!r}"
        self._wire = Wire(client, self._key)
        self._fence = _Steady(Fence(self._wire, [self._key], what, gone_text()))
        owned = Owned(lambda slot: [self._name(slot)], what, gone_text())
        self._slots = Shares(client, range(SLOTS), owned)
        self.keys_max = max(1, int(rate * CHUNK_S)) if rate else sys.maxsize
        """Keys that are sent together, in one command or in many."""
        self._bytes_max = min(CHUNK_BYTES, self.keys_max * UNIT_BYTES)
        self._renewed_s = 0.0
        self._writers = _Writers()
        self._bulk = Bulk([self._writers] * CONNECTIONS, Throttle(rate))

    def open(self) -> None:
        """Take the lease, waiting for that of a publisher that was killed to run out. Raises `FencedError`."""
        try:
            _again(self._take_lease)
            _again(self._take_slots)
        except BaseException:
            self._disconnect()
            raise

    def mget(self, names: Sequence[str]) -> list[bytes | None]:
        """The values of some names."""
        with translated(self._client):
            return list(self._client.mget(names)) if names else []

    def clock_ms(self) -> int:
        """The wall clock of a server, by which values expire."""
        return milliseconds(self._wire.call("TIME"))

    def knows_msetex(self) -> bool:
        """Whether all primaries take MSETEX from this user."""
        wires = [Wire(server) for server in self._client.primaries()]
        try:
            for wire in wires:
                wire.open()
            return all(takes_msetex(wire, self._key) for wire in wires)
        finally:
            for wire in wires:
                wire.close()

    def write(self, columns: Iterable[tuple[Commands, Ints]]) -> None:
        """Columns of packed commands and the slot of each of their rows, in many transactions. Raises `FencedError`."""
        for column, slots in columns:
            for slot, rows in self._slots.whole.spans(slots):
                if slot not in self._writers.of:
                    counters = self._keys.written(self._view, slot)
                    self._writers.of[slot] = _Writer(self._slots.fence(slot), self._client, self._name(slot), counters)
                for chunk in chunks(section(column, rows), self._bytes_max, self.keys_max):
                    self._renew()
                    self._bulk.send(replace(chunk, slot=slot))
        self._bulk.settle()

    def commit(self, slot: int, commands: Sequence[bytes]) -> None:
        """Packed commands for a slot in one transaction. Raises `FencedError`."""
        self._renew()
        _Steady(self._slots.fence(slot)).commit(commands)

    def check_written(self) -> None:
        """Raise `StoreError` where a node that took over lacks something of what was written."""
        written = {one.counter: one.written for one in self._writers.all if one.written}
        found = _again(lambda: self.mget(list(written)))
        if any(int(number or 0) < last for number, last in zip(found, written.values(), strict=True)):
            raise _lost(f"the publication of view {self._view!r}")

    def close(self) -> None:
        """Give the lease back, if it is still there. Raises `StoreError`."""
        self._bulk.close()
        try:
            if self._wire.is_open and self._slots.is_open:
                counters = {slot: self._keys.written(self._view, slot) for slot in range(SLOTS)}
                self._slots.commit({slot: [pack(("DEL", self._name(slot), *some))] for slot, some in counters.items()})
                self._fence.commit([pack(("DEL", self._key))])
        finally:
            self._disconnect()

    def _take_lease(self) -> None:
        self._wire.open()
        call, deadline = self._wire.call, time.monotonic() + self._wait_s
        while call("SET", self._key, self._fence.token, "NX", "PX", LEASE_MS) is None:
            if call("GET", self._key) == self._fence.token:
                break  # by a try of which the reply was lost
            left_ms = int(call("PTTL", self._key))
            if time.monotonic() > deadline:
                raise held_by_another(self._view, left_ms)
            time.sleep(POLL_S)
        self._renewed_s = time.monotonic()

    def _take_slots(self) -> None:
        """Put a token into every slot, then see that the lease was there all the while."""
        if not self._slots.is_open:
            self._slots.open()
        newest, number, step = self._slots.newest(), 0, 1
        while number <= newest:
            with translated(self._client):
                number = int(self._client.incrby(self._keys.publishers(), step))
            step = max(1, newest - number + 1)
        self._slots.take_as(number)
        self._fence.arm()

    def _renew(self) -> None:
        if time.monotonic() - self._renewed_s < RENEW_S:
            return
        self._fence.commit([pack(("PEXPIRE", self._key, LEASE_MS))])
        self._renewed_s = time.monotonic()

    def _disconnect(self) -> None:
        self._wire.close()
        self._slots.close()
        for writer in self._writers.of.values():
            writer.close()

    def _name(self, slot: int) -> str:
        return self._keys.publisher(self._view, slot)


class _Writers:
    """Where chunks go: each to its slot."""

    def __init__(self) -> None:
        self.of: dict[int, _Writer] = {}

    @property
    def all(self) -> Iterator[_Steady]:
        """All connections."""
        return (one for writer in self.of.values() for one in writer.connections)

    def write(self, chunk: Chunk) -> None:
        """As `Fence.write`, on a connection of the chunk's slot."""
        self.of[chunk.slot].write(chunk)


class _Writer:
    """The connections of a slot: the one that it has, and one more as soon as both threads write to the slot."""

    def __init__(self, fence: Fence, client: Cluster, name: str, counters: Sequence[str]) -> None:
        self._wire = Wire(client, name)
        self._free: queue.LifoQueue[_Steady] = queue.LifoQueue()
        fences = (fence.another(self._wire), fence)
        self.connections = [_Steady(*each) for each in zip(fences, counters, strict=True)]
        for one in self.connections:
            self._free.put(one)

    def write(self, chunk: Chunk) -> None:
        """As `Fence.write`."""
        fence = self._free.get()
        try:
            fence.write(chunk)
        finally:
            self._free.put(fence)

    def close(self) -> None:
        """Disconnect the one more."""
        self._wire.close()


class _Steady:
    """A fence that writes again what could not be written because its node was away, or had the slot no more.

    What it writes is counted at `counter`.
    """

    def __init__(self, fence: Fence, counter: str = "") -> None:
        self._fence, self.counter = fence, counter
        self.token = fence.token
        self.written = 0
        """The number of the last chunk that was acknowledged."""
        self._looked = 0
        """The connection on which it was seen that the node has that chunk."""

    def arm(self) -> None:
        """Watch the keys. Raises `FencedError` where the token is gone."""
        _again(self._fence.rearm)

    def write(self, chunk: Chunk) -> None:
        """As `Fence.write`."""
        counted = pack(("SET", self.counter, self.written + 1))
        self._surely(lambda: self._fence.write(chunk, counted))
        self.written += 1

    def commit(self, commands: Sequence[bytes]) -> None:
        """As `Fence.commit`; the replies are of no interest."""
        self._surely(lambda: self._fence.commit(commands))

    def _surely(self, call: Callable[[], object]) -> None:
        def ready() -> None:
            if not self._fence.is_armed:
                self._fence.rearm()
            self._look()
            call()

        _again(ready)

    def _look(self) -> None:
        """On a new connection, look whether the node has what was written before, which a number would hide."""
        if (
            self.written
            and self._looked != self._fence.opened
            and int(self._fence.read(self.counter) or 0) < self.written
        ):
            raise _lost(self._fence.what)
        self._looked = self._fence.opened


def _lost(what: str) -> StoreError:
    return StoreError(
        f"A node of the Redis Cluster lost what it had acknowledged of {what}: a replica took over that had not got "
        "it. Publish again."
    )


def _again(call: Callable[[], T]) -> T:
    """What a call returns, tried again for some seconds while a node is away or a slot on its way."""
    retry = Retry(ExponentialBackoff(cap=0.5, base=0.02), TRIES, (StoreUnavailableError,))
    return retry.call_with_retry(call, lambda error: None)
