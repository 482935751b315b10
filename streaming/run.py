"""Running a flow: from the command line to its exit code.

Lives here: what is streamed (the deployed definitions), in which order a flow begins and ends, and what is said. The
order is what makes it exactly once:

    begin   take over the slots ─▶ read the positions of all stores ─▶ readers start at the least of them
    end     readers stop ─▶ writers commit what was read ─▶ the background writer makes it durable ─▶ say so

Exit codes: 0 all that was read is durable (at the end, or after SIGTERM), 2 the flow failed, in one line on stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from datetime import timedelta

import redis

from forebay.deploy.registry import Registry
from forebay.errors import ConfigError, ForebayError
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import WindowedView
from forebay.settings import Settings
from forebay.stores.connection import connect_online
from forebay.stores.lane import Lane
from forebay.stores.tables import OfflineStore
from streaming.backlog import Backlog
from streaming.decode import Decoder
from streaming.delta_writer import DeltaWriter
from streaming.flow import Steps, build
from streaming.heartbeat import interval_us
from streaming.kafka_log import Topics
from streaming.lane_writer import LaneWriter
from streaming.lateness import INT64_MIN
from streaming.offline import Offline
from streaming.positions import published_cut, read_positions
from streaming.retry import GIVE_UP_AFTER_S, Patience
from streaming.routing import WORKERS_MAX, lanes_of, slots_of_worker
from streaming.sources import Logs, Reader
from streaming.split import Splitter
from streaming.stop import Stop
from streaming.summary import Summary

DONE, FAILED = 0, 2
EPOCH = timedelta(seconds=1)
"""Bytewax asks its parts for snapshots once an epoch; ours are empty."""


def main(arguments: Sequence[str]) -> int:
    """Run a flow as the command line says; the exit code."""
    options = parse(arguments)
    stop, summary = Stop(), Summary()
    with stop.on_signals(), stop.failing():
        run(Settings.from_env(), options, stop, summary)
    error = stop.error
    if error is None:
        print(summary.to_json() if options.json else summary.to_text(), flush=True)
        return DONE
    kind = "" if isinstance(error, ForebayError) else f"{type(error).__name__}: "
    print(f"error: {kind}{' '.join(str(error).split())}", file=sys.stderr, flush=True)
    return FAILED


def run(settings: Settings, options: argparse.Namespace, stop: Stop, summary: Summary) -> None:
    """Run a flow until it ends. An error of the flow is in `stop`; one before it begins is raised."""
    online = connect_online(settings)
    definitions = _deployed(settings, online)
    sources = streamed_sources(definitions, options.source)
    views = [view for source in sources for view in definitions.windowed_views(source)]
    offline = Offline(OfflineStore(settings), published_cut(online, settings.namespace, views))
    patience = Patience(options.give_up_after)
    lanes = _take_over(online, settings.namespace, views, options.workers, patience)
    positions = read_positions(online, settings.namespace, offline, sources, views)
    backlog = Backlog()
    delta = DeltaWriter(offline, patience, stop, backlog, summary)
    topics = Topics(
        settings.kafka, patience, lambda source: offline.first_offsets(source, INT64_MIN), options.accept_loss
    )
    logs = Logs(sources, settings.home, lambda: connect_online(settings), topics, positions.resume, options.until_end)
    by_key, beat_us = {view.key: view for view in views}, interval_us(views)

    def writer(n: int) -> LaneWriter:
        mine = lanes_of(n, options.workers)
        return LaneWriter(lanes[n], mine, by_key, patience, delta.streamed, summary.committed, backlog.done)

    steps = Steps(
        reader=lambda n: Reader(logs, n, options.workers, stop, backlog, summary.ended, beat_us),
        decode=Decoder({source.name: definitions.limits(source) for source in sources}, positions.remembered()),
        archive=delta.archive,
        split=Splitter(views, options.workers, backlog),
        writer=writer if views else None,
        stop=stop,
    )
    began_s = time.monotonic()
    _run_to_the_end(steps, options.workers, delta)
    summary.seconds = time.monotonic() - began_s


def streamed_sources(definitions: Definitions, names: Sequence[str]) -> list[EventSource]:
    """The sources to stream: those named, or all that have a stream. Raises `ForebayError` where there is nothing to
    do.
    """
    chosen = [definitions.source(name) for name in names] or list(definitions.sources.values())
    streams = [source for source in chosen if isinstance(source, EventSource) and source.stream is not None]
    without = [source.name for source in chosen if source not in streams]
    if not streams or (names and without):
        which = f"Source {without[0]!r} has" if names else "No deployed source has"
        raise ConfigError(f"{which} no stream; declare one: EventSource(…, stream=FileStream('events/'))")
    return streams


def _deployed(settings: Settings, online: redis.Redis) -> Definitions:
    definitions = Registry.open(settings, online).current()
    if definitions is None:
        raise ConfigError(f"Nothing is deployed in namespace {settings.namespace!r}; run `forebay apply` first")
    return definitions


def _take_over(
    online: redis.Redis, namespace: str, views: Sequence[WindowedView], workers: int, patience: Patience
) -> list[Lane]:
    """The lanes of each worker, with every slot fenced against whoever wrote it before."""
    lanes = [Lane(online, namespace, views, slots_of_worker(n, workers)) for n in range(workers if views else 0)]
    for lane in lanes:
        patience(lane.take_over)
    return lanes


def _run_to_the_end(steps: Steps, workers: int, delta: DeltaWriter) -> None:
    """Run the dataflow until its readers end, then make what it read durable."""
    os.environ.pop("BYTEWAX_DATAFLOW_API_ENABLED", None)  # its server would listen on every interface
    from bytewax._bytewax import cli_main

    delta.start()
    try:
        with steps.stop.failing():
            cli_main(  # type: ignore[no-untyped-call]  # bytewax's stub does not say
                build(steps, workers), workers_per_process=workers, epoch_interval=EPOCH
            )
    finally:
        delta.close()


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line."""
    parser = argparse.ArgumentParser(
        prog="python -m streaming", description="Stream events into the online and the offline store."
    )
    parser.add_argument("--until-end", action="store_true", help="stop when every partition is read and all is durable")
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        choices=range(1, WORKERS_MAX + 1),
        metavar="N",
        help=f"threads, 1 to {WORKERS_MAX}",
    )
    parser.add_argument(
        "--source", action="append", default=[], metavar="NAME", help="only this source; may be repeated"
    )
    parser.add_argument(
        "--give-up-after",
        type=float,
        default=GIVE_UP_AFTER_S,
        metavar="SECONDS",
        help="how long a store that is away is waited for",
    )
    parser.add_argument(
        "--accept-loss",
        action="append",
        default=[],
        metavar="NAME",
        help="read this source on where its log begins, although events before that were deleted unread",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one line of JSON")
    return parser.parse_args(arguments)
