"""The one writer of some lanes in the online store, and the source of their partials for the offline store.

Lives here: committing pieces through `forebay.online.lane.Lane`, with patience, in the order in which they come.
Invariants: a piece continues where the one before it ended (a gap would be events lost, so it stops the flow); after
the flow's first error nothing is written any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from forebay.errors import StoreError
from forebay.language.view import WindowedView
from forebay.online.lane import Applied, Lane, Stretch
from streaming.heartbeat import Heartbeat
from streaming.lateness import INT64_MIN
from streaming.metrics import Metrics
from streaming.partials import Partials
from streaming.retry import Patience
from streaming.split import Piece

COMMIT_EVENTS_MAX = 16_384
"""Events of one commit: two full chunks. Whatever is there at once shares it, and twice as many are no faster."""


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
        """Commit pieces, several at once, and pass on their partials; move watermarks where there is nothing to commit.

        What is there at once shares a transaction, and the tiles of an entity that several pieces touch are appended
        once.
        """
        for together in _together(pieces):
            if isinstance(together, Heartbeat):
                self._beat(together)
            else:
                self._write(together)
                self.done(sum(piece.size for piece in together))

    def _beat(self, heartbeat: Heartbeat) -> None:
        ends = {name: quiet.next_offset for name, quiet in heartbeat.ends.items()}
        self.patience(lambda: self.lane.beat(heartbeat.source.name, ends, heartbeat.seen_us))
        self.metrics.beaten(heartbeat.source.name)

    def _write(self, pieces: Sequence[Piece]) -> None:
        ends = self._continued(pieces)
        stretches = [_stretch(piece) for piece in pieces]
        applied = self.patience(self.metrics.timed("online", lambda: self.lane.commit(stretches)))
        self._count(applied)
        self._ends |= ends
        for key in {key: None for piece in pieces for key in piece.events}:
            self._pass_on(key, [piece for piece in pieces if key in piece.events], applied.get(key))

    def _continued(self, pieces: Sequence[Piece]) -> dict[tuple[str, str], int]:
        """Where partitions are after these pieces, each of which continues where the one before it ended."""
        ends: dict[tuple[str, str], int] = {}
        for piece in pieces:
            where = (piece.source.name, piece.partition)
            end = ends.get(where, self._ends.get(where, piece.first_offset))
            if piece.first_offset != end:
                raise StoreError(
                    f"Partition {piece.partition!r} of {piece.source.name!r} continues at offset {piece.first_offset}, "
                    f"but was applied up to {end}: events would be lost. Start the flow again"
                )
            ends[where] = piece.next_offset
        return ends

    def _count(self, applied: Mapping[str, Applied]) -> None:
        """Count what was new: what a view had already is as old as it was when it came."""
        self.metrics.rolled_up(self.lane.long.rolled_up)
        self.lane.long.rolled_up, now_us = 0, self.now_us()
        for key, one in applied.items():
            for folded in one.folded:
                if len(folded.events):
                    self.metrics.ages.observe(key, now_us - folded.events.ts)

    def _pass_on(self, key: str, pieces: Sequence[Piece], applied: Applied | None) -> None:
        commit = max(known.commit for known in self.lane.progress[key].values())
        self.committed(key, commit)
        for n, piece in enumerate(pieces):
            events, folded = piece.events[key], applied.folded[n] if applied else None
            self.streamed(
                Partials(
                    self.views[key],
                    piece.partition,
                    piece.first_offset,
                    piece.next_offset,
                    self.lanes,
                    events,
                    commit,
                    folded.tiles if folded and folded.events is events else None,
                )
            )

    def close(self) -> None:
        """Let go of the connection."""
        self.lane.close()


def _together(pieces: Sequence[Piece | Heartbeat]) -> Iterator[list[Piece] | Heartbeat]:
    """Pieces that follow one another, as many as one commit may hold, and heartbeats where they come."""
    held: list[Piece] = []
    for piece in pieces:
        if held and (isinstance(piece, Heartbeat) or sum(one.size for one in held) + piece.size > COMMIT_EVENTS_MAX):
            yield held
            held = []
        if isinstance(piece, Heartbeat):
            yield piece
        else:
            held.append(piece)
    if held:
        yield held


def _stretch(piece: Piece) -> Stretch:
    newest_us = None if piece.newest_us == INT64_MIN else piece.newest_us
    return Stretch(piece.partition, piece.next_offset, newest_us, piece.events, piece.refused)
