"""A publication: how batch results of one view get into the online store, from its lease to its end.

One publisher per view holds a lease, a token that expires; all it writes is fenced by that token. The steps, each safe
to die after:

    1  published = old ∪ new entities      so that whatever has a blob is on the list, come what may
    2  the blobs of the new entities       each replaces its predecessor at once
    3  the cut of every slot, in one go    the publication is finished: from here on streams may drop what is behind
    4  the blobs of emptied entities go    a reader ignores them since 3 (or, at an equal cut, from here on)
    5  published = new entities, and the lease is given back

`published` is one text per slot, because a scan of the whole store would cost more with everybody else's keys.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

import redis

from forebay.core.identity import SLOTS, slots_of
from forebay.errors import FencedError, StoreError
from forebay.stores.fence import Fence
from forebay.stores.keys import Keys
from forebay.stores.progress import Cut
from forebay.stores.wire import Wire, pack

LEASE_MS = 20_000
"""A publisher renews its lease with every chunk, which takes milliseconds; one that is silent for so long is dead."""
LEASE_WAIT_S = 25.0
"""Long enough to outlive the lease of a publisher that was killed."""
POLL_S = 0.1
CHUNK_BYTES = 1 << 20
"""One transaction: it holds up other clients for about a millisecond."""
_ALL_SLOTS = range(SLOTS)


class Publication:
    """The one publication of a view under way; a context that holds the lease."""

    def __init__(self, client: redis.Redis, namespace: str, view: str, *, wait_s: float = LEASE_WAIT_S) -> None:
        self._keys, self._wire, self._view, self._wait_s = Keys(namespace), Wire(client), view, wait_s
        self._lease = self._keys.lease(view)
        gone = f"Its publisher was silent for {LEASE_MS // 1000} s and the lease ran out. Publish again."
        self._fence = Fence(self._wire, [self._lease], f"the publication of view {view!r}", gone)
        self._new: list[list[str]] = []
        self._emptied: list[list[str]] = []
        self._changed: list[int] = []
        self.finished = Cut()

    def __enter__(self) -> Self:
        self._wire.open()
        try:
            self._acquire()
            self._fence.arm()
            cuts = self._wire.call("MGET", *self._keys.slots("cut", self._view, _ALL_SLOTS))
            self.finished = max((Cut.decode(blob) for blob in cuts), key=lambda cut: (cut.cut_us, cut.publication))
        except BaseException:
            self._wire.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._wire.is_open:
                self._fence.commit([pack(("DEL", self._lease))])
        except StoreError:
            if error is None:
                raise
        finally:
            self._wire.close()

    def begin(self, entities: Sequence[str]) -> int:
        """Step 1, for the entities that will have a blob; how many have had one and will have none."""
        self._new = [[] for _ in _ALL_SLOTS]
        for entity, slot in zip(entities, slots_of(entities).tolist(), strict=True):
            self._new[slot].append(entity)
        found = self._wire.call("MGET", *self._keys.slots("published", self._view, _ALL_SLOTS))
        old = [_entities(text) for text in found]
        self._emptied = [sorted(set(had) - set(has)) for had, has in zip(old, self._new, strict=True)]
        for has in self._new:
            has.sort()
        self._changed = [slot for slot in _ALL_SLOTS if old[slot] != self._new[slot]]
        self._send(self._list_command(slot, [*self._new[slot], *self._emptied[slot]]) for slot in self._changed)
        return sum(map(len, self._emptied))

    def write(self, commands: Iterable[bytes]) -> None:
        """Step 2: packed commands, in transactions of CHUNK_BYTES."""
        self._send(commands)

    def finish(self, kind: str, cut: Cut | None) -> None:
        """Steps 3 to 5; `kind` is that of the blobs of emptied entities, `cut` that of a windowed view."""
        if cut is not None:
            pairs = [part for name in self._keys.slots("cut", self._view, _ALL_SLOTS) for part in (name, cut.encode())]
            self._fence.commit([pack(("MSET", *pairs)), self._renew()])
        names = (
            name
            for slot, entities in enumerate(self._emptied)
            for name in self._keys.many(self._view, entities, [slot] * len(entities), kind)
        )
        self._send(pack(("DEL", name)) for name in names)
        self._send(self._list_command(slot, self._new[slot]) for slot in self._changed)

    def _acquire(self) -> None:
        """Take the lease, waiting for that of a publisher that was killed to run out."""
        deadline = time.monotonic() + self._wait_s
        while self._wire.call("SET", self._lease, self._fence.token, "NX", "PX", LEASE_MS) is None:
            left_ms = int(self._wire.call("PTTL", self._lease))
            if time.monotonic() > deadline:
                raise FencedError(
                    f"View {self._view!r} is being published by another process, which renewed its lease "
                    f"{(LEASE_MS - left_ms) / 1000:.1f} s ago. Wait for it to end, then publish again."
                )
            time.sleep(POLL_S)

    def _send(self, commands: Iterable[bytes]) -> None:
        chunk, size = [self._renew()], 0
        for command in commands:
            chunk.append(command)
            size += len(command)
            if size >= CHUNK_BYTES:
                self._fence.commit(chunk)
                chunk, size = [self._renew()], 0
        if len(chunk) > 1:
            self._fence.commit(chunk)

    def _renew(self) -> bytes:
        return pack(("PEXPIRE", self._lease, LEASE_MS))

    def _list_command(self, slot: int, entities: Sequence[str]) -> bytes:
        name = self._keys.published(self._view, slot)
        return pack(("SET", name, "\n".join(entities))) if entities else pack(("DEL", name))


def _entities(text: bytes | None) -> list[str]:
    return text.decode().split("\n") if text else []
