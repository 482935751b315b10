"""Rolling up: what was pending goes into the stream blob of an entity, and what nobody needs goes.

Pure but for its place beside the lane, which reads, calls and writes. What is dropped:

    behind the cut     tiles that start before the cut of a finished publication: batch tiles stand for them
    expired            tiles that no window can need after the entity's own newest event, whenever it is asked

The cut is a multiple of every hop, so no tile of any ring straddles it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forebay.core.codec import STREAM, newest_of, pack, unpack
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, expire, merge

Ints = npt.NDArray[np.int64]


def rolled_up(
    layout: Layout,
    stream: Sequence[bytes | None],
    new: Tiles,
    cuts_us: Ints,
    commit: int,
) -> tuple[list[bytes | None], Ints]:
    """The new stream blob of each entity (`None` where no tile is left) and its newest event.

    `new` are the tiles of every ring that were pending.
    """
    _, old = unpack(layout, stream)
    every = Tiles.joined([old, new])
    behind = every.records["start"] < cuts_us[every.code]
    if behind.any():
        every = every.take(~behind)
    newest = newest_of(every, len(stream))
    tiles = expire(layout, merge(layout, every.code, every.records, every.cells), newest + 1)
    counts = np.bincount(tiles.code, minlength=len(stream))
    blobs = pack(layout, tiles, len(stream), kind=STREAM, commit=commit)
    return [blob if count else None for blob, count in zip(blobs, counts.tolist(), strict=True)], newest
