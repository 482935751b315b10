"""The seam between batch and stream: which tiles of an entity count.

    batch   ══════════════════╗ cut
    stream        ────────────╫──────────────────┤ newest
    counted ══════════════════╫──────────────────┤

A session is on the side of the instant at which it is over, wherever its events are: the stream keeps those of sessions
that are over after the cut.

Batch tiles count before the cut, stream tiles from it on; the cut is a multiple of every hop, so a tile is on one
side. Each batch blob carries its own cut, so an entity changes over at once when its blob is replaced. An entity
without a blob has the cut of the last finished publication: batch has nothing of it before that. A blob with an older
cut than that belongs to an entity that the publication has emptied, and is ignored.

A stream drops tiles only behind the cut of a *finished* publication, when every blob that counts is at or after it. So
there is no moment at which an event counts twice or not at all, however late batch runs and whatever is published
meanwhile. `retention` is where that gets long: an alarm, which drops nothing (`overdue`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from forebay.core.codec import NO_CUT, newest_of, unpack, unpack_records
from forebay.core.events import unnamed
from forebay.core.layout import PENDING, Layout
from forebay.core.sessions import sessionize
from forebay.core.tiles import Tiles, fold
from forebay.core.unsettled import Unsettled, unpack_instants
from forebay.ingest.sessions import Sessionizer, Sessionizers
from forebay.language.view import WindowedView

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joined:
    """What counts for some entities: tiles (some pending), the cut and the newest event of each (NO_CUT where none).

    Of a view of sessions also the events that are not settled, whose sessions count as far as they are over.
    """

    tiles: Tiles
    cuts_us: Ints
    newest_us: Ints
    unsettled: Unsettled | None = None

    def tiles_at(self, layout: Layout, sessionizers: Sessionizers, instant_us: int) -> Tiles:
        """What counts at an instant."""
        if self.unsettled is None or not len(self.unsettled.code):
            return self.tiles
        return _with_sessions(layout, sessionizers.of(layout.view), self, self.unsettled, instant_us)


def join(
    layout: Layout,
    stream: Sequence[bytes | None],
    pending: Sequence[bytes | None],
    batch: Sequence[bytes | None],
    finished_us: Ints,
) -> Joined:
    """Join the blobs of entities whose slots have the finished cuts given (NO_CUT: nothing was published)."""
    of_sessions = layout.view.sessions is not None  # what they keep pending are instants, not tiles
    headers, before = unpack(layout, batch)
    published = headers["cut"] >= finished_us
    cuts_us = np.where(published, headers["cut"], finished_us)
    waiting = [None] * len(pending) if of_sessions else pending
    after = (unpack(layout, stream)[1], unpack_records(layout, waiting))
    parts = (before, *after)
    counted = [published[before.code], *(part.records["start"] >= cuts_us[part.code] for part in after)]
    rows = np.flatnonzero(np.concatenate(counted))
    together = Tiles.joined(parts)
    tiles = together.take(rows[np.argsort(together.code[rows], kind="stable")])
    joined = Joined(tiles, cuts_us, newest_of(tiles, len(stream)))
    return _and_unsettled(joined, unpack_instants(layout.view.key, pending)) if of_sessions else joined


def overdue(view: WindowedView, cuts_us: Ints, instant_us: int) -> npt.NDArray[np.bool_]:
    """Which cuts are further behind an instant than the view's `retention`.

    Never without a stream, whose tiles would be waiting, and never where nothing was published (NO_CUT).
    """
    retention_us = view.retention_us
    if retention_us is None or view.source.stream is None:
        return np.zeros(len(cuts_us), np.bool_)
    late: npt.NDArray[np.bool_] = (cuts_us != NO_CUT) & (cuts_us < instant_us - retention_us)
    return late


def is_overdue(view: WindowedView, cut_us: int, instant_us: int) -> bool:
    """The same of one cut."""
    return bool(overdue(view, np.array([cut_us], np.int64), instant_us)[0])


def _and_unsettled(joined: Joined, unsettled: Unsettled) -> Joined:
    newest_us = np.maximum(joined.newest_us, unsettled.newest_of(len(joined.newest_us)))
    return replace(joined, newest_us=newest_us, unsettled=unsettled)


def _with_sessions(
    layout: Layout, sessionizer: Sessionizer, joined: Joined, unsettled: Unsettled, instant_us: int
) -> Tiles:
    """The tiles, and as pending ones those of the sessions that are over in `[cut, instant)`."""
    sessions = sessionize(sessionizer.rule, unsettled.code, unsettled.ts)
    over_us = sessions.end_us + sessionizer.rule.gap_us
    sessions = sessions.take((over_us >= joined.cuts_us[sessions.code]) & (over_us < instant_us))
    if not len(sessions):
        return joined.tiles
    new = fold(layout, sessionizer.described(sessions, unnamed(len(joined.cuts_us))))
    new.records["ring"] = PENDING
    return Tiles.joined([joined.tiles, new])
