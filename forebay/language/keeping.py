"""How long the archive of a source is kept, and what may be declared of a source that is not kept for ever.

    archive    removed │ kept: `keep` before the source's watermark                    watermark
               ────────┼──────────────────────────────────────────────────────────────────┤
    needed             │    window + hop         day  lateness
                       │  ├──────────────────────┼───┼────────┤ what a publication that is as late reads

Lives here: the refusals. A lifetime needs every event, sessions need their chains from the beginning, and a function
without a reach may read everything: none of them can be of a source with `keep`. What is kept and when it goes is
`forebay.offline.retention`.
"""

from __future__ import annotations

from collections.abc import Iterable

from forebay.errors import DefinitionError
from forebay.instants import DAY_US, duration_text
from forebay.language.source import EventSource
from forebay.language.windows import Window


def check_windows_kept(where: str, source: EventSource, windows: Iterable[Window], *, sessions: bool) -> None:
    """Raise `DefinitionError` unless a windowed view needs no more of a source than is kept of it."""
    if source.keep_us is None:
        return
    if sessions:
        raise DefinitionError(
            f"{where} is of sessions, which are made of their chain of events from the beginning, and {_kept(source)}"
        )
    lookback_us = 0
    for window in windows:
        if window.length_us is None:
            raise DefinitionError(
                f"{where} has a lifetime, which needs all events, and {_kept(source)}; leave out keep, "
                "or declare a long window instead"
            )
        lookback_us = max(lookback_us, window.length_us + window.hop_us)
    _check(where, source, lookback_us, "its longest window")


def check_reach_kept(where: str, source: EventSource, reach_us: int | None) -> None:
    """Raise `DefinitionError` unless a batch view reads no more of a source than is kept of it."""
    if source.keep_us is None:
        return
    if reach_us is None:
        raise DefinitionError(
            f"{where} may read all events of its sources, and {_kept(source)}; say how far back it reads, "
            "such as reach='30d'"
        )
    _check(where, source, reach_us, "its reach")


def _check(where: str, source: EventSource, needed_us: int, what: str) -> None:
    least_us = needed_us + source.lateness_us + DAY_US
    if source.keep_us is not None and source.keep_us < least_us:
        raise DefinitionError(
            f"{where}: {what}, a day and the lateness are {duration_text(least_us)}, and {_kept(source)}; "
            "keep as long at least"
        )


def _kept(source: EventSource) -> str:
    return f"source {source.name!r} keeps the events of {source.keep} alone"
