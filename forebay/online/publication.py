"""A publication: how batch results of one view get into the online store, from its lease to its end.

One publisher per view holds a lease (`forebay.online.lease`); all it writes is fenced by its token. The steps, each
safe to die after:

    1  published = old ∪ new entities      so that whatever has a blob is on the list, come what may: of some slots,
    2  the blobs of the new entities       each replaces its predecessor at once; and so on with the next slots
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

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
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
        self._entities: pa.Array = pa.array([], pa.string())
        self._edges: list[int] = [0] * (SLOTS + 1)
        self._old: list[bytes | None] = [None] * SLOTS
        self._emptied: list[list[str]] = [[] for _ in _ALL_SLOTS]
        self._changed: dict[int, str] = {}
        self._looked_at = SLOTS
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

    def together(self, *, expiring: bool) -> int:
        """How many keys one command may set; 1 where they expire and the server has no command for more of those."""
        known = not expiring or self._lease.knows_msetex()
        return min(KEYS_TOGETHER, self._lease.keys_max) if known else 1

    def begin(self, entities: pa.Array, slots: Ints) -> None:
        """Name the entities that will have a blob, in any order that is the same next time, and the slot of each."""
        self._entities = entities.take(pa.array(np.argsort(slots.astype(np.uint8), kind="stable")))
        self._edges = np.append(0, np.cumsum(np.bincount(slots, minlength=SLOTS))).tolist()
        self._old = self._lease.mget(self._keys.slots("published", self._view, _ALL_SLOTS))
        self._changed, self._emptied, self._looked_at = {}, [[] for _ in _ALL_SLOTS], 0

    def write(self, columns: Iterable[tuple[Commands, Ints]]) -> None:
        """Steps 1 and 2: columns of packed commands (`forebay.online.resp`), and the slot of each of their rows."""
        self._lease.write(self._listed(columns))

    def next_number(self, after: int) -> int:
        """The number of this publication: greater than those of all that are known of, here or (`after`) elsewhere."""
        return max(after, *(cut.publication for cut in self._cuts)) + 1

    def finish(self, kind: str, cut: Cut) -> int:
        """Steps 3 to 5; `kind` is that of the blobs of emptied entities. Of a batch view the cut is its number alone.

        Returns how many entities had a blob and have none now.
        """
        self._look_at(SLOTS)
        self._lease.check_written()
        self._set_cuts([cut] * SLOTS)
        self._lease.check_written()
        self._delete(
            lambda slot: self._keys.many(self._view, self._emptied[slot], [slot] * len(self._emptied[slot]), kind)
        )
        self._list(self._changed)
        return sum(map(len, self._emptied))

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

    def _listed(self, columns: Iterable[tuple[Commands, Ints]]) -> Iterator[tuple[Commands, Ints]]:
        """The columns, each handed out once whatever it sets is on the lists.

        Twice as many slots at a time as before: the server has something to do meanwhile, and where all lists change
        it is not waited for with each of them.
        """
        for commands, slots in columns:
            if len(slots) and slots[-1] >= self._looked_at:
                self._look_at(max(int(slots[-1]) + 1, min(2 * self._looked_at, SLOTS)))
            yield commands, slots

    def _look_at(self, end: int) -> None:
        """Step 1 of the slots before `end`, where a list lacks an entity that is new."""
        begin, self._looked_at = self._looked_at, max(end, self._looked_at)
        wider: dict[int, str] = {}
        for slot, text in enumerate(self._texts(begin, self._looked_at), begin):
            old = (self._old[slot] or b"").decode()
            if old == text:
                continue
            was, new = set(_entities(old)), set(_entities(text))
            if was != new:
                self._emptied[slot] = sorted(was - new)
                self._changed[slot] = text
                if new - was:
                    wider[slot] = "\n".join(_entities(text) + self._emptied[slot])
        if wider:
            self._list(wider)

    def _texts(self, begin: int, end: int) -> list[str]:
        """The lists of some slots."""
        edges = pa.array(self._edges[begin : end + 1], pa.int32())
        texts: list[str] = pc.binary_join(pa.ListArray.from_arrays(edges, self._entities), "\n").to_pylist()
        return texts

    def _list(self, texts: Mapping[int, str]) -> None:
        """Say which entities may have a blob, in some slots; wait until it is said."""
        names = {slot: self._keys.published(self._view, slot) for slot in texts}
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


def _entities(text: str) -> list[str]:
    return text.split("\n") if text else []
