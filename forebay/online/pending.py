"""What a view keeps pending online: appended commit by commit, rolled up when it has grown long.

    plain view          partials of the finest hop. Rolled up, all of them go into the tiles of the stream blob
    view of sessions    the instants of events. Rolled up, the sessions that are settled go into tiles, and the events
                        of the others stay

Lives here: the difference between the two, for the lane that writes them (`forebay.online.lane`). Both say what to
append of some events, from which length on to roll up, and what the blobs are after it; nothing here reads or writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.codec import newest_of, pack_pending, unpack_records
from forebay.core.events import Events, united, unnamed
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge, roll_up
from forebay.core.unsettled import Unsettled, pack_instants, unpack_instants
from forebay.ingest.sessions import Sessionizer, rule_of
from forebay.language.view import WindowedView
from forebay.online.rollup import rolled_up

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
ROLL_BYTES = 2048
"""A pending blob is rolled up from here on: shorter costs more writes, longer more at each read."""
ROLL_RECORDS = 16
"""But never at fewer partials than this, however large a record is."""
APART_MIN = 512
"""Batches of at least so many events, by and large, are folded each by itself: then the stream's table takes the same
tiles. Fewer are folded at once, and those of a second once more for the table.
"""


@dataclass(frozen=True, eq=False)
class Folded:
    """Some events, and their tiles of the finest ring where they were folded by themselves."""

    events: Events
    tiles: Tiles | None = None
    """`code` is an index into the keys of the events."""


@dataclass(frozen=True, eq=False)
class Fresh:
    """What a commit adds: entities, their slots, what to append to each, and the newest event of each; and what each
    batch of events was folded to.
    """

    keys: pa.StringArray
    slots: Ints
    bodies: pa.BinaryArray
    newest_us: Ints
    folded: Sequence[Folded]

    def take(self, order: Ints) -> Fresh:
        """The same entities in another order."""
        rows = pa.array(order)
        return Fresh(
            self.keys.take(rows), self.slots[order], self.bodies.take(rows), self.newest_us[order], self.folded
        )


@dataclass(frozen=True)
class RolledUp:
    """The blobs of some entities: stream and pending (`None`: it goes), and the newest event of each of the two."""

    stream: list[bytes | None]
    stream_newest_us: Ints
    pending: list[bytes | None]
    pending_newest_us: Ints


class Pending(Protocol):
    """What the pending blobs of one view hold."""

    def fresh(self, parts: Sequence[Events]) -> Fresh:
        """What some batches of events add."""
        ...

    @property
    def long_bytes(self) -> int:
        """No shorter blob is to be rolled up."""
        ...

    def are_long(self, lengths: Ints, added: Ints) -> Mask:
        """Which blobs are to be rolled up that have these lengths since some bytes were added."""
        ...

    def are_urgent(self, lengths: Ints, added: Ints) -> Mask:
        """Which of them cannot wait for others."""
        ...

    def rolled_up(
        self, stream: Sequence[bytes | None], pending: Sequence[bytes | None], cuts: Ints, horizons: Ints, commit: int
    ) -> RolledUp:
        """The blobs after a roll-up, at the cuts of their slots and where no event before `horizons` is to come."""
        ...


def pending_of(view: WindowedView) -> Pending:
    """What a view keeps pending."""
    return PendingTiles(view) if view.sessions is None else PendingEvents(view)


class PendingTiles:
    """The pending blobs of a plain view: partials of the finest hop."""

    def __init__(self, view: WindowedView) -> None:
        self._layout = Layout.of(view)

    def fresh(self, parts: Sequence[Events]) -> Fresh:
        """Their partials."""
        keys, slots, numbers = _united(parts)
        if sum(map(len, parts)) < len(parts) * APART_MIN:
            tiles, folded = fold(self._layout, _joined(parts, keys, numbers)), [Folded(part) for part in parts]
        else:
            apart = [fold(self._layout, part) for part in parts]
            tiles = _merged(self._layout, apart, numbers)
            folded = [Folded(part, some) for part, some in zip(parts, apart, strict=True)]
        bodies, newest = pack_pending(self._layout, tiles, len(keys)), newest_of(tiles, len(keys))
        return Fresh(keys, slots, bodies, newest, folded)

    @property
    def long_bytes(self) -> int:
        """ROLL_BYTES, or ROLL_RECORDS where these are longer."""
        return max(ROLL_BYTES, ROLL_RECORDS * self._layout.event_bytes)

    def are_long(self, lengths: Ints, added: Ints) -> Mask:
        """From `long_bytes` on."""
        return lengths >= self.long_bytes

    def are_urgent(self, lengths: Ints, added: Ints) -> Mask:
        """From twice that on."""
        return lengths >= 2 * self.long_bytes

    def rolled_up(
        self, stream: Sequence[bytes | None], pending: Sequence[bytes | None], cuts: Ints, horizons: Ints, commit: int
    ) -> RolledUp:
        """All partials are in the tiles."""
        tiles = roll_up(self._layout, unpack_records(self._layout, pending))
        blobs, newest = rolled_up(self._layout, stream, tiles, cuts, commit)
        return RolledUp(blobs, newest, [None] * len(pending), newest)


class PendingEvents:
    """The pending blobs of a view of sessions: the instants of events. Belongs to one thread."""

    def __init__(self, view: WindowedView) -> None:
        assert view.sessions is not None
        self._view, self._layout, self._rule = view, Layout.of(view), rule_of(view.sessions)
        self._sessionizer: Sessionizer | None = None

    def fresh(self, parts: Sequence[Events]) -> Fresh:
        """Their instants."""
        keys, slots, numbers = _united(parts)
        code = np.concatenate([known[part.code] for known, part in zip(numbers, parts, strict=True)])
        events = Unsettled(code, np.concatenate([part.ts for part in parts]))
        bodies = pa.array(pack_instants(events, len(keys)), pa.binary())
        return Fresh(keys, slots, bodies, events.newest_of(len(keys)), [Folded(part) for part in parts])

    @property
    def long_bytes(self) -> int:
        """ROLL_BYTES."""
        return ROLL_BYTES

    def are_long(self, lengths: Ints, added: Ints) -> Mask:
        """Each time that one has doubled: nothing may be settled yet, and then it is read for nothing."""
        return (lengths >= ROLL_BYTES) & (_bit_lengths(lengths - added) < _bit_lengths(lengths))

    def are_urgent(self, lengths: Ints, added: Ints) -> Mask:
        """From the second time on."""
        return (lengths >= 2 * ROLL_BYTES) & self.are_long(lengths, added)

    def rolled_up(
        self, stream: Sequence[bytes | None], pending: Sequence[bytes | None], cuts: Ints, horizons: Ints, commit: int
    ) -> RolledUp:
        """The sessions that are settled are in the tiles, the events of the others stay."""
        self._sessionizer = self._sessionizer or Sessionizer(self._view)
        count = len(pending)
        done, left = unpack_instants(self._view.key, pending).split(self._rule, horizons)
        tiles = roll_up(self._layout, fold(self._layout, self._sessionizer.described(done, unnamed(count))))
        blobs, newest = rolled_up(self._layout, stream, tiles, cuts, commit)
        return RolledUp(blobs, newest, [body or None for body in pack_instants(left, count)], left.newest_of(count))


def _united(parts: Sequence[Events]) -> tuple[pa.StringArray, Ints, list[Ints]]:
    """The entities that some batches have events of, each once, and their slots; and the numbers that those of each
    batch have there, −1 for one without an event.
    """
    keys, slots, numbers = parts[0].keys, parts[0].slots, [np.arange(len(parts[0].keys))] * len(parts)
    if any(part.keys is not keys for part in parts):
        keys, numbers = united([part.keys for part in parts])
        slots = np.empty(len(keys), np.int64)
        slots[np.concatenate(numbers)] = np.concatenate([part.slots for part in parts])
    is_used = np.zeros(len(keys), np.bool_)
    for part, known in zip(parts, numbers, strict=True):
        is_used[known[part.code]] = True
    if is_used.all():
        return keys, slots, numbers
    used, renumbered = np.flatnonzero(is_used), np.where(is_used, np.cumsum(is_used) - 1, -1)
    return keys.take(pa.array(used)), slots[used], [renumbered[known] for known in numbers]


def _joined(parts: Sequence[Events], keys: pa.StringArray, numbers: Sequence[Ints]) -> Events:
    """The events of some batches as one, whose entities are numbered anew."""
    if len(parts) == 1 and keys is parts[0].keys:
        return parts[0]
    codes = [known[part.code] for part, known in zip(parts, numbers, strict=True)]
    return Events.concatenated(parts, keys, codes)


def _merged(layout: Layout, parts: Sequence[Tiles], numbers: Sequence[Ints]) -> Tiles:
    """The tiles of some batches as one, whose entities are numbered anew."""
    renumbered = [tiles.recoded(known[tiles.code]) for tiles, known in zip(parts, numbers, strict=True)]
    if len(parts) == 1:
        return renumbered[0]
    whole = Tiles.joined(renumbered)
    return merge(layout, whole.code, whole.records, whole.cells)


def _bit_lengths(numbers: Ints) -> Ints:
    """Bits of each number, as of `int.bit_length`; exact below 2^53."""
    return np.frexp(numbers)[1].astype(np.int64)
