"""How the stream is: read from the stores, the logs and the sign of the flow, whether one runs or not.

Lives here: putting together what each of them says, as plain values. Of a partition:

    quiet      a flow reads it, and nothing waits in its log
    behind     a flow reads it, and something waits
    stopped    nobody reads it: the last flow ended in order
    dead       nobody reads it: the last flow failed, fell silent, or there was none

Invariant: it writes nothing, and takes nothing from a running flow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from forebay.backfill.gaps import gap
from forebay.backfill.losses import lost_events, lost_publication
from forebay.core.codec import NO_CUT
from forebay.deploy.outdated import is_outdated
from forebay.deploy.unstreamed import SILENT_AFTER_US, is_unknown
from forebay.errors import ForebayError
from forebay.instants import SECOND_US, day_us, instant_text
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.offline.archive import REVIVED, PartitionPosition
from forebay.offline.tables import OfflineStore
from forebay.online.progress import Progress
from forebay.online.seam import is_overdue
from forebay.online.signs import Sign, Signs
from forebay.online.slot_state import read_cuts, read_progress
from streaming.log_ends import LogEnd, LogEnds

QUIET, BEHIND, STOPPED, DEAD = "quiet", "behind", "stopped", "dead"


@dataclass(frozen=True)
class PartitionStatus:
    """One partition of a source: offsets, what waits (events, and seconds that the newest applied event is behind the
    wall clock unless nothing waits; `None`: unknown), its watermark, and what it is.
    """

    partition: str
    log_end: int | None
    archived: int
    applied: int | None
    lag_events: int | None
    lag_s: float | None
    watermark_us: int | None
    state: str


@dataclass(frozen=True)
class ViewStatus:
    """One view: the newest commit of its slots, its published cut, the watermark of the slowest slot, the dates marked
    for repair that its batch tiles lack events of, what the online store has lost of it, whether it is being filled or
    waits for that (some slot answers `UNAVAILABLE`), whether its cut is overdue (beyond its `retention`: its values are
    `STALE`), whether the running flow streams it (`None`: none runs), and what is archived of it and not online.
    """

    view: str
    commit: int
    cut_us: int | None
    watermark_us: int | None
    repair: Sequence[str]
    losses: Sequence[str]
    filling: bool = False
    overdue: bool = False
    streamed: bool | None = None
    missing: str = ""


@dataclass(frozen=True)
class SourceStatus:
    """One source: its flow by process, its partitions and views, its dead letters by reason, why its log could not be
    asked, and whether the running flow judges events by other definitions than are deployed.
    """

    source: str
    state: str
    flow: Sequence[Sign]
    partitions: Sequence[PartitionStatus]
    views: Sequence[ViewStatus]
    dead_letters: Mapping[str, int]
    log_error: str = ""
    outdated: bool = False


@dataclass
class Status:
    """Looks at the stream of a deployment; keep it to look again."""

    online: redis.Redis
    namespace: str
    offline: OfflineStore
    log_ends: LogEnds
    _archives: dict[str, Any] = field(default_factory=dict)

    def __call__(self, definitions: Definitions, sources: Sequence[EventSource], now_us: int) -> list[SourceStatus]:
        """How the given sources are. Raises `StoreUnavailableError` where a store cannot be asked."""
        return [self._source(source, definitions, now_us) for source in sources]

    def partitions(
        self, source: EventSource, views: Sequence[WindowedView], now_us: int, signs: Sequence[Sign] = ()
    ) -> tuple[list[PartitionStatus], str]:
        """The partitions of a source, and why its log could not be asked ("": it could)."""
        progress = [one for view in views for one in self._progress(view)]
        archived = self._archive(source).positions()
        applied = _applied(progress) if views else {name: one.next_offset for name, one in archived.items()}
        ends, error = self._ends(source, applied, archived)
        read_by, names = state_of(signs, now_us), sorted(archived.keys() | applied.keys() | ends.keys())
        without = LogEnd(None, None if error else 0)  # the log has nothing of it any more, or could not be asked
        return [
            _partition(name, archived.get(name), applied.get(name), ends.get(name, without), progress, now_us, read_by)
            for name in names
        ], error

    def _source(self, source: EventSource, definitions: Definitions, now_us: int) -> SourceStatus:
        views = definitions.windowed_views(source)
        signs = Signs(self.online, self.namespace).read(source.name)
        read = [view for view in views if not is_unknown(view, signs, now_us)]  # the others hold no flow up
        partitions, error = self.partitions(source, read, now_us, signs)
        letters, settled = self.offline.dead_letters(), self.offline.revived().settled(source.name)
        dead = Counter(reason for place, reason in letters.reasons(source.name).items() if place not in settled)
        marked = set(self.offline.repairs().scan(source.name)["day"].to_pylist())
        return SourceStatus(
            source.name,
            _worst(state_of(signs, now_us), partitions),
            signs,
            partitions,
            [self._view(view, marked, signs, now_us) for view in views],
            dict(sorted(dead.items())),
            error,
            is_outdated(definitions, source, signs, now_us),
        )

    def _view(self, view: WindowedView, marked: set[str], signs: Sequence[Sign], now_us: int) -> ViewStatus:
        streamed = self.offline.streamed(view).positions()  # before the progress that must be ahead of it
        progress = self._progress(view)
        cut_us = min(cut.cut_us for cut in read_cuts(self.online, self.namespace, view))
        watermark_us = min((slot.watermark_us for slot in progress), default=NO_CUT)
        runs = state_of(signs, now_us) == QUIET
        publication = lost_publication(self.online, self.namespace, self.offline, view)
        losses = [*lost_events(view, streamed, progress), *([publication] if publication else [])]
        missing = gap(self.offline, view, cut_us)
        return ViewStatus(
            view.key,
            max((slot.commit for slot in progress), default=0),
            _known(cut_us),
            _known(watermark_us),
            self._to_repair(view, marked, cut_us),
            [str(loss) for loss in losses],
            any(slot.targets for slot in progress),
            is_overdue(view, cut_us, now_us),
            not is_unknown(view, signs, now_us) if runs else None,
            missing.told if missing else "",
        )

    def _to_repair(self, view: WindowedView, marked: set[str], cut_us: int) -> list[str]:
        """The dates whose batch tiles lack what was marked before the cut; sessions lack it on later dates, too."""
        early = {day for day in marked if day_us(day) < cut_us}
        if not early:
            return []
        tiles, archived = self.offline.tiles(view), self._archive(view.source).events_by_date()
        behind = tiles.behind(archived).items()
        lacking = {day for day, since in behind if any(since <= mark <= day for mark in early)}
        return sorted(lacking | early - tiles.folded().keys())

    def _ends(
        self, source: EventSource, applied: Mapping[str, int], archived: Mapping[str, PartitionPosition]
    ) -> tuple[dict[str, LogEnd], str]:
        revived = self.offline.revived().end(source.name)
        own = {REVIVED: LogEnd(revived, revived - applied.get(REVIVED, 0))} if revived else {}
        try:
            return self.log_ends(source, applied, archived) | own, ""
        except ForebayError as error:
            return own, str(error)

    def _progress(self, view: WindowedView) -> list[Progress]:
        return read_progress(self.online, self.namespace, view)

    def _archive(self, source: EventSource) -> Any:
        if source.name not in self._archives:
            self._archives[source.name] = self.offline.archive(source)
        return self._archives[source.name]


def state_of(signs: Sequence[Sign], now_us: int) -> str:
    """What a flow is: QUIET (it runs), STOPPED or DEAD."""
    if not signs or len(signs) < signs[0].processes:
        return DEAD
    if any(sign.why or (sign.ended_us is None and now_us - sign.seen_us > SILENT_AFTER_US) for sign in signs):
        return DEAD
    return STOPPED if all(sign.ended_us is not None for sign in signs) else QUIET


def _applied(progress: Sequence[Progress]) -> dict[str, int]:
    """How far each partition is in every slot of every view."""
    names = {name for slot in progress for name in slot.partitions}
    return {name: min(slot.next_offset(name) for slot in progress) for name in names}


def _partition(
    name: str,
    position: PartitionPosition | None,
    applied: int | None,
    end: LogEnd,
    progress: Sequence[Progress],
    now_us: int,
    read_by: str,
) -> PartitionStatus:
    known = [slot.partitions[name].newest_us if name in slot.partitions else NO_CUT for slot in progress]
    watermark_us = _known(min(known, default=NO_CUT)) if progress else position and position.watermark_us
    lag_s = None
    if end.waiting == 0:
        lag_s = 0.0
    elif watermark_us is not None:
        lag_s = max(0, now_us - watermark_us) / SECOND_US
    state = read_by if read_by != QUIET or not end.waiting else BEHIND
    archived = position.next_offset if position else 0
    return PartitionStatus(name, end.end_offset, archived, applied, end.waiting, lag_s, watermark_us, state)


def _worst(flow: str, partitions: Sequence[PartitionStatus]) -> str:
    """The state of a source: that of its flow, or BEHIND where one of its partitions is."""
    return BEHIND if any(one.state == BEHIND for one in partitions) else flow


def _known(us: int) -> int | None:
    return None if us == NO_CUT else us


def to_dict(status: SourceStatus) -> dict[str, Any]:
    """For JSON: instants as text."""

    def when(us: int | None) -> str | None:
        return None if us is None else instant_text(us)

    return {
        "source": status.source,
        "state": status.state,
        "flow": [
            {
                "number": sign.flow,
                "process": sign.process,
                "began": when(sign.began_us),
                "last_heartbeat": when(sign.seen_us),
                "ended": when(sign.ended_us),
                "why": sign.why,
                "workers": sign.workers,
                "views": list(sign.views),
                "losses": list(sign.losses),
                "metrics_port": sign.metrics_port,
            }
            for sign in status.flow
        ],
        "partitions": [
            {
                "partition": one.partition,
                "state": one.state,
                "log_end": one.log_end,
                "archived": one.archived,
                "applied": one.applied,
                "lag_events": one.lag_events,
                "lag_s": one.lag_s,
                "watermark": when(one.watermark_us),
            }
            for one in status.partitions
        ],
        "views": [
            {
                "view": view.view,
                "commit": view.commit,
                "cut": when(view.cut_us),
                "watermark": when(view.watermark_us),
                "filling": view.filling,
                "overdue": view.overdue,
                "streamed": view.streamed,
                "missing": view.missing,
                "repair": list(view.repair),
                "losses": list(view.losses),
            }
            for view in status.views
        ],
        "dead_letters": dict(status.dead_letters),
        "log_error": status.log_error,
        "outdated": status.outdated,
    }
