"""What the archive remembers of a partition, and the decoder goes on from.

    log        ├─── the last `dedupe` ───┬────────────▶
                                      archived             offsets
    decided by              the archive       the decoder: late against the newest event, duplicate within the horizon

Lives here: reading that memory from the archive when a flow begins: its newest event, and the events of the last
`dedupe` before its position (docs/adr/0023); and what another store has settled behind that position (docs/adr/0028).
Duplicates of a partition that is dormant are read when something comes of it again (docs/adr/0270): a folder that gets
a file each hour has thousands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.admit import COUNTS, JUDGE, Clock
from forebay.ingest.batch import EVENT_ID, REASONS, SOURCE_OFFSET
from forebay.ingest.dedupe import Dedupe
from forebay.instants import DAY_US
from forebay.language.source import EventSource
from forebay.offline.archive import Archive, PartitionPosition
from streaming.lateness import INT64_MIN

DORMANT_US = DAY_US
"""So far behind the newest event of its source (or twice `dedupe`, if that is more) the newest of a partition lies that
is dormant.
"""


@dataclass(frozen=True)
class Settled:
    """What another store has decided, whatever the clock and the definitions say now: the offsets below `end` are
    events, but for those that were `refused`, by their reasons, and what can be read as none at any time.
    """

    end: int = 0
    refused: Mapping[int, str] = field(default_factory=dict)

    def clock(self, now_us: int, first_offset: int) -> int | Clock:
        """By what the offsets of a partition are judged now, from one on."""
        if first_offset >= max(self.end, *(offset + 1 for offset in self.refused), 0):
            return now_us
        offsets = np.array(sorted(self.refused), np.int64)
        reasons = np.array([REASONS.index(self.refused[offset]) for offset in offsets.tolist()], np.int64)

        def settled(some: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            found = np.where(some < self.end, COUNTS, JUDGE)
            named = np.isin(some, offsets)
            found[named] = reasons[np.searchsorted(offsets, some[named])]
            return found

        return Clock(now_us, settled)


NOTHING = Settled()


@dataclass(frozen=True)
class Remembered:
    """The newest archived event of a partition (INT64_MIN: none), what is known of duplicates (`None`: nothing yet, or
    it is dormant), and what was settled of the offsets behind the archive.
    """

    newest_us: int = INT64_MIN
    dedupe: Dedupe | None = None
    settled: Settled = field(default_factory=lambda: NOTHING)


def remember(
    archive: Archive, positions: Mapping[str, PartitionPosition], settled: Mapping[str, Settled]
) -> dict[str, Remembered]:
    """What an archive at `positions` remembers of its partitions, and what was `settled` elsewhere."""
    dedupes, nothing = _dedupes(archive, _awake(archive.source, positions)), PartitionPosition()
    return {
        name: Remembered(newest_of(positions.get(name, nothing)), dedupes.get(name), settled.get(name, NOTHING))
        for name in positions.keys() | settled.keys()
    }


def recall(archive: Archive, partition: str, position: PartitionPosition) -> Dedupe:
    """What is known of the duplicates of one partition, before a position that the archive has reached."""
    return _dedupes(archive, {partition: position})[partition]


def newest_of(position: PartitionPosition) -> int:
    """The newest archived event of a partition; INT64_MIN where there is none."""
    return INT64_MIN if position.newest_us is None else position.newest_us


def fresh_dedupe(source: EventSource) -> Dedupe | None:
    """The memory of a partition of which nothing was read; `None` where the source declares none."""
    return None if source.dedupe_us is None else Dedupe(source.dedupe_us)


def _awake(source: EventSource, positions: Mapping[str, PartitionPosition]) -> dict[str, PartitionPosition]:
    """The partitions that are not dormant."""
    newest_us = max(map(newest_of, positions.values()), default=INT64_MIN)
    since_us = max(newest_us - max(DORMANT_US, 2 * (source.dedupe_us or 0)), INT64_MIN)
    return {name: position for name, position in positions.items() if newest_of(position) >= since_us}


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
