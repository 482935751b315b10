"""Running a flow: from the command line to its exit code.

Lives here: what is streamed (the deployed definitions), how a flow ends, and what is said. The order is what makes it
exactly once:

    begin   see that it can run ─▶ take over: streaming/parts.py
    end     readers stop ─▶ writers commit what was read ─▶ the background writer makes it durable ─▶ say so

Exit codes: 0 all that was read is durable (at the end, or after SIGTERM), 2 the flow failed, in one line on stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import redis

from forebay.deploy.registry import Registry
from forebay.errors import ConfigError, ForebayError
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.online.connection import connect_online
from forebay.settings import Settings
from streaming.alive import alive, lag_measured
from streaming.beginning import running_flows, say_begin
from streaming.begun import Begun, begin
from streaming.interpreter import prepare_process
from streaming.logs import FORMATS, LOG, configure
from streaming.lost_publications import publications_watched
from streaming.parts import Task
from streaming.ready import check_ready
from streaming.refilling import replay
from streaming.remarked import gaps_marked
from streaming.replaced import replacement_watched
from streaming.retry import GIVE_UP_AFTER_S, GivenUpError, Patience
from streaming.routing import WORKERS_MAX
from streaming.show import show
from streaming.sources import LINGER_S_MAX
from streaming.stop import Stop
from streaming.summary import Summary

DONE, FAILED = 0, 2


def main(arguments: Sequence[str]) -> int:
    """Run a flow as the command line says; the exit code."""
    options = parse(arguments)
    configure(options.log_format)
    prepare_process()
    stop, summary = Stop(), Summary()
    with stop.on_signals(), stop.failing():
        if options.status:
            show(Settings.from_env(), options.source, as_json=options.json)
            return DONE
        run(Settings.from_env(), options, stop, summary)
        if options.replay and stop.error is None:
            return DONE
    error = stop.error
    if error is None:
        LOG.info("stop", why="signal" if stop.requested else "end", **summary.to_dict())
        _say(summary.to_json() if options.json else summary.to_text())
        return DONE
    kind = "" if isinstance(error, ForebayError) else f"{type(error).__name__}: "
    why = f"{kind}{' '.join(str(error).split())}"
    LOG.error("stop", why=why, **summary.to_dict())
    if options.log_format is None:
        print(f"error: {why}", file=sys.stderr, flush=True)
    return FAILED


def _say(text: str) -> None:
    """Print to whoever listens; all is durable, also where nobody does any more, or a disk is full."""
    try:
        print(text, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end


def run(settings: Settings, options: argparse.Namespace, stop: Stop, summary: Summary) -> None:
    """Run a flow until it ends. An error of the flow is in `stop`; one before it begins is raised. One that is told to
    end before it took over leaves whoever streams alone.
    """
    patience = Patience(
        options.give_up_after, _teller(options, stop, summary), lambda: stop.before_begin or stop.failed
    )
    online = patience(lambda: connect_online(settings))
    definitions = patience(lambda: _deployed(settings, online))
    if options.replay:
        replay(settings, definitions, options, online, stop, summary, patience)
        return
    if options.from_instant or options.from_offset:
        raise ConfigError("--from-instant and --from-offset say where a --replay starts; a stream resumes by itself")
    sources = streamed_sources(definitions, options.source)
    _check_accepted(definitions, sources, options.accept_loss)
    task = Task(
        settings,
        definitions,
        sources,
        options.workers,
        options.until_end,
        patience,
        options.accept_loss,
        linger_s=options.linger,
    )
    check_ready(task, options.metrics_port)
    replaced = patience(lambda: running_flows(task, online))
    try:
        begun = begin(task, online, stop, summary, options.metrics_port, options.log_format)
    except GivenUpError:
        return
    stop.has_begun = True
    say_begin(begun, replaced)
    for loss in summary.losses:
        LOG.warning("loss", warning=f"the online store had lost writes: {loss}", **loss.to_dict())
    began_s = time.monotonic()
    with _observed(begun, online, stop, summary, options.metrics_port):
        begun.to_the_end()
    summary.seconds = time.monotonic() - began_s


def _teller(options: argparse.Namespace, stop: Stop, summary: Summary) -> Callable[[BaseException], None]:
    """What is told of each try again; what a flow that begins waits for is said once, to whoever has started it."""
    waiting = False

    def tell(error: BaseException) -> None:
        nonlocal waiting
        if not (waiting or stop.has_begun or options.log_format):
            waiting = True
            print(f"warning: waiting up to {options.give_up_after:g} s: {error}", file=sys.stderr, flush=True)
        summary.retried(error)

    return tell


@contextlib.contextmanager
def _observed(begun: Begun, online: redis.Redis, stop: Stop, summary: Summary, metrics_port: int) -> Iterator[None]:
    """Within the block whoever looks sees how the flow is."""
    with contextlib.ExitStack() as stack:
        if metrics_port:
            stack.enter_context(summary.metrics.served(metrics_port))
            stack.enter_context(lag_measured(begun.task, online, summary.metrics))
        stack.enter_context(gaps_marked(begun.task, online))
        stack.enter_context(publications_watched(begun.task, online, stop))
        stack.enter_context(replacement_watched(begun, online, stop))
        stack.enter_context(alive(begun, online, stop, summary.losses, metrics_port or None))
        yield


def streamed_sources(definitions: Definitions, names: Sequence[str]) -> list[EventSource]:
    """The sources to stream: those named, or all that have a stream. Raises `ForebayError` where there is nothing to
    do.
    """
    chosen = [definitions.source(name) for name in dict.fromkeys(names)] or list(definitions.sources.values())
    streams = [source for source in chosen if isinstance(source, EventSource) and source.stream is not None]
    without = [source.name for source in chosen if source not in streams]
    if not streams or (names and without):
        which = f"Source {without[0]!r} has" if names else "No deployed source has"
        raise ConfigError(f"{which} no stream; declare one: EventSource(…, stream=FileStream('events/'))")
    return streams


def _check_accepted(definitions: Definitions, sources: Sequence[EventSource], names: Sequence[str]) -> None:
    """Raise `ForebayError` where a loss is accepted of what is not streamed."""
    for name in names:
        if definitions.source(name) not in sources:
            raise ConfigError(f"--accept-loss {name}: this flow does not stream it")


def _linger_s(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds <= LINGER_S_MAX:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to {LINGER_S_MAX:g} seconds")
    return seconds


def _deployed(settings: Settings, online: redis.Redis) -> Definitions:
    definitions = Registry.open(settings, online).restore()
    if definitions is None:
        raise ConfigError(f"Nothing is deployed in namespace {settings.namespace!r}; run `forebay apply` first")
    return definitions


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
        help=f"processes, 1 to {WORKERS_MAX}",
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
        "--linger",
        type=_linger_s,
        default=0.0,
        metavar="SECONDS",
        help=f"after reading some events wait so long for more, up to {LINGER_S_MAX:g}: less work, later values",
    )
    parser.add_argument(
        "--accept-loss",
        action="append",
        default=[],
        metavar="NAME",
        help="read this source on where its log begins, although events before that were deleted unread",
    )
    parser.add_argument(
        "--metrics-port",
        type=int,
        default=0,
        metavar="PORT",
        help="serve Prometheus metrics on 127.0.0.1 at this port; 0: nowhere",
    )
    parser.add_argument(
        "--log-format",
        choices=FORMATS,
        metavar="FORMAT",
        help="say on standard error what happens while it runs: json or text",
    )
    parser.add_argument(
        "--replay", metavar="VIEW@N", help="fill this view from the archive, beside the running stream, and end"
    )
    parser.add_argument(
        "--from-instant", metavar="INSTANT", help="the view is to be right from here on (default: from the beginning)"
    )
    parser.add_argument(
        "--from-offset",
        action="append",
        default=[],
        metavar="PARTITION=OFFSET",
        help="the view is to be right after what lies before these offsets; may be repeated",
    )
    parser.add_argument("--status", action="store_true", help="run nothing: say how the stream is, and what is behind")
    parser.add_argument("--json", action="store_true", help="print the summary, or the status, as JSON")
    return parser.parse_args(arguments)
