"""The seam between batch and stream: which tiles of an entity count.

    batch   ══════════════════╗ cut
    stream        ────────────╫──────────────────┤ newest
    counted ══════════════════╫──────────────────┤

Batch tiles count before the cut, stream tiles from it on; the cut is a multiple of every hop, so a tile is on one
side. Each batch blob carries its own cut, so an entity changes over at once when its blob is replaced. An entity
without a blob has the cut of the last finished publication: batch has nothing of it before that. A blob with an older
cut than that belongs to an entity that the publication has emptied, and is ignored.

A stream drops tiles only behind the cut of a *finished* publication, when every blob that counts is at or after it. So
there is no moment at which an event counts twice or not at all, however late batch runs and whatever is published
meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forebay.core.codec import newest_of, unpack, unpack_records
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Joined:
    """What counts for some entities: tiles (some pending), the cut and the newest event of each (NO_CUT where none)."""

    tiles: Tiles
    cuts_us: Ints
    newest_us: Ints


def join(
    layout: Layout,
    stream: Sequence[bytes | None],
    pending: Sequence[bytes | None],
    batch: Sequence[bytes | None],
    finished_us: Ints,
) -> Joined:
    """Join the blobs of entities whose slots have the finished cuts given (NO_CUT: nothing was published)."""
    headers, before = unpack(layout, batch)
    published = headers["cut"] >= finished_us
    cuts_us = np.where(published, headers["cut"], finished_us)
    after = (unpack(layout, stream)[1], unpack_records(layout, pending))
    parts = (before, *after)
    counted = [published[before.code], *(part.records["start"] >= cuts_us[part.code] for part in after)]
    rows = np.flatnonzero(np.concatenate(counted))
    together = Tiles.joined(parts)
    tiles = together.take(rows[np.argsort(together.code[rows], kind="stable")])
    return Joined(tiles, cuts_us, newest_of(tiles, len(stream)))
