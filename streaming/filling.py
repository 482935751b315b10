"""Filling a view beside the stream: a new version gets what is archived, while the old one is served and streamed.

    archive   ├──────────────────────────────┤ grows ──▶
    v1        ═══════════ the running flow ═══════════════════════╪═ the flow, started again ══▶
    v2             ├── this, beside it ─────────▶ caught up ┤┄┄┄┄┄╪═ goes on with both ═══════▶
                   start     UNAVAILABLE until here ↑

Lives here: the flow that fills. It reads the archive alone, which the running flow keeps writing, and writes the tiles
of this one view: it takes no table and no slot of the stream. Invariants: it is refused where the stream has the view
already, and ends when the stream takes it over (docs/adr/0092), so nobody ever writes a view together with another; a
slot answers once it has all that was archived when the filling began, and for no instant before the latest start of
its fillings (docs/adr/0275).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import redis

from forebay.core.codec import NO_CUT
from forebay.core.identity import SLOTS
from forebay.core.layout import Layout
from forebay.errors import ConfigError, RequestError, suggestion
from forebay.ingest.batch import SOURCE_OFFSET
from forebay.instants import floor_us, instant_text
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import SOURCE_PARTITION, Archive, least_watermark_us
from forebay.offline.replay import Stretches
from forebay.offline.tables import OfflineStore
from forebay.online import takeover
from forebay.online.lane import Lane
from streaming.archive_log import Archived
from streaming.backlog import Backlog
from streaming.board import Board
from streaming.chunk import Chunk
from streaming.decode import Decoder
from streaming.delta_writer import DeltaWriter
from streaming.engine import drive
from streaming.heartbeat import End
from streaming.log import LogReader
from streaming.offline import Offline
from streaming.parts import Parts, Task, settling_of
from streaming.positions import Found, Positions, published_cut, read_positions
from streaming.remembered import Remembered
from streaming.retry import Patience
from streaming.split import Splitter
from streaming.stop import Stop
from streaming.summary import Summary


@dataclass(frozen=True)
class Start:
    """Where a filling starts: the instant from which the view is to be right (`None`: whatever is archived counts)."""

    instant_us: int | None = None

    @staticmethod
    def after(archive: Archive, offsets: Mapping[str, int]) -> Start:
        """Behind what partitions hold before some offsets: the view is right after the newest of these events."""
        known, newest = archive.positions(), [0]
        for name, offset in offsets.items():
            if name not in known:
                raise RequestError(f"There is no partition {name!r} in {archive.table.path}. {suggestion(name, known)}")
            if offset > known[name].next_offset:
                raise RequestError(
                    f"{archive.table.path} has partition {name!r} before offset {known[name].next_offset}; "
                    f"{offset} is not archived yet"
                )
            before = (pc.field(SOURCE_PARTITION) == name) & (pc.field(SOURCE_OFFSET) < offset)
            pieces = archive.table.reading([archive.source.timestamp], before).batches()
            newest += [pc.max(rows[0].cast(pa.int64())).as_py() + 1 for rows in pieces if len(rows)]
        return Start(max(newest))

    def first_us(self, view: WindowedView) -> int | None:
        """The first instant that the view's windows can need from the start on; `None`: all."""
        windows = [output.window for output in Layout.of(view).outputs]
        if self.instant_us is None or any(window.length_us is None for window in windows):
            return None
        return min(floor_us(self.instant_us - (window.length_us or 0), window.hop_us) for window in windows)


class ArchiveLog:
    """The archive as a log: what it holds now, and what it gets meanwhile, until nothing more is there."""

    def __init__(self, archive: Archive, stretches: Stretches, patience: Patience) -> None:
        self._archive, self._patience = archive, patience
        self._next = {name: end for name, (_, end) in stretches.items()}
        self._now = Archived(archive, stretches, patience)
        self.ended = False
        """Whether the last poll found all of it read."""

    @property
    def source(self) -> EventSource:
        """The source that it is of."""
        return self._archive.source

    @property
    def unfinished(self) -> Sequence[str]:
        """Events are whole: none."""
        return ()

    def ends(self) -> Sequence[End]:
        """It says nothing of where the log ends."""
        return ()

    def poll(self) -> Sequence[Chunk]:
        """The next chunks; none once all is read that is archived, or while the archive is away."""
        chunks = self._now.poll()
        if not chunks and not self._now.away:
            self._now = Archived(self._archive, self._more(), self._patience)
            chunks = self._now.poll()
        self.ended = not chunks and not self._now.away
        return chunks

    def _more(self) -> Stretches:
        ends = {name: one.next_offset for name, one in self._patience(self._archive.positions).items()}
        more = {name: (first, end) for name, end in ends.items() if (first := self._next.get(name, 0)) < end}
        self._next |= ends
        return more

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True)
class _Logs:
    """What the one reader of a filling reads."""

    log: LogReader
    until_end: bool = True

    def open(self, reader: int, readers: int) -> list[LogReader]:
        return [self.log]


def fill(task: Task, view: WindowedView, start: Start, online: redis.Redis, stop: Stop, summary: Summary) -> int:
    """Fill a view until it has all that is archived, or until it is stopped; the instant from which on it is right then
    (NO_CUT: from the beginning, or from its published cut). An error is in `stop`.

    What was interrupted is continued. Raises `ConfigError` where the stream has the view already, or where it was
    filled from a later start on.
    """
    namespace, patience = task.settings.namespace, task.patience
    tokens, streams = patience(lambda: takeover.beside(online, namespace, view.source.name))
    if view.key in streams:
        raise ConfigError(
            f"The stream has view {view.key!r}: it took it when it was started last, and fills it by itself. "
            "Nothing is to be replayed beside it"
        )
    lane = Lane(
        online, namespace, [view], range(SLOTS), clock_us=task.now_us, settled_us=settling_of(task), beside=tokens
    )
    offline = Offline(OfflineStore(task.settings), published_cut(online, namespace, [view]), task.now_us)

    def look() -> tuple[Found, int]:
        found = patience(lambda: read_positions(online, namespace, offline, task.sources, [view])).found
        filled_us = max((slot.since_us for slot in found.progress[view.key] if slot.partitions), default=NO_CUT)
        _check_start(view, start, filled_us, found.cuts[view.key])
        return found, filled_us

    look()  # what is refused ends nobody who fills the view now
    patience(lane.take_over)
    found, filled_us = look()
    first_us = _first_us(view, start, found) if found.cuts[view.key] == NO_CUT else None
    since_us = NO_CUT if first_us is None or start.instant_us is None else start.instant_us
    drive(_parts(task, view, offline, _started(found, view, first_us), since_us, lane, stop, summary))
    return max(filled_us, since_us)


def _first_us(view: WindowedView, start: Start, found: Found) -> int | None:
    """As `Start.first_us`; of sessions not later than events may still come, which may join two that are over."""
    first_us = start.first_us(view)
    positions = [one for (source, _), one in found.archived.items() if source == view.source.name]
    watermark_us = least_watermark_us(positions)
    if first_us is None or view.sessions is None or watermark_us is None:
        return first_us
    return min(first_us, watermark_us - view.source.lateness_us)


def _check_start(view: WindowedView, start: Start, filled_us: int, cut_us: int) -> None:
    """Raise `ConfigError` where the view is to be right from an instant on before that from which it was filled."""
    if cut_us < filled_us and (start.instant_us is None or start.instant_us < filled_us):
        since = instant_text(filled_us)
        raise ConfigError(
            f"View {view.key!r} was filled from {since} on, and what only earlier instants need is not read any more. "
            f"Repeat it with --from-instant {since}, or declare version {view.version + 1} and fill that"
        )


def _parts(
    task: Task,
    view: WindowedView,
    offline: Offline,
    found: Found,
    since_us: int,
    lane: Lane,
    stop: Stop,
    summary: Summary,
) -> Parts:
    patience = task.patience
    stretches = _stretches(Positions(task.sources, [view], offline, found), view.source)
    patience(lambda: lane.aim(view.key, {name: end for name, (_, end) in stretches.items()}, since_us))
    log = ArchiveLog(offline.store.archive(view.source), stretches, patience)
    backlog = Backlog(board=Board(1))
    summary.metrics.watch(backlog)
    return Parts(
        task,
        0,
        found,
        stop,
        summary,
        backlog,
        _Logs(log),  # type: ignore[arg-type]  # what a reader asks of its logs
        Decoder({}, _nothing, task.now_us),
        Splitter([view], 1, backlog),
        DeltaWriter(offline, patience, stop, backlog, summary),
        {0: lane},
        {view.key: view},
    )


def _started(found: Found, view: WindowedView, first_us: int | None) -> Found:
    """What was found, with the start in place of the cut where there is one."""
    return found if first_us is None else replace(found, cuts={view.key: first_us})


def _stretches(positions: Positions, source: EventSource) -> Stretches:
    """What the view lacks of each partition; at least its last offset, so that each slot says how far it is."""
    archived = {name: one.next_offset for (of, name), one in positions.found.archived.items() if of == source.name}
    return {name: (min(positions.resume(source, name), end - 1), end) for name, end in archived.items() if end}


def _nothing(source: EventSource, partition: str) -> Remembered:
    return Remembered()
