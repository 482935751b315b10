"""The one writer of some lanes in the online store, and the source of their partials for the offline store.

Lives here: committing pieces through `forebay.online.lane.Lane`, with patience, in the order in which they come.
Invariants: a piece continues where the one before it ended (a gap would be events lost, so it stops the flow); after
the flow's first error nothing is written any more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from forebay.core.events import Events
from forebay.errors import StoreError
from forebay.language.view import WindowedView
from forebay.online.lane import Applied, Lane
from forebay.online.lane import Piece as LanePiece
from streaming.heartbeat import Heartbeat
from streaming.lateness import INT64_MIN
from streaming.metrics import Metrics
from streaming.partials import Partials
from streaming.retry import Patience
from streaming.split import Piece


@dataclass
class LaneWriter:
    """Applies the pieces of one worker to its lanes, which it has taken over."""

    lane: Lane
    lanes: Sequence[int]
    views: Mapping[str, WindowedView]
    patience: Patience
    streamed: Callable[[Partials], None]
    committed: Callable[[str, int], None]
    done: Callable[[int], None]
    metrics: Metrics
    now_us: Callable[[], int]
    _ends: dict[tuple[str, str], int] = field(default_factory=dict)

    def write(self, pieces: Sequence[Piece | Heartbeat]) -> None:
        """Commit pieces and pass on their partials; move watermarks where there is nothing to commit."""
        for piece in pieces:
            if isinstance(piece, Heartbeat):
                self._beat(piece)
            else:
                self._write(piece)
                self.done(piece.size)

    def _beat(self, heartbeat: Heartbeat) -> None:
        ends = {name: quiet.next_offset for name, quiet in heartbeat.ends.items()}
        self.patience(lambda: self.lane.beat(heartbeat.source.name, ends, heartbeat.seen_us))
        self.metrics.beaten(heartbeat.source.name)

    def _write(self, piece: Piece) -> None:
        where = (piece.source.name, piece.partition)
        if piece.first_offset != self._ends.get(where, piece.first_offset):
            raise StoreError(
                f"Partition {piece.partition!r} of {piece.source.name!r} continues at offset {piece.first_offset}, "
                f"but was applied up to {self._ends[where]}: events would be lost. Start the flow again"
            )
        newest_us = None if piece.newest_us == INT64_MIN else piece.newest_us
        stretch = LanePiece(piece.partition, piece.next_offset, newest_us, piece.events, piece.refused)
        applied = self.patience(self.metrics.timed("online", lambda: self.lane.commit([stretch])))
        self._count(piece)
        self._ends[where] = piece.next_offset
        for key, events in piece.events.items():
            self._pass_on(piece, key, events, applied.get(key))

    def _count(self, piece: Piece) -> None:
        self.metrics.rolled_up(self.lane.rolled_up)
        self.lane.rolled_up, now_us = 0, self.now_us()
        for key, events in piece.events.items():
            if len(events):
                self.metrics.ages.observe(key, now_us - events.ts)

    def _pass_on(self, piece: Piece, key: str, events: Events, applied: Applied | None) -> None:
        whole = applied is not None and int(np.sum(applied.tiles.records["events"])) == len(events)
        commit = max(known.commit for known in self.lane.progress[key].values())
        self.committed(key, commit)
        self.streamed(
            Partials(
                self.views[key],
                piece.partition,
                piece.first_offset,
                piece.next_offset,
                self.lanes,
                events,
                commit,
                applied.keys if applied and whole else None,
                applied.tiles if applied and whole else None,
            )
        )

    def close(self) -> None:
        """Let go of the connection."""
        self.lane.close()
