"""What a reader hands to the flow: a run of raw events of one partition, and the offsets that it covers.

Lives here: the value and nothing else. Offsets are 64-bit numbers that only grow along a partition; they may have
gaps (Kafka, Redis Streams) and then say so one by one. Invariant: the chunks of a partition join without a gap: each
begins where the one before it ended, in `[first_offset, next_offset)`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.language.source import EventSource

EVENTS_MAX = 8192
"""Events of one chunk: large enough for columns to pay (DESIGN §6), small enough for a commit of a few milliseconds."""
CHUNKS_MAX, SMALL_MAX = 8, 64
"""Chunks of one source that a reader takes at a time, and how many if they are small: a source with a thousand
partitions fills the backlog no further.
"""
BYTES_MAX = 2 << 20
"""Bytes of one read from a log: bounds what a chunk of large events holds."""


@dataclass(frozen=True)
class Chunk:
    """Raw events of one partition: either `lines` (messages) or rows of a `table`, in the order of their offsets.

    One without any only moves positions over offsets that hold no event.
    """

    source: EventSource
    partition: str
    first_offset: int
    next_offset: int
    lines: Sequence[bytes | None] = ()
    """`None` where a message has no value."""
    table: pa.Table | None = None
    archived: bool = False
    """Whether `table` holds events as the archive does, judged and with their offsets."""
    offsets: npt.NDArray[np.int64] | None = None
    """The offset of each event; `None` where they are `first_offset`, `first_offset + 1`, …"""
    bookmark: int | None = None
    """Of `next_offset`, where its log has such things (`bookmark.py`)."""

    def __len__(self) -> int:
        return len(self.lines) if self.table is None else int(self.table.num_rows)

    @functools.cached_property
    def weight(self) -> int:
        """Events, or as many as what it holds would be of the size at which BYTES_MAX are EVENTS_MAX of them."""
        count = len(self)
        if count >= EVENTS_MAX or self.table is not None:
            return count
        return max(count, sum(len(line) for line in self.lines if line) * EVENTS_MAX // BYTES_MAX)

    @property
    def positions(self) -> npt.NDArray[np.int64]:
        """The offset of each event."""
        return np.arange(self.first_offset, self.first_offset + len(self)) if self.offsets is None else self.offsets


def enough(chunks: Sequence[Chunk]) -> bool:
    """Whether these are all that is taken at a time of one source: some, or many that hold little more than one may."""
    if len(chunks) < CHUNKS_MAX:
        return False
    return len(chunks) >= SMALL_MAX or sum(chunk.weight for chunk in chunks) >= EVENTS_MAX
