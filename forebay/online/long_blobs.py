"""The pending blobs of a lane that have grown long: when they are rolled up into stream blobs, and how.

    commit ─▶ lengths of what it appended to ─▶ long? waits for some others ─▶ one transaction a share
                                                                               read stream, pending, cut
                                                                               write stream, delete pending (or shorten)

What is read cannot change before it is written: no other lane writes these keys, or the transaction fails. A crash
before it leaves a longer pending blob, a crash within it nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.codec import NO_CUT
from forebay.core.identity import slots_of
from forebay.core.layout import Layout
from forebay.core.texts import lengths_of
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.online.expiry import Expiries, key_hashes, lifetimes_s
from forebay.online.keys import PENDING, STREAM, Keys
from forebay.online.pending import Fresh, Pending
from forebay.online.progress import Cut
from forebay.online.resp import Chunk
from forebay.online.shares import Shares
from forebay.online.wire import pack

ROLL_ENTITIES_MIN = 128
"""Fewer wait for each other until one is twice as long: a roll-up costs some two milliseconds, of however few it is."""
ROLL_ENTITIES_MAX = 512
"""Entities of one roll-up transaction: it holds up other clients for about a millisecond."""

Ints = npt.NDArray[np.int64]
Settled = Callable[[EventSource, Callable[[str], int]], int]
"""Asks for the archive's watermark less the lateness, if everything archived is applied: `next_offset` tells how far a
partition is. NO_CUT otherwise.
"""


class LongBlobs:
    """Those of one lane, which writes through `shares` and remembers expiries. `next_offset` is that of the lane."""

    def __init__(
        self,
        shares: Shares,
        keys: Keys,
        expiries: Expiries,
        clock_us: Callable[[], int],
        settled_us: Settled | None,
        next_offset: Callable[[str, str], int],
    ) -> None:
        self._shares, self._keys, self._expiries, self._clock_us = shares, keys, expiries, clock_us
        self._settled_us, self._next_offset = settled_us, next_offset
        self._waiting: dict[str, set[str]] = defaultdict(set)
        """The entities of each view that wait to be rolled up."""
        self.rolled_up = 0
        """Entities rolled up; whoever counts them may set it back."""

    def grown(self, view: WindowedView, pending: Pending, new: Fresh, lengths: Ints, commit: int) -> None:
        """Pending blobs have these lengths since a commit appended to them: roll up what is long, when it is time."""
        waiting = self._waiting[view.key]
        urgent = False
        if lengths.max(initial=0) >= pending.long_bytes:
            added = lengths_of(new.bodies)
            waiting.update(new.keys[row].as_py() for row in np.flatnonzero(pending.are_long(lengths, added)).tolist())
            urgent = bool(pending.are_urgent(lengths, added).any())
        if not waiting or (len(waiting) < ROLL_ENTITIES_MIN and not urgent):
            return
        long = sorted(waiting)
        waiting.clear()
        for first in range(0, len(long), ROLL_ENTITIES_MAX):
            self._roll_up(view, pending, long[first : first + ROLL_ENTITIES_MAX], commit)

    def _roll_up(self, view: WindowedView, pending: Pending, keys: Sequence[str], commit: int) -> None:
        """One transaction of each share."""
        slots = slots_of(keys)
        order = self._shares.order(slots)
        if order is not None:
            keys, slots = [keys[row] for row in order.tolist()], slots[order]
        spans = self._shares.spans(slots)
        streams = self._keys.many(view.key, keys, slots.tolist(), STREAM)
        pendings = self._keys.many(view.key, keys, slots.tolist(), PENDING)
        before, appended, cuts = self._read(view.key, slots, spans, streams, pendings)
        now_us, horizons = self._clock_us(), self._horizons(view, cuts)
        new = pending.rolled_up(before, appended, cuts, horizons, commit)
        if list(map(_size, new.pending)) == list(map(_size, appended)):
            return  # sessions of which none is settled
        kept = lifetimes_s(view, new.stream_newest_us, now_us), lifetimes_s(view, new.pending_newest_us, now_us)
        commands: dict[int, list[bytes | Chunk]] = {}
        for place, rows in spans:
            written = _set_commands(streams[rows], new.stream[rows], _some(kept[0], rows))
            written += _set_commands(pendings[rows], new.pending[rows], _some(kept[1], rows))
            gone = [*_unset(streams[rows], new.stream[rows]), *_unset(pendings[rows], new.pending[rows])]
            commands[place] = [*written, *([pack(("DEL", *gone))] if gone else [])]
        self._expiries.forget(key_hashes(view.key, pa.array(keys)))
        self._shares.commit(commands)
        self.rolled_up += len(keys)

    def _read(
        self, view: str, slots: Ints, spans: Sequence[tuple[int, slice]], streams: list[str], pendings: list[str]
    ) -> tuple[list[bytes | None], list[bytes | None], Ints]:
        """The stream blobs and pending blobs of entities, and the cut of each."""
        asked, of_slot = {}, {}
        for place, rows in spans:
            distinct, of_slot[place] = np.unique(slots[rows], return_inverse=True)
            asked[place] = [*streams[rows], *pendings[rows], *self._keys.slots("cut", view, distinct.tolist())]
        before, appended, cuts = [], [], []
        found = self._shares.mget(asked)
        for place, rows in spans:
            count, values = rows.stop - rows.start, found[place]
            before += values[:count]
            appended += values[count : 2 * count]
            cuts.append(np.array([Cut.decode(one).cut_us for one in values[2 * count :]], np.int64)[of_slot[place]])
        return before, appended, np.concatenate(cuts)

    def _horizons(self, view: WindowedView, cuts: Ints) -> Ints:
        """Of each entity, before which instant no event is to come that its sessions would have to heed.

        That is the cut, once all is applied that was archived when it was chosen, since what comes before it from then
        on is marked for repair; and what no window can need any more.
        """
        if view.sessions is None or self._settled_us is None:
            return np.full(len(cuts), NO_CUT)
        settled_us = self._settled_us(view.source, lambda partition: self._next_offset(view.key, partition))
        lookback_us = Layout.of(view).lookback_us
        needless_us = NO_CUT if lookback_us is None or settled_us == NO_CUT else settled_us - lookback_us
        return np.maximum(np.where(cuts <= settled_us, cuts, NO_CUT), needless_us)


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
