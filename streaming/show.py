"""`--status`: what is printed of how the stream is. Lives here: tables and JSON; what is true is `status.py`'s."""

from __future__ import annotations

from collections.abc import Sequence

from forebay.cli.printing import age_text, print_json, print_table, say
from forebay.deploy.outdated import OUTDATED
from forebay.deploy.registry import Registry
from forebay.deploy.unstreamed import UNSTREAMED
from forebay.errors import ConfigError
from forebay.instants import SECOND_US, instant_text
from forebay.language.source import EventSource
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.lane import wall_clock_us
from forebay.settings import Settings
from streaming.log_ends import LogEnds
from streaming.status import SourceStatus, Status, to_dict


def show(settings: Settings, names: Sequence[str], *, as_json: bool) -> None:
    """Print how the stream of some sources is, or of all that have one. Raises `ForebayError`."""
    online = connect_online(settings)
    definitions = Registry.open(settings, online).current()
    if definitions is None:
        raise ConfigError(f"Nothing is deployed in namespace {settings.namespace!r}; run `forebay apply` first")
    chosen = [definitions.source(name) for name in names] or list(definitions.sources.values())
    sources = [one for one in chosen if isinstance(one, EventSource) and (names or one.stream is not None)]
    look = Status(online, settings.namespace, OfflineStore(settings), LogEnds(settings, lambda: online))
    now_us = wall_clock_us()
    found = look(definitions, sources, now_us)
    if as_json:
        print_json({"at": instant_text(now_us), "sources": [to_dict(one) for one in found]})
        return
    for one in found:
        _print(one, now_us)


def _print(status: SourceStatus, now_us: int) -> None:
    print_table(
        f"{status.source}: {_flow_text(status, now_us)}",
        ["partition", "state", "#log ends", "#archived", "#applied", "#waiting", "#seconds", "watermark"],
        (
            (p.partition, p.state, p.log_end, p.archived, p.applied, p.lag_events, p.lag_s, _instant(p.watermark_us))
            for p in status.partitions
        ),
        status.log_error or None,
    )
    print_table(
        f"views of {status.source}",
        ["view", "#commit", "cut", "watermark", "to repair"],
        (
            (v.view, v.commit, _instant(v.cut_us), _instant(v.watermark_us), ", ".join(v.repair) or None)
            for v in status.views
        ),
    )
    dead = ", ".join(f"{count:,} {reason}" for reason, count in status.dead_letters.items())
    say(f"dead letters: {dead or 'none'}")
    if status.outdated:
        say(f"{status.source}: {OUTDATED}")
    for view in [view for view in status.views if view.overdue]:
        say(f"{view.view}: its cut is longer ago than its retention; publish it: until then its values are STALE")
    for view in status.views:
        if view.streamed is False:
            say(f"{view.view}: {UNSTREAMED}")
        if view.filling:
            say(f"{view.view}: UNAVAILABLE until it has what is archived: the stream fills it when it is started")
        if view.missing:
            say(f"{view.view}: {view.missing}")
    for loss in [loss for view in status.views for loss in view.losses]:
        say(f"the online store has lost writes: {loss}")


def _flow_text(status: SourceStatus, now_us: int) -> str:
    if not status.flow:
        return "no flow has run"
    sign = min(status.flow, key=lambda one: one.seen_us)
    what = f"flow {sign.flow} ({status.state}), last heartbeat {age_text((now_us - sign.seen_us) / SECOND_US)} ago"
    if sign.ended_us is not None:
        what = f"flow {sign.flow} ended {age_text((now_us - sign.ended_us) / SECOND_US)} ago"
    return f"{what}: {sign.why}" if sign.why else what


def _instant(us: int | None) -> str | None:
    return None if us is None else instant_text(us)
