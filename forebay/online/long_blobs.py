"""The pending blobs of a lane that have grown long: when they are rolled up into stream blobs, and how.

    commit n        ─▶ lengths of what it appended to ─▶ long? waits for some others
    commit n + 1    APPEND … ; then it reads stream, pending and cut of those that wait
    commit n + 2    writes their stream, deletes their pending (or shortens it); then APPEND …

So a roll-up has no round trip of its own (docs/adr/0266). What is read cannot change before it is written: no other
lane writes these keys, and this one writes them in the transaction that begins with the roll-up. A cut may move
meanwhile; by an older one more is kept. A crash leaves a longer pending blob.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.codec import NO_CUT
from forebay.core.identity import slots_of
from forebay.core.layout import Layout
from forebay.core.texts import lengths_of
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.online.division import Division
from forebay.online.expiry import Expiries, key_hashes, lifetimes_s
from forebay.online.keys import PENDING, STREAM, Keys
from forebay.online.pending import Fresh, Pending
from forebay.online.progress import Cut
from forebay.online.wire import pack

ROLL_ENTITIES_MIN = 128
"""Fewer wait for each other until one is twice as long: a roll-up costs about a millisecond, of however few it is."""
ROLL_ENTITIES_MAX = 1024
"""Entities of a view that one commit rolls up, the others wait for the next: it holds up other clients for some two
milliseconds. A blob is long from ROLL_RECORDS partials on, so commits of 16,384 events, each of another entity, make no
more of them long.
"""

Ints = npt.NDArray[np.int64]
SettledUs = Callable[[EventSource, Callable[[str], int]], int]
"""Asks for the archive's watermark less the lateness, if everything archived is applied: `next_offset` tells how far a
partition is. NO_CUT otherwise.
"""


@dataclass
class _Batch:
    """Entities of a view that are rolled up together, in the order of the finest shares, and what was read of them."""

    view: str
    keys: Sequence[str]
    slots: Ints
    streams: list[str]
    pendings: list[str]
    asked: Sequence[tuple[int, slice]] = ()
    """Which of them were asked for in which share."""
    before: list[bytes | None] = field(default_factory=list)
    """Their stream blobs."""
    appended: list[bytes | None] = field(default_factory=list)
    """Their pending blobs."""
    cuts: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    is_written: bool = False
    """Whether there was something to roll up."""

    def names(self, rows: slice, keys: Keys) -> list[str]:
        """What is read of some of them: blobs, and the cuts of their slots, each once."""
        return [*self.streams[rows], *self.pendings[rows], *keys.slots("cut", self.view, self._cut_slots(rows)[0])]

    def found(self, rows: slice, values: Sequence[bytes | None]) -> None:
        """What those names hold, of the entities behind those of before."""
        count, of_slot = rows.stop - rows.start, self._cut_slots(rows)[1]
        self.before += values[:count]
        self.appended += values[count : 2 * count]
        cuts = np.array([Cut.decode(one).cut_us for one in values[2 * count :]], np.int64)[of_slot]
        self.cuts = np.concatenate([self.cuts, cuts])

    def _cut_slots(self, rows: slice) -> tuple[list[int], npt.NDArray[np.intp]]:
        slots, of_slot = np.unique(self.slots[rows], return_inverse=True)
        return slots.tolist(), of_slot


class LongBlobs:
    """Those of one lane, whose views keep what `pending` says; `next_offset` is that of the lane, `finest` how its
    commits are divided at most.

    For each commit call `rolled` and `asked`, whose commands go into its transaction, first and last, and then `done`,
    or `again` where it failed.
    """

    def __init__(
        self,
        finest: Division,
        keys: Keys,
        expiries: Expiries,
        clock_us: Callable[[], int],
        settled_us: SettledUs | None,
        next_offset: Callable[[str, str], int],
        pending: Mapping[str, tuple[WindowedView, Pending]],
    ) -> None:
        self._finest, self._keys, self._expiries, self._clock_us = finest, keys, expiries, clock_us
        self._settled_us, self._next_offset, self._pending = settled_us, next_offset, pending
        self._waiting: dict[str, set[str]] = defaultdict(set)
        """The entities of each view that wait to be read."""
        self._urgent: set[str] = set()
        """The views of which one cannot wait for others."""
        self._asked: list[_Batch] = []
        self._read: list[_Batch] = []
        self.rolled_up = 0
        """Entities rolled up; whoever counts them may set it back."""

    def grown(self, view: str, new: Fresh, lengths: Ints) -> None:
        """The pending blobs of a view have these lengths since a commit appended to them; call it before `done`."""
        pending = self._pending[view][1]
        if lengths.max(initial=0) < pending.long_bytes:
            return
        added = lengths_of(new.bodies)
        under_way = {key for batch in self._asked if batch.view == view for key in batch.keys}
        urgent = pending.are_urgent(lengths, added)
        for row in np.flatnonzero(pending.are_long(lengths, added)).tolist():
            key = new.keys[row].as_py()
            if key not in under_way:
                self._waiting[view].add(key)
                if urgent[row]:
                    self._urgent.add(view)

    def rolled(self, commit: int, division: Division) -> dict[int, list[bytes]]:
        """What rolls up what was read, by share."""
        commands: dict[int, list[bytes]] = {}
        for batch in self._read:
            for place, some in self._roll_up(batch, commit, division):
                commands.setdefault(place, []).extend(some)
        return commands

    def asked(self, division: Division) -> dict[int, list[bytes]]:
        """What reads the blobs that are to be rolled up next, by share; one command of each view."""
        self._asked = [
            self._batch(view)
            for view, waiting in self._waiting.items()
            if len(waiting) >= ROLL_ENTITIES_MIN or (waiting and view in self._urgent)
        ]
        commands: dict[int, list[bytes]] = {}
        for batch in self._asked:
            batch.asked = division.spans(batch.slots)
            for place, rows in batch.asked:
                commands.setdefault(place, []).append(pack(("MGET", *batch.names(rows, self._keys))))
        return commands

    def done(self, replies: Mapping[int, Sequence[Any]]) -> None:
        """A commit was written; the replies to what it asked, by share."""
        self.rolled_up += sum(len(batch.keys) for batch in self._read if batch.is_written)
        left = {place: iter(some) for place, some in replies.items()}
        for batch in self._asked:
            for place, rows in batch.asked:
                batch.found(rows, next(left[place]))
        self._read, self._asked = self._asked, []

    def again(self) -> None:
        """A commit may have been written or not: what it rolled up, and what it asked for, is to be read anew."""
        for batch in (*self._read, *self._asked):
            self._waiting[batch.view].update(batch.keys)
            self._urgent.add(batch.view)
        self._read, self._asked = [], []

    def _batch(self, view: str) -> _Batch:
        """Some of the entities that wait, or all."""
        waiting = self._waiting[view]
        keys = sorted(waiting)[:ROLL_ENTITIES_MAX]
        waiting.difference_update(keys)
        if not waiting:
            self._urgent.discard(view)
        slots = slots_of(keys)
        order = self._finest.order(slots)
        if order is not None:
            keys, slots = [keys[row] for row in order.tolist()], slots[order]
        streams, pendings = (self._keys.many(view, keys, slots.tolist(), kind) for kind in (STREAM, PENDING))
        return _Batch(view, keys, slots, streams, pendings)

    def _roll_up(self, batch: _Batch, commit: int, division: Division) -> Iterator[tuple[int, list[bytes]]]:
        """What rolls it up, share by share."""
        view, pending = self._pending[batch.view]
        now_us, horizons = self._clock_us(), self._horizons(view, batch.cuts)
        new = pending.rolled_up(batch.before, batch.appended, batch.cuts, horizons, commit)
        if list(map(_size, new.pending)) == list(map(_size, batch.appended)):
            return  # sessions of which none is settled
        batch.is_written = True
        kept = lifetimes_s(view, new.stream_newest_us, now_us), lifetimes_s(view, new.pending_newest_us, now_us)
        self._expiries.forget(key_hashes(view.key, pa.array(batch.keys)))
        for place, rows in division.spans(batch.slots):
            streams, pendings = batch.streams[rows], batch.pendings[rows]
            written = _set_commands(streams, new.stream[rows], _some(kept[0], rows))
            written += _set_commands(pendings, new.pending[rows], _some(kept[1], rows))
            gone = [*_unset(streams, new.stream[rows]), *_unset(pendings, new.pending[rows])]
            yield place, [*written, *([pack(("DEL", *gone))] if gone else [])]

    def _horizons(self, view: WindowedView, cuts: Ints) -> Ints:
        """Of each entity, before which instant no event is to come that its sessions would have to heed.

        That is the cut, once all is applied that was archived when it was chosen, since what comes before it from then
        on is marked for repair; and what no window can need any more. Either less the longest that a session can be:
        what comes late may take one across, and it is made here then, with what it began with.
        """
        if view.sessions is None or self._settled_us is None:
            return np.full(len(cuts), NO_CUT)
        settled_us = self._settled_us(view.source, lambda partition: self._next_offset(view.key, partition))
        lookback_us = Layout.of(view).lookback_us
        needless_us = NO_CUT if lookback_us is None or settled_us == NO_CUT else settled_us - lookback_us
        done_us = np.maximum(np.where(cuts <= settled_us, cuts, NO_CUT), needless_us)
        return np.where(done_us == NO_CUT, NO_CUT, done_us - view.sessions.longest_us)


def _size(blob: bytes | None) -> int:
    return len(blob or b"")


def _unset(names: Sequence[str], blobs: Sequence[bytes | None]) -> list[str]:
    return [name for name, blob in zip(names, blobs, strict=True) if blob is None]


def _some(lifetimes: Ints | None, rows: slice) -> Ints | None:
    return None if lifetimes is None else lifetimes[rows]


def _set_commands(names: Sequence[str], blobs: Sequence[bytes | None], lifetimes: Ints | None) -> list[bytes]:
    if lifetimes is None:
        return [pack(("SET", name, blob)) for name, blob in zip(names, blobs, strict=True) if blob is not None]
    rows = zip(names, blobs, lifetimes.tolist(), strict=True)
    return [pack(("SET", name, blob, "EX", lifetime)) for name, blob, lifetime in rows if blob is not None]
