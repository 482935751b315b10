"""Who reads which partition, and who writes which slot.

Lives here: pure arithmetic on names and numbers. A flow of `n` workers has `n` readers and `n` writers; Bytewax deals
the parts of a source and of a sink to workers in the order of their names, one each. (A step with state would go by a
hash of its key, which lands short keys unevenly; the flow has none.)

    partition ── ordinal % n ──▶ reader          entity ── slot ── slot % LANES = lane ── lane % n ──▶ writer

Invariants: in a flow, one reader reads a partition and one writer writes a lane. Lanes are fixed, so that offsets
recorded per lane stay true whatever the number of workers.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forebay.core.events import Events
from forebay.core.identity import LANES, SLOTS

WORKERS_MAX = LANES

_NUMBERED = re.compile(r".*:(\d+)")


def part_names(workers: int) -> list[str]:
    """The names of the readers, and of the writers, of a flow: their order is that of the workers."""
    return [f"{worker:02d}" for worker in range(workers)]


def reader_of(source: str, partition: str, workers: int) -> int:
    """The reader of a partition: numbered partitions in turn, others by their name.

    >>> [reader_of("orders", f"orders:{i}", 2) for i in range(4)] in ([0, 1, 0, 1], [1, 0, 1, 0])
    True
    """
    numbered = _NUMBERED.fullmatch(partition)
    ordinal = (
        int(numbered[1]) + zlib.crc32(source.encode()) if numbered else zlib.crc32(f"{source}/{partition}".encode())
    )
    return ordinal % workers


def lanes_of(worker: int, workers: int) -> list[int]:
    """The lanes that a worker writes."""
    return list(range(worker, LANES, workers))


def slots_of_worker(worker: int, workers: int) -> list[int]:
    """The slots that a worker writes."""
    return [slot for slot in range(SLOTS) if slot % LANES % workers == worker]


def lane_of_events(events: Events) -> npt.NDArray[np.int64]:
    """The lane of each event."""
    return (events.slots % LANES)[events.code]


def split(events: Events, workers: int) -> Sequence[Events]:
    """The events of each writer, in the order of their offsets."""
    if workers == 1:
        return [events]
    writer = lane_of_events(events) % workers
    return [events.take(np.flatnonzero(writer == worker)) for worker in range(workers)]
