"""What a flow is made of, from the moment at which it takes over.

    take over the slots and the tables ─▶ read the positions of all stores ─▶ readers start at the least of them

Lives here: making the parts, in the order that makes it exactly once. `run.py` has Bytewax drive them; a simulation
drives them step by step. Invariant: no position is read before all is taken, because until then a predecessor may move
it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

import redis

from forebay.backfill.gaps import mark_gaps
from forebay.backfill.losses import Loss, LostPublication, lost_publication
from forebay.backfill.publication import mark_repairs, publish_view
from forebay.core.codec import NO_CUT
from forebay.core.threads import on_threads
from forebay.errors import FencedError
from forebay.ingest.rows import Codec
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource, KafkaTopic
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online import takeover
from forebay.online.connection import connect_online
from forebay.online.lane import Lane, wall_clock_us
from forebay.online.refusals import Refusals
from forebay.online.slot_state import read_cut
from forebay.settings import Settings
from streaming.backlog import Backlog
from streaming.board import Board
from streaming.decode import Decoder
from streaming.delta_writer import DeltaWriter
from streaming.heartbeat import interval_us
from streaming.kafka_log import Topics
from streaming.lane_writer import LaneWriter
from streaming.offline import Offline
from streaming.positions import TABLES_AT_ONCE, Found, Positions, published_cut, read_positions
from streaming.retry import Patience
from streaming.routing import lanes_of, reader_of, slots_of_worker
from streaming.settling import Settling
from streaming.sources import Logs, Reader
from streaming.split import Splitter
from streaming.stop import Stop
from streaming.summary import Summary
from streaming.trimming import Trimming


@dataclass(frozen=True)
class Task:
    """What a flow is to do: sources of some definitions, until when, with how many workers and how patiently."""

    settings: Settings
    definitions: Definitions
    sources: Sequence[EventSource]
    workers: int = 1
    until_end: bool = False
    patience: Patience = field(default_factory=Patience)
    accepted: Collection[str] = ()
    """Sources of which events may be lost."""
    now_us: Callable[[], int] = wall_clock_us
    linger_s: float = 0.0
    """How long a reader that has read something waits for more of it."""

    @property
    def views(self) -> list[WindowedView]:
        """The views that it computes."""
        return [view for source in self.sources for view in self.definitions.windowed_views(source)]


@dataclass(frozen=True)
class Taken:
    """What a flow has that took over: its number, the token of each worker's lane, and what its stores said then."""

    number: int
    tokens: Sequence[bytes]
    fences: Mapping[str, bytes]
    """Those tokens by the keys that they are in."""
    found: Found
    losses: Sequence[Loss]


@dataclass(frozen=True)
class Parts:
    """A flow that has taken over, or one worker of it: readers and writers by the number of their worker, and what lies
    between them.
    """

    task: Task
    number: int
    """Of the take-over: greater than that of any flow before."""
    found: Found
    """What the stores said then."""
    stop: Stop
    summary: Summary
    backlog: Backlog
    logs: Logs
    decode: Decoder
    split: Splitter
    delta: DeltaWriter
    lanes: Mapping[int, Lane]
    views: Mapping[str, WindowedView]

    @property
    def board(self) -> Board:
        """What all workers see."""
        return self.backlog.board

    def reader(self, n: int) -> Reader:
        """The reader of a worker, at the positions that were found; it says each time that it was at work."""
        task = self.task
        return Reader(
            self.logs,
            n,
            task.workers,
            self.stop,
            self.backlog,
            ended=self.summary.ended,
            beat_interval_us=interval_us(task.views),
            now_us=task.now_us,
            polled=self.board.polled,
            linger_s=task.linger_s,
        )

    def writer(self, n: int) -> LaneWriter:
        """The writer of a worker, which holds its slots."""
        return LaneWriter(
            self.lanes[n],
            lanes_of(n, self.task.workers),
            self.views,
            self.task.patience,
            streamed=self.delta.streamed,
            committed=self.summary.committed,
            done=partial(self.backlog.done, "online"),
            metrics=self.summary.metrics,
            now_us=self.task.now_us,
        )


def take_over(task: Task, online: redis.Redis, stop: Stop, summary: Summary) -> Parts:
    """Become the writer of the task's slots and tables; all workers of the flow, in this process.

    Raises `FencedError` where another flow of these sources begins meanwhile.
    """
    offline, lanes = _offline(task, online), _lanes(task, online)
    taken = _take(task, online, offline, lanes)
    summary.losses = list(taken.losses)
    backlog = Backlog(board=Board(task.workers), views=len(task.views))
    summary.metrics.watch(backlog)
    return _parts(task, taken, online, offline, dict(enumerate(lanes)), stop, summary, backlog)


def take_for_processes(task: Task, online: redis.Redis) -> Taken:
    """Become the writer of the task's slots and tables, for workers that are processes of their own."""
    lanes = _lanes(task, online)
    taken = _take(task, online, _offline(task, online), lanes)
    for lane in lanes:
        lane.close()
    return taken


def worker_parts(
    task: Task, taken: Taken, worker: int, online: redis.Redis, stop: Stop, summary: Summary, board: Board
) -> Parts:
    """One worker of a flow that has taken over. Raises `FencedError` where another has since."""
    offline, lanes = _offline(task, online), dict[int, Lane]()
    offline.share(task.sources, taken.number, worker)
    offline.stand(task.views, taken.found.archived, taken.found.streamed)
    if task.views:
        lanes[worker] = _lane(task, online, worker, taken.tokens[worker])
        task.patience(lanes[worker].begin)
    backlog = Backlog(board=board, worker=worker, views=len(task.views))
    return _parts(task, taken, online, offline, lanes, stop, summary, backlog)


def _take(task: Task, online: redis.Redis, offline: Offline, lanes: Sequence[Lane]) -> Taken:
    """Find where everything is to be resumed, once all is taken; lanes that failed to begin are closed."""
    with ExitStack() as failed:
        for lane in lanes:
            failed.callback(lane.close)
        taken = _taken(task, online, offline, lanes)
        failed.pop_all()
    return taken


def _taken(task: Task, online: redis.Redis, offline: Offline, lanes: Sequence[Lane]) -> Taken:
    settings, views, patience = task.settings, task.views, task.patience
    seen = patience(lambda: offline.flow(task.sources))
    patience.check()  # the last instant at which whoever streams now is left alone
    number = patience(lambda: takeover.take_over(online, settings.namespace, lanes, seen))
    patience(lambda: offline.take(task.sources, number))

    def read() -> Positions:
        return read_positions(online, settings.namespace, offline, task.sources, views)

    positions = patience(read)
    losses = [*positions.losses, *patience(lambda: _lost_publications(task, online, offline))]
    if patience(lambda: _give_back(task, online, offline, losses)):
        positions = patience(read)
    lost = [view for view in views if view.key in {loss.view for loss in losses}]
    patience(lambda: mark_gaps(online, settings.namespace, offline.store, lost))
    patience(lambda: _mark_repairs(task, online, offline))
    for lane in lanes:
        _mark(task, positions, lane)
    return Taken(number, [lane.token for lane in lanes], fences_of(lanes), positions.found, losses)


def fences_of(lanes: Iterable[Lane]) -> dict[str, bytes]:
    """What makes some lanes the writers of their slots, by the keys that it is in."""
    return {name: token for lane in lanes for name, token in lane.tokens.items()}


def _parts(
    task: Task,
    taken: Taken,
    online: redis.Redis,
    offline: Offline,
    lanes: Mapping[int, Lane],
    stop: Stop,
    summary: Summary,
    backlog: Backlog,
) -> Parts:
    settings, patience = task.settings, task.patience
    positions = Positions(task.sources, task.views, offline, taken.found)
    logs = Logs(
        task.sources,
        settings.home,
        online=lambda: connect_online(settings),
        topics=Topics(settings.kafka, patience, task.accepted, offline.begin),
        archived=positions.replay,
        starts=positions.starts,
        known=positions.known,
        applied=positions.applied,
        revived=offline.store.revived(),
        until_end=task.until_end,
        patience=patience,
        accepted=task.accepted,
    )
    limits = {source.name: task.definitions.limits(source) for source in task.sources}

    def mine(source: str, partition: str) -> bool:
        return not lanes or reader_of(source, partition, task.workers) in lanes

    return Parts(
        task,
        taken.number,
        taken.found,
        stop,
        summary,
        backlog,
        logs,
        Decoder(
            limits,
            patience(lambda: positions.remembered(mine)),
            task.now_us,
            codecs_of_task(replace(task, patience=replace(patience, enough=lambda: stop.requested))),
            lambda *where: patience(lambda: offline.recalled(*where)),
        ),
        Splitter(task.views, task.workers, backlog),
        DeltaWriter(
            offline,
            patience,
            stop,
            backlog,
            summary,
            Trimming(task.sources, lambda: connect_online(settings)),
        ),
        lanes,
        {view.key: view for view in task.views},
    )


def _offline(task: Task, online: redis.Redis) -> Offline:
    settings, views = task.settings, task.views
    offline = Offline(OfflineStore(settings), published_cut(online, settings.namespace, views), task.now_us)
    offline.refusals = Refusals(online, settings.namespace) if views else None
    return offline


def _mark(task: Task, positions: Positions, lane: Lane) -> None:
    """Let slots that are new, or were being filled, answer once they have what is archived."""
    for view in task.views:
        if any(not slot.partitions or slot.targets for slot in positions.found.progress[view.key]):
            lacking = task.patience(partial(positions.lacking, view))
            task.patience(partial(lane.mark, view.key, lacking))


def _lost_publications(task: Task, online: redis.Redis, offline: Offline) -> list[LostPublication]:
    """The views whose last publication the online store lost, of all slots or of some (a node of a cluster that came
    back empty).
    """
    where = online, task.settings.namespace, offline.store
    found = on_threads(lambda view: lost_publication(*where, view), task.views, TABLES_AT_ONCE)
    return [loss for loss in found if loss is not None]


def _give_back(task: Task, online: redis.Redis, offline: Offline, losses: Sequence[Loss]) -> bool:
    """Publish again what was published of views of which the online store lost everything, or a publication; whether
    anything was. What another process is publishing now it publishes whole.
    """
    lost = {loss.view for loss in losses if isinstance(loss, LostPublication) or loss.everything}
    cuts_us = list[int | None]()
    for view in [view for view in task.views if view.key in lost]:
        with contextlib.suppress(FencedError):
            report = publish_view(
                online,
                task.settings.namespace,
                offline.store,
                view,
                rate=task.settings.publish_rate,
                check=task.patience.check,
            )
            cuts_us.append(report.cut_us)
    return any(cut_us is not None for cut_us in cuts_us)


def _mark_repairs(task: Task, online: redis.Redis, offline: Offline) -> None:
    """Mark the days before a published cut that have got events since they were folded, as a publication does.

    A predecessor may have died when the archive had its events and it had not looked again whether a cut had passed
    them (`streaming/offline.py`); what is archived nobody looks at twice.
    """
    for view in task.views:
        cut_us = read_cut(online, task.settings.namespace, view)
        if cut_us != NO_CUT:
            mark_repairs(offline.store, view, cut_us)


def codecs_of_task(task: Task) -> Mapping[str, Codec]:
    """What makes rows of messages that are not JSON."""
    streams = [source.stream for source in task.sources]
    if all(not isinstance(stream, KafkaTopic) or stream.format == "json" for stream in streams):
        return {}
    from streaming.kafka_codec import codecs_of  # half a second of imports that few flows need

    return codecs_of(task.sources, task.settings.registry, task.patience)


def _lanes(task: Task, online: redis.Redis) -> list[Lane]:
    """The lanes of each worker; none where there is nothing to write online."""
    return [_lane(task, online, n) for n in range(task.workers if task.views else 0)]


def _lane(task: Task, online: redis.Redis, n: int, token: bytes | None = None) -> Lane:
    mine = slots_of_worker(n, task.workers)
    settling = settling_of(task)
    return Lane(
        online, task.settings.namespace, task.views, mine, clock_us=task.now_us, token=token, settled_us=settling
    )


def settling_of(task: Task) -> Settling:
    """Up to when the sessions of a lane are settled; it reads the archive on its own."""
    store = OfflineStore(task.settings)
    return Settling(lambda source: store.archive(source).positions())
