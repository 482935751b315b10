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

from forebay.core.codec import newest_of, pack_pending, unpack_records
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge, roll_up
from forebay.core.unsettled import Unsettled, pack_instants, unpack_instants
from forebay.ingest.sessions import Sessionizer, rule_of
from forebay.language.view import WindowedView
from forebay.online.rollup import rolled_up

Ints = npt.NDArray[np.int64]
ROLL_BYTES = 2048
"""A pending blob is rolled up from here on: shorter costs more writes, longer more at each read."""
ROLL_RECORDS = 16
"""But never at fewer partials than this, however large a record is."""


@dataclass(frozen=True)
class Fresh:
    """What a commit adds: tiles (none of sessions), what to append to each entity, and the newest event of each."""

    keys: list[str]
    tiles: Tiles
    bodies: list[bytes]
    newest_us: Ints


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

    def is_long(self, length: int, added: int) -> bool:
        """Whether a blob is to be rolled up that has a length since some bytes were added."""
        ...

    def is_urgent(self, length: int, added: int) -> bool:
        """Whether it cannot wait for others."""
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
        keys, tiles = _folded(self._layout, parts)
        return Fresh(keys, tiles, pack_pending(self._layout, tiles, len(keys)), newest_of(tiles, len(keys)))

    def is_long(self, length: int, added: int) -> bool:
        """From ROLL_BYTES on, or ROLL_RECORDS where these are longer."""
        return length >= self._limit()

    def is_urgent(self, length: int, added: int) -> bool:
        """From twice that on."""
        return length >= 2 * self._limit()

    def _limit(self) -> int:
        return max(ROLL_BYTES, ROLL_RECORDS * self._layout.event_bytes)

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
        entities: dict[str, int] = {}
        local = [np.array([entities.setdefault(key, len(entities)) for key in part.keys], np.int64) for part in parts]
        code = np.concatenate([known[part.code] for known, part in zip(local, parts, strict=True)])
        events = Unsettled(code, np.concatenate([part.ts for part in parts]))
        bodies, newest = pack_instants(events, len(entities)), events.newest_of(len(entities))
        return Fresh(list(entities), Tiles.empty(self._layout), bodies, newest)

    def is_long(self, length: int, added: int) -> bool:
        """Each time that it has doubled: nothing may be settled yet, and then it is read for nothing."""
        return length >= ROLL_BYTES and (length - added).bit_length() < length.bit_length()

    def is_urgent(self, length: int, added: int) -> bool:
        """From the second time on."""
        return length >= 2 * ROLL_BYTES and self.is_long(length, added)

    def rolled_up(
        self, stream: Sequence[bytes | None], pending: Sequence[bytes | None], cuts: Ints, horizons: Ints, commit: int
    ) -> RolledUp:
        """The sessions that are settled are in the tiles, the events of the others stay."""
        self._sessionizer = self._sessionizer or Sessionizer(self._view)
        count = len(pending)
        done, left = unpack_instants(self._view.key, pending).split(self._rule, horizons)
        tiles = roll_up(self._layout, fold(self._layout, self._sessionizer.described(done, [""] * count)))
        blobs, newest = rolled_up(self._layout, stream, tiles, cuts, commit)
        return RolledUp(blobs, newest, [body or None for body in pack_instants(left, count)], left.newest_of(count))


def _folded(layout: Layout, parts: Sequence[Events]) -> tuple[list[str], Tiles]:
    """The tiles of some batches of events, and the entities that they are of."""
    if len(parts) == 1:
        return parts[0].keys, fold(layout, parts[0])
    entities: dict[str, int] = {}
    pieces = [Tiles.empty(layout)]
    for events in parts:
        local = np.array([entities.setdefault(key, len(entities)) for key in events.keys], np.int64)
        tiles = fold(layout, events)
        pieces.append(tiles.recoded(local[tiles.code]))
    whole = Tiles.joined(pieces)
    return list(entities), merge(layout, whole.code, whole.records, whole.cells)
