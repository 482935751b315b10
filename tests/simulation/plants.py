"""Bugs to be planted: each takes away one thing that exactly once rests on. The simulation must turn red with each.

Lives here: the bugs, as patches of the code that a run drives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import streaming.parts
from forebay.offline.archive import Archive
from forebay.offline.dead_letters import DeadLetters
from forebay.online.fence import Fence
from forebay.online.lane import Lane
from forebay.online.long_blobs import LongBlobs
from forebay.online.pending import PendingTiles, RolledUp
from forebay.online.progress import Progress
from forebay.online.shares import Shares
from streaming.offline import Offline

Plant = Callable[[pytest.MonkeyPatch], None]


def an_unfenced_lane(patch: pytest.MonkeyPatch) -> None:
    """A writer of the online store looks at no token."""
    look = Fence._look

    def blind(fence: Fence, replies: list[Any]) -> None:
        look(fence, replies)
        fence._lost = None

    make = Fence.__init__

    def unwatched(fence: Fence, *arguments: Any, **named: Any) -> None:
        make(fence, *arguments, **named)
        fence._guard = fence._guard.replace(b"WATCH", b"TOUCH")

    patch.setattr(Fence, "_look", blind)
    patch.setattr(Fence, "__init__", unwatched)


def unfenced_tables(patch: pytest.MonkeyPatch) -> None:
    """A flow does not take the tables that it appends to: its predecessor may still append."""
    patch.setattr(Archive, "take", lambda *_: None)
    patch.setattr(DeadLetters, "take", lambda *_: None)


def applied_twice(patch: pytest.MonkeyPatch) -> None:
    """What a slot has applied is not dropped when it is replayed."""
    patch.setattr(Lane, "_unapplied", lambda lane, view, progress, pieces: (piece.events[view] for piece in pieces))


def nothing_voided(patch: pytest.MonkeyPatch) -> None:
    """A lane that reconnects does not see to what is still on its way."""
    patch.setattr(Shares, "void", lambda shares: None)


def nothing_given_back(patch: pytest.MonkeyPatch) -> None:
    """What had been published is not published again after the online store has lost everything."""
    patch.setattr(streaming.parts, "_give_back", lambda *_: False)


def losses_unseen(patch: pytest.MonkeyPatch) -> None:
    """A flow that reconnects does not compare what was acknowledged with what is there."""
    patch.setattr(Progress, "lacks", lambda progress, acknowledged: False)


def late_unmarked(patch: pytest.MonkeyPatch) -> None:
    """Dates of late events are not recorded."""
    patch.setattr(Offline, "_late", lambda offline, chunk: np.zeros(len(chunk.ts), np.bool_))


def verdicts_forgotten(patch: pytest.MonkeyPatch) -> None:
    """What was refused because of the clock is judged again by the next flow."""
    patch.setattr(Offline, "refused", lambda offline, source: {})


def pending_dropped(patch: pytest.MonkeyPatch) -> None:
    """A roll-up forgets the oldest pending partial of those that it rolls up."""
    rolled_up = PendingTiles.rolled_up

    def forgetful(kept: PendingTiles, stream: Any, pending: Any, *rest: Any) -> RolledUp:
        size = kept._layout.event_bytes
        fewer = [None if blob is None else blob[size:] if len(blob) > 2 * size else blob for blob in pending]
        return rolled_up(kept, stream, fewer, *rest)

    patch.setattr(PendingTiles, "rolled_up", forgetful)


def read_before_a_failure(patch: pytest.MonkeyPatch) -> None:
    """What was read before a commit failed is rolled up after it all the same."""
    again = LongBlobs.again

    def kept(long: LongBlobs) -> None:
        read = long._read
        again(long)
        long._read = read

    patch.setattr(LongBlobs, "again", kept)


PLANTS: tuple[Plant, ...] = (
    read_before_a_failure,
    an_unfenced_lane,
    unfenced_tables,
    applied_twice,
    nothing_voided,
    nothing_given_back,
    losses_unseen,
    late_unmarked,
    verdicts_forgotten,
    pending_dropped,
)
