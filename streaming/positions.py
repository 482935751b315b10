"""Where a flow resumes: at the least of what its stores say.

Lives here: reading how far each partition is in the archive, in `streamed/` and in every slot of every view, and
taking the minimum. What lies before the archive's position is read from there, the rest from the log. Each store drops
what it has, so starting too early costs time only. A (view, slot) or table
without a position starts where the view starts (docs/stream.md, "A new view"): at the first archived event that its
published cut does not cover, or at the beginning of the log while nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import redis

from forebay.backfill.losses import LostEvents, lost_events
from forebay.core.codec import NO_CUT
from forebay.core.identity import LANES, SLOTS
from forebay.core.threads import on_threads
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import REVIVED, PartitionPosition
from forebay.offline.tiles_table import app_id
from forebay.online.progress import Progress
from forebay.online.slot_state import read_cut, read_cuts, read_progress
from streaming.archive_log import Archived
from streaming.log import LogStart, LogStarts
from streaming.offline import Offline
from streaming.remembered import Remembered, Settled
from streaming.retry import Patience

TABLES_AT_ONCE = 8
"""Tables that are asked together: on S3 each takes half a second of waiting."""


@dataclass(frozen=True)
class Found:
    """What the stores said when the flow began, after it had fenced its predecessors: all of its processes go by it."""

    archived: Mapping[tuple[str, str], PartitionPosition]
    streamed: Mapping[str, Mapping[str, int]]
    progress: Mapping[str, Sequence[Progress]]
    cuts: Mapping[str, int]
    refused: Mapping[str, Mapping[str, Mapping[int, str]]]
    """By source and partition, the offsets behind the archive that were found to be dated too far ahead."""


@dataclass(frozen=True)
class Positions:
    """Where everything is resumed, by what was found."""

    sources: Sequence[EventSource]
    views: Sequence[WindowedView]
    offline: Offline
    found: Found
    _firsts: dict[tuple[str, int], Mapping[str, int]] = field(default_factory=dict)

    def resume(self, source: EventSource, partition: str) -> int:
        """The first offset that some store lacks; from the archive's position on, the log is read."""
        offsets = [self.archived_to(source, partition)]
        for view in self.views:
            if view.source.name == source.name:
                offsets += self._of_view(view, partition)
        return min(offsets)

    def archived_to(self, source: EventSource, partition: str) -> int:
        """How far a partition is in the archive: where its log is read on."""
        return self.found.archived.get((source.name, partition), PartitionPosition()).next_offset

    def starts(self, source: EventSource) -> LogStarts:
        """Where the partitions of its log are read on."""
        applied = self.applied(source)

        def start(partition: str) -> LogStart:
            archived = self.found.archived.get((source.name, partition), PartitionPosition())
            return LogStart(archived.next_offset, applied.get(partition, 0), archived.bookmark)

        return start

    def known(self, source: EventSource) -> dict[str, int]:
        """The partitions that any store knows of a source's log, and how far each is in the archive."""
        names = {name for of, name in self.found.archived if of == source.name} | self.applied(source).keys()
        return {name: self.archived_to(source, name) for name in names - {REVIVED}}

    def applied(self, source: EventSource) -> dict[str, int]:
        """How far any slot of any view has applied each partition of a source."""
        ends: dict[str, int] = {}
        for slot in self._slots(source):
            for name, applied in slot.partitions.items():
                ends[name] = max(ends.get(name, 0), applied.next_offset)
        return ends

    def replay(self, source: EventSource, mine: Callable[[str], bool], patience: Patience) -> Archived:
        """What some store lacks and the archive holds, of some partitions of a source."""
        stretches = {
            name: (first, position.next_offset)
            for (of, name), position in self.found.archived.items()
            if of == source.name and mine(name) and (first := self.resume(source, name)) < position.next_offset
        }
        return self.offline.replay(source, stretches, patience)

    def remembered(
        self, mine: Callable[[str, str], bool] = lambda source, partition: True
    ) -> Callable[[EventSource, str], Remembered]:
        """Asks what the stores remember of a partition, once; that of some (source, partition) is read now."""
        known: dict[tuple[str, str], Remembered] = {}
        for source in self.sources:
            name = source.name
            archived = {part: one for (of, part), one in self.found.archived.items() if of == name and mine(name, part)}
            found = self.offline.remembered(source, archived, self._settled(source))
            known |= {(source.name, name): one for name, one in found.items()}
        return lambda source, partition: known.pop((source.name, partition), Remembered())

    @property
    def losses(self) -> list[LostEvents]:
        """The events that the online store had acknowledged and has lost."""
        return [
            loss
            for view in self.views
            for loss in lost_events(view, self.found.streamed[view.key], self.found.progress[view.key])
        ]

    def lacking(self, view: WindowedView) -> dict[str, int]:
        """How far each partition is archived of which a view that starts now has to be given something."""
        ends = {name: one.next_offset for (of, name), one in self.found.archived.items() if of == view.source.name}
        return {name: end for name, end in ends.items() if min(self._of_view(view, name)) < end}

    def _settled(self, source: EventSource) -> dict[str, Settled]:
        """What the online store or the dead letters have settled of each partition before the archive."""
        ends, refused = self.applied(source), self.found.refused[source.name]
        return {name: Settled(ends.get(name, 0), refused.get(name, {})) for name in ends.keys() | refused.keys()}

    def _slots(self, source: EventSource) -> Iterator[Progress]:
        for view in self.views:
            if view.source.name == source.name:
                yield from self.found.progress[view.key]

    def _of_view(self, view: WindowedView, partition: str) -> list[int]:
        slots = [slot.partitions.get(partition) for slot in self.found.progress[view.key]]
        lanes = [self.found.streamed[view.key].get(app_id(lane, partition)) for lane in range(LANES)]
        known = [slot.next_offset for slot in slots if slot is not None] + [lane for lane in lanes if lane is not None]
        return known if len(known) == SLOTS + LANES else [*known, self._start(view, partition)]

    def _start(self, view: WindowedView, partition: str) -> int:
        """Where a view without a position starts."""
        cut_us = self.found.cuts[view.key]
        if cut_us == NO_CUT:
            return 0
        return self._first_after(view, cut_us).get(partition, self.archived_to(view.source, partition))

    def _first_after(self, view: WindowedView, cut_us: int) -> Mapping[str, int]:
        """The first offset of each partition that is not covered by a cut; of a view of sessions, of the events that
        sessions are made of which are over after it.
        """
        if (view.key, cut_us) not in self._firsts:
            since_us = cut_us if view.sessions is None else self.offline.sessions_since_us(view, cut_us)
            self._firsts[view.key, cut_us] = self.offline.first_offsets(view.source, since_us)
        return self._firsts[view.key, cut_us]


def published_cut(online: redis.Redis, namespace: str, views: Sequence[WindowedView]) -> Callable[[EventSource], int]:
    """Asks for the newest published cut of the views of a source."""

    def cut_us(source: EventSource) -> int:
        mine = [view for view in views if view.source.name == source.name]
        return max((read_cut(online, namespace, view) for view in mine), default=NO_CUT)

    return cut_us


def read_positions(
    online: redis.Redis, namespace: str, offline: Offline, sources: Sequence[EventSource], views: Sequence[WindowedView]
) -> Positions:
    """Ask the stores. Call it after the lanes took over: nobody else moves a slot's progress from then on."""
    archives = on_threads(offline.archived, sources, TABLES_AT_ONCE)
    tables = on_threads(offline.streamed, views, TABLES_AT_ONCE)
    archived = {
        (source.name, name): one for source, found in zip(sources, archives, strict=True) for name, one in found.items()
    }
    streamed = dict(zip((view.key for view in views), tables, strict=True))
    progress, cuts = {}, {}
    for view in views:
        progress[view.key] = read_progress(online, namespace, view)
        cuts[view.key] = min(cut.cut_us for cut in read_cuts(online, namespace, view))
    refused = {source.name: offline.refused(source) for source in sources}
    return Positions(sources, views, offline, Found(archived, streamed, progress, cuts, refused))
