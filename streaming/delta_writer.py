"""The background writer of the offline store: one thread a process, so that a commit of tens of milliseconds delays
no event online.

Lives here: collecting what the flow hands over and appending it once a second, or as soon as it is much. Order of one
flush: dead letters and repair marks, then the archive (a crash in between marks a date twice, never not at all), then
partials of what is archived (by other workers, of their partitions), then heartbeats of partitions of which nothing is
left to write. Whoever waits for what is archived (`trimming.py`) is told how far it is.
Invariants: each append is atomic with the offsets it covers, so repeating any of it is harmless; the first error
stops the flow; `close` returns when all is durable.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from forebay.instants import SECOND_US
from streaming.backlog import EVENTS_MAX, Backlog
from streaming.decode import Decoded
from streaming.heartbeat import Heartbeat
from streaming.offline import Offline
from streaming.partials import Partials
from streaming.retry import Patience
from streaming.stop import Stop
from streaming.summary import Summary
from streaming.turns import END_WAIT_S

FLUSH_INTERVAL_S = 1.0
"""A commit costs tens of milliseconds and leaves a file: one a second is fresh enough for history."""
FLUSH_EVENTS = EVENTS_MAX // 2
"""Nor does it wait longer for more than half of what a worker may hold: the other half comes while it writes."""
IDLE_INTERVAL_S = 30.0
"""How often the position of a view without events is moved: a restart re-reads at most about that much."""
OTHERS_WAIT_S = 0.1
"""How often a worker that ends looks whether the others have archived what it holds of theirs."""
BEAT_INTERVAL_US = 300 * SECOND_US
"""How often the archive is told that partitions are idle: a commit each, for a cut that moves once a day."""


@dataclass
class _Pending:
    decoded: list[Decoded] = field(default_factory=list)
    partials: dict[str, list[Partials]] = field(default_factory=lambda: defaultdict(list))
    beats: dict[tuple[str, int], Heartbeat] = field(default_factory=dict)
    """The newest of each source and reader."""
    weight: int = 0
    """Of what is decoded, as the backlog counts it."""


class DeltaWriter:
    """Takes events and partials from all threads of a flow; appends them from its own."""

    def __init__(
        self,
        offline: Offline,
        patience: Patience,
        stop: Stop,
        backlog: Backlog,
        summary: Summary,
        archived: Callable[[str, Mapping[str, int]], None] = lambda source, ends: None,
    ) -> None:
        self._offline, self._patience, self._archived = offline, patience, archived
        self._stop, self._backlog, self._summary = stop, backlog, summary
        self._timed = summary.metrics.timed
        self._pending = _Pending()
        self._wake = threading.Condition()
        self._closing = False
        self._flushed_s: dict[str, float] = {}
        self._beaten_us: dict[tuple[str, int], int] = {}
        self._thread = threading.Thread(target=self._run, name="delta-writer", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def archive(self, item: Decoded | Heartbeat) -> None:
        """Take the events and dead letters of a chunk, or what a reader said when there were none."""
        if isinstance(item, Heartbeat):
            with self._wake:
                self._pending.beats[item.source.name, item.reader] = item
            return
        if item.archived:
            return
        self._backlog.add("offline", item.weight)
        with self._wake:
            self._pending.decoded.append(item)
            self._pending.weight += item.weight
            if self._pending.weight >= FLUSH_EVENTS:
                self._wake.notify()

    def streamed(self, partials: Partials) -> None:
        """Take the partials of a view."""
        self._backlog.add("streamed", len(partials.events))
        with self._wake:
            self._pending.partials[partials.view.key].append(partials)

    def close(self) -> None:
        """Write what is left; returns when it is durable, or soon after the flow has failed: a store that hangs holds
        up nobody who has nothing to write any more.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        while self._thread.is_alive() and not self._fails:
            self._thread.join(FLUSH_INTERVAL_S)
        self._thread.join(END_WAIT_S)

    def _run(self) -> None:
        with self._stop.failing(BaseException):
            while not (self._closing or self._stop.failed):
                with self._wake:
                    self._wake.wait_for(self._is_full, FLUSH_INTERVAL_S)
                if not self._stop.failed:
                    self.flush()
            if not self._stop.failed:
                self.flush()

    def _is_full(self) -> bool:
        return self._closing or self._pending.weight >= FLUSH_EVENTS

    def flush(self) -> None:
        """Write what there is; after it all that was taken before is durable."""
        with self._wake:
            pending, self._pending = self._pending, _Pending()
            closing = self._closing
        self._archive(pending.decoded)
        for key, partials in self._archived_already(pending.partials, closing):
            if closing or any(len(p.events) for p in partials) or self._is_due(key):
                self._patience(self._timed("streamed", partial(self._offline.append_partials, partials)))
                self._flushed_s[key] = time.monotonic()
                self._backlog.done("streamed", sum(len(p.events) for p in partials))
            else:
                self._keep(key, partials)
        for beat in pending.beats.values():
            self._beat(beat, closing)

    def _archived_already(
        self, pending: Mapping[str, list[Partials]], closing: bool
    ) -> Iterator[tuple[str, list[Partials]]]:
        """The partials of which the archive has the events; others wait for the worker that archives them.

        So what `streamed/` holds was judged by the archive, whatever the online store forgets (docs/adr/0099).
        """
        for key, partials in pending.items():
            early = self._early(partials)
            while early and closing and not self._fails:
                time.sleep(OTHERS_WAIT_S)
                early = self._early(partials)
            if self._fails:
                return
            if early:
                with self._wake:
                    self._pending.partials[key] = [*early, *self._pending.partials[key]]
            waiting = set(map(id, early))
            if len(waiting) < len(partials):
                yield key, [one for one in partials if id(one) not in waiting]

    @property
    def _fails(self) -> bool:
        """Whether this worker or another has failed: what is not written is read again by the next flow."""
        return self._stop.failed or self._backlog.board.failing

    def _early(self, partials: Sequence[Partials]) -> list[Partials]:
        """Those of some partials of a view, in their order, that are not archived yet."""
        return self._patience(partial(self._offline.not_archived, partials))

    def _beat(self, beat: Heartbeat, closing: bool) -> None:
        where = (beat.source.name, beat.reader)
        due = closing or beat.seen_us - self._beaten_us.get(where, 0) >= BEAT_INTERVAL_US
        if due and self._patience(partial(self._offline.beat, beat)):
            self._beaten_us[where] = beat.seen_us

    def _keep(self, key: str, partials: list[Partials]) -> None:
        """Nothing but positions: put them back, the newest of each partition is enough."""
        newest = {(p.partition, tuple(p.lanes)): p for p in partials}
        with self._wake:
            self._pending.partials[key] = [*newest.values(), *self._pending.partials[key]]

    def _is_due(self, key: str) -> bool:
        since = self._flushed_s.setdefault(key, time.monotonic())
        return time.monotonic() - since > IDLE_INTERVAL_S

    def _archive(self, decoded: Sequence[Decoded]) -> None:
        by_source: dict[str, list[Decoded]] = defaultdict(list)
        for one in decoded:
            by_source[one.batch.source.name].append(one)
        for source, chunks in by_source.items():
            added = self._patience(self._timed("archive", partial(self._offline.append_events, chunks)))
            self._summary.archived(source, added.events, added.late, added.duplicates, added.dead, added.marked)
            self._archived(source, {one.batch.partition: one.batch.next_offset for one in chunks})
        self._backlog.done("offline", sum(one.weight for one in decoded))
