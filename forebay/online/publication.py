"""A publication: how batch results of one view get into the online store, from its lease to its end.

One publisher per view holds a lease (`forebay.online.lease`); all it writes is fenced by its token. The steps, each
safe to die after:

    1  published = old ∪ new entities      so that whatever has a blob is on the list, come what may
    2  the blobs of the new entities       each replaces its predecessor at once
    3  the cut of every slot, in one go    the publication is finished: from here on streams may drop what is behind
    4  the blobs of emptied entities go    a reader ignores them since 3 (or, at an equal cut, from here on)
    5  published = new entities, and the lease is given back

On a cluster a transaction holds one slot, and every step goes slot by slot. An entity, its blobs and the cut that
counts for it are in one slot, and are read as of one instant; so is what a stream drops. A publisher that dies between
the cuts leaves slots that are finished and slots that are before step 3, each of them as it would be on one server.

`published` is one text per slot, because a scan of the whole store would cost more with everybody else's keys. What is
written goes slot by slot, in ascending order.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import redis

from forebay.core.identity import SLOTS
from forebay.errors import StoreError
from forebay.online.keys import Keys
from forebay.online.lease import LEASE_WAIT_S, lease_of
from forebay.online.progress import Cut
from forebay.online.resp import Commands, packed
from forebay.online.wire import pack
from forebay.settings import PUBLISH_RATE

DELETED_AT_ONCE = 1_000
KEYS_TOGETHER = 32
"""Keys that one command sets: with more a command costs the server no less, and holds others up for longer."""
_ALL_SLOTS = range(SLOTS)
Ints = npt.NDArray[np.int64]


class Publication:
    """The one publication of a view under way; a context that holds the lease.

    `rate` bounds the values (or kilobytes, if these are more) that are written in a second; 0 is no bound.
    """

    def __init__(
        self,
        client: redis.Redis,
        namespace: str,
        view: str,
        *,
        rate: int = PUBLISH_RATE,
        wait_s: float = LEASE_WAIT_S,
    ) -> None:
        self._keys, self._view = Keys(namespace), view
        self._lease = lease_of(client, namespace, view, rate, wait_s)
        self._new: list[list[str]] = []
        self._emptied: list[list[str]] = []
        self._changed: list[int] = []
        self._cuts: list[Cut] = []
        self.finished = Cut()

    def __enter__(self) -> Self:
        self._lease.open()
        try:
            blobs = self._lease.mget(self._keys.slots("cut", self._view, _ALL_SLOTS))
            self._cuts = [Cut.decode(blob) for blob in blobs]
            self.finished = max(self._cuts, key=lambda cut: (cut.cut_us, cut.publication))
        except BaseException:
            self._lease.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._lease.close()
        except StoreError:
            if error is None:
                raise

    def clock_ms(self) -> int:
        """The wall clock of the server, by which values expire."""
        return self._lease.clock_ms()

    def together(self) -> int:
        """How many keys one command may set that expire; 1 where the server has no command for more."""
        return min(KEYS_TOGETHER, self._lease.keys_max) if self._lease.knows_msetex() else 1

    def begin(self, entities: Sequence[str], slots: Ints) -> int:
        """Step 1, for the entities that will have a blob, by ascending slot; how many had one and will have none."""
        edges = np.searchsorted(slots, np.arange(SLOTS + 1)).tolist()
        self._new = [sorted(entities[first:last]) for first, last in itertools.pairwise(edges)]
        found = self._lease.mget(self._keys.slots("published", self._view, _ALL_SLOTS))
        old = [text.decode() if text else "" for text in found]
        self._changed = [slot for slot in _ALL_SLOTS if old[slot] != _text(self._new[slot])]
        self._emptied = [[] for _ in _ALL_SLOTS]
        for slot in self._changed:
            self._emptied[slot] = sorted(set(_entities(old[slot])) - set(self._new[slot]))
        self._list(lambda slot: [*self._new[slot], *self._emptied[slot]])
        return sum(map(len, self._emptied))

    def write(self, columns: Iterable[tuple[Commands, Ints]]) -> None:
        """Step 2: columns of packed commands (`forebay.online.resp`), and the slot of each of their rows."""
        self._lease.write(columns)

    def finish(self, kind: str, cut: Cut | None) -> None:
        """Steps 3 to 5; `kind` is that of the blobs of emptied entities, `cut` that of a windowed view."""
        if cut is not None:
            self._set_cuts([cut] * SLOTS)
        self._delete(
            lambda slot: self._keys.many(self._view, self._emptied[slot], [slot] * len(self._emptied[slot]), kind)
        )
        self._list(lambda slot: self._new[slot])

    def mark(self, missing_us: int) -> None:
        """In place of the steps: say up to where events are missing online; cuts and blobs stay."""
        self._set_cuts([replace(cut, missing_us=missing_us) for cut in self._cuts])

    def _set_cuts(self, cuts: Sequence[Cut]) -> None:
        """Write the cut of each slot, where it is another one."""
        for share in self._lease.shares:
            new = {self._keys.cut(self._view, slot): cuts[slot] for slot in share if cuts[slot] != self._cuts[slot]}
            if new:
                parts = [part for name, cut in new.items() for part in (name, cut.encode())]
                self._lease.commit(share[0], [pack(("MSET", *parts))])
        self._cuts = list(cuts)

    def _list(self, entities: Callable[[int], list[str]]) -> None:
        """Say which entities may have a blob, in the slots where that changes."""
        names = {slot: self._keys.published(self._view, slot) for slot in self._changed}
        texts = {slot: _text(entities(slot)) for slot in self._changed}
        self._lease.write(
            (packed([pack(("SET", names[slot], text))]), np.array([slot])) for slot, text in texts.items() if text
        )
        self._delete(lambda slot: [names[slot]] if texts.get(slot) == "" else [])

    def _delete(self, names: Callable[[int], list[str]]) -> None:
        """Delete the keys of each slot that are named."""
        for share in self._lease.shares:
            gone = [name for slot in share for name in names(slot)]
            for first in range(0, len(gone), DELETED_AT_ONCE):
                self._lease.commit(share[0], [pack(("DEL", name)) for name in gone[first : first + DELETED_AT_ONCE]])


def _text(entities: Sequence[str]) -> str:
    return "\n".join(entities)


def _entities(text: str) -> list[str]:
    return text.split("\n") if text else []
