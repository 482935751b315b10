"""`--replay VIEW@N`: from the command line to a view that is filled, and what is said of it.

Lives here: what the options mean, and the words. How a view is filled is in `filling.py`.
"""

from __future__ import annotations

import argparse
import json
import time

import redis

from forebay.core.codec import NO_CUT
from forebay.errors import ConfigError, RequestError
from forebay.instants import instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.lane import wall_clock_us
from forebay.settings import Settings
from streaming.filling import Start, fill
from streaming.parts import Task
from streaming.retry import Patience
from streaming.stop import Stop
from streaming.summary import Summary


def replay(
    settings: Settings,
    definitions: Definitions,
    options: argparse.Namespace,
    online: redis.Redis,
    stop: Stop,
    summary: Summary,
    patience: Patience,
) -> None:
    """Fill the view that the options name, and say so. An error is in `stop`, or raised.

    `patience` is with stores that are away; it ends with the first signal, since what is interrupted goes on later.
    """
    _check_alone(options)
    view = definitions.view(options.replay)
    if not isinstance(view, WindowedView) or view.source.stream is None:
        raise RequestError(f"View {options.replay!r} is not streamed; only a windowed view of a stream is replayed")
    start, began_s = patience(lambda: _start(settings, view, options)), time.monotonic()
    task = Task(settings, Definitions.of(view), [view.source], until_end=True, patience=patience)
    since_us = fill(task, view, start, online, stop, summary)
    if stop.error is None:
        _say(view, since_us, stop, summary, time.monotonic() - began_s, as_json=options.json)


def _check_alone(options: argparse.Namespace) -> None:
    """Raise `ConfigError` for options of a flow, which a filling is not."""
    others = {
        "--source": options.source,
        "--workers": options.workers != 1,
        "--accept-loss": options.accept_loss,
        "--linger": options.linger,
        "--metrics-port": options.metrics_port,
    }
    given = [name for name, value in others.items() if value]
    if given:
        raise ConfigError(
            f"--replay fills one view from the archive, in one process, and ends; leave out {', '.join(given)}"
        )


def _start(settings: Settings, view: WindowedView, options: argparse.Namespace) -> Start:
    if options.from_instant and options.from_offset:
        raise RequestError("--from-instant and --from-offset both say where to start; give one of them")
    if options.from_offset:
        offsets = dict(_offset(text) for text in options.from_offset)
        return Start.after(OfflineStore(settings).archive(view.source), offsets)
    if options.from_instant is None:
        return Start()
    start = Start(instant_us(options.from_instant))
    if (start.instant_us or 0) > wall_clock_us():
        raise ConfigError(f"--from-instant {options.from_instant} has not come yet; give an earlier one")
    return start


def _offset(text: str) -> tuple[str, int]:
    """A partition and an offset.

    >>> _offset("orders:0=4096")
    ('orders:0', 4096)
    """
    partition, _, offset = text.rpartition("=")
    if not partition or not offset.isdecimal():
        raise RequestError(f"--from-offset {text!r} is not PARTITION=OFFSET, such as orders:0=4096")
    return partition, int(offset)


def _say(view: WindowedView, since_us: int, stop: Stop, summary: Summary, seconds: float, *, as_json: bool) -> None:
    since = None if since_us == NO_CUT else instant_text(since_us)
    commit, complete = summary.commits.get(view.key, 0), not stop.requested
    if as_json:
        said = {"view": view.key, "from": since, "complete": complete, "commit": commit, "seconds": round(seconds, 3)}
        print(json.dumps(said), flush=True)
    elif complete:
        right = f" It is right for instants from {since} on." if since else ""
        print(f"{view.key} has all that is archived.{right} Start the stream again: it goes on with it.", flush=True)
    else:
        print(f"{view.key} was interrupted at commit {commit}; run this again, and it goes on.", flush=True)
