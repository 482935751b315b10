"""What the archive remembers of a partition, and the decoder goes on from.

    log        ├─── the last `dedupe` ───┬────────────▶
                                      archived             offsets
    decided by              the archive       the decoder: late against the newest event, duplicate within the horizon

Lives here: reading that memory from the archive when a flow begins: its newest event, and the events of the last
`dedupe` before its position (docs/adr/0023); and what another store has settled behind that position (docs/adr/0028).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.admit import Clock
from forebay.ingest.batch import EVENT_ID, SOURCE_OFFSET
from forebay.ingest.dedupe import Dedupe
from forebay.language.source import EventSource
from forebay.offline.archive import Archive, PartitionPosition
from streaming.lateness import INT64_MIN


@dataclass(frozen=True)
class Settled:
    """What is not for the clock to say any more: the offsets below `end` are not dated too far ahead, but for those
    that were `refused`.
    """

    end: int = 0
    refused: frozenset[int] = frozenset()

    def clock(self, now_us: int) -> int | Clock:
        """The instant by which each offset is judged now."""
        if not self.end and not self.refused:
            return now_us

        def clock(offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            instants = np.where(offsets < self.end, ALWAYS_US, now_us)
            return np.where(np.isin(offsets, list(self.refused)), NEVER_US, instants)

        return clock


NOTHING = Settled()
NEVER_US, ALWAYS_US = -(2**62), 2**62
"""Before and after every instant that an event can have."""


@dataclass(frozen=True)
class Remembered:
    """The newest archived event of a partition (INT64_MIN: none), what is known of duplicates (`None`: nothing yet),
    and what was settled of the offsets behind the archive.
    """

    newest_us: int = INT64_MIN
    dedupe: Dedupe | None = None
    settled: Settled = field(default_factory=lambda: NOTHING)


def remember(
    archive: Archive, positions: Mapping[str, PartitionPosition], settled: Mapping[str, Settled]
) -> dict[str, Remembered]:
    """What an archive at `positions` remembers of its partitions, and what was `settled` elsewhere."""
    dedupes, nothing = _dedupes(archive, positions), PartitionPosition()
    return {
        name: Remembered(newest_of(positions.get(name, nothing)), dedupes.get(name), settled.get(name, NOTHING))
        for name in positions.keys() | settled.keys()
    }


def newest_of(position: PartitionPosition) -> int:
    """The newest archived event of a partition; INT64_MIN where there is none."""
    return INT64_MIN if position.newest_us is None else position.newest_us


def fresh_dedupe(source: EventSource) -> Dedupe | None:
    """The memory of a partition of which nothing was read; `None` where the source declares none."""
    return None if source.dedupe_us is None else Dedupe(source.dedupe_us)


def _dedupes(archive: Archive, positions: Mapping[str, PartitionPosition]) -> dict[str, Dedupe]:
    horizon_us, instant = archive.source.dedupe_us, archive.source.timestamp
    if horizon_us is None:
        return {}
    begun = {name: position for name, position in positions.items() if position.newest_us is not None}
    dedupes = {name: Dedupe(horizon_us, newest_of(position)) for name, position in begun.items()}
    for name, rows in archive.recent({name: dedupe.newest_us for name, dedupe in dedupes.items()}, horizon_us):
        rows = rows.filter(pc.less(rows[SOURCE_OFFSET], positions[name].next_offset))
        dedupes[name](np.asarray(rows[instant].cast(pa.int64())), rows[EVENT_ID])
    return dedupes
