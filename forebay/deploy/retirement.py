"""Retiring a view: the end of a version that is not deployed any more. Its keys and tables go, its name stays taken.

    deployed  ──apply without it──▶  retired in the manifest  ──retire──▶  nothing stored
                                     its version cannot come back as another computation, now or later

Refused while anybody may still need or write it: while it is deployed (services pin it), and while a flow that began
before it was removed writes its tiles. May live here: what is checked and in which order things go. Invariants: what is
counted first is what is removed; a run that died is finished by the next one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import redis

from forebay.deploy.registry import Registry
from forebay.deploy.removal import (
    OnlineHoldings,
    TableHoldings,
    online_holdings,
    remove_online,
    remove_tables,
    table_holdings,
)
from forebay.errors import RequestError, UnknownNameError, suggestion
from forebay.instants import MINUTE_US
from forebay.language.definitions import Definitions
from forebay.language.view import AnyView, WindowedView
from forebay.offline.location import Location
from forebay.online.signs import Signs

SILENT_US = 10 * MINUTE_US
"""A flow that has not been seen at work for so long is dead: it says so every two seconds, and waits for a store 60."""


@dataclass(frozen=True)
class Retirement:
    """What is stored of a retired view: keys of the online store and tables of the offline one."""

    view: str
    online: OnlineHoldings
    tables: tuple[TableHoldings, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing is left of it."""
        return not (self.online.keys or self.online.beside or self.tables)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "view": self.view,
            "keys": {**self.online.keys, "beside": self.online.beside},
            "key_bytes": self.online.bytes,
            "tables": [vars(table) for table in self.tables],
            "files": sum(table.files for table in self.tables),
            "file_bytes": sum(table.bytes for table in self.tables),
        }


@dataclass(frozen=True)
class Retired:
    """How many keys of entities and how many files a retirement removed."""

    view: str
    keys: int
    files: int
    seconds: float


def plan_retirement(
    registry: Registry, client: redis.Redis, namespace: str, location: Location, view: str, *, now_us: int
) -> Retirement:
    """What retiring a view would remove.

    Raises `RequestError` where it is deployed or a flow writes it, `UnknownNameError` where it never was deployed.
    """
    deployed = registry.current() or Definitions()
    _check_gone(deployed, view)
    was = registry.last_seen(view)
    if was is not None:
        _check_unwritten(Signs(client, namespace), was, now_us)
    return Retirement(view, online_holdings(client, namespace, view), tuple(table_holdings(location, view)))


def retire(client: redis.Redis, namespace: str, location: Location, planned: Retirement) -> Retired:
    """Remove what was planned, and what came to it since. Raises `FencedError` while somebody publishes the view."""
    began = time.perf_counter()
    keys = remove_online(client, namespace, planned.view)
    files = remove_tables(location, planned.view)
    return Retired(planned.view, keys, files, time.perf_counter() - began)


def _check_gone(deployed: Definitions, view: str) -> None:
    if view in deployed.views:
        pinning = [one.key for one in deployed.services.values() if one.pins(view)]
        pinned = f", and {', '.join(pinning)} pins it" if pinning else ""
        first = f"once no model asks for it, remove {', '.join(pinning)} and apply; then " if pinning else ""
        raise RequestError(
            f"View {view!r} cannot be retired: it is deployed{pinned}. To retire it, {first}"
            "remove the view from the definitions and apply"
        )
    once = [name.removeprefix("view:") for name in deployed.retired if name.startswith("view:")]
    if view not in once:
        raise UnknownNameError(f"There is no view {view!r} that was deployed once. {suggestion(view, once)}")


def _check_unwritten(signs: Signs, was: AnyView, now_us: int) -> None:
    if not isinstance(was, WindowedView):
        return
    for sign in signs.read(was.source.name):
        if was.key in sign.views and sign.ended_us is None and now_us - sign.seen_us < SILENT_US:
            seconds = max(0, now_us - sign.seen_us) / 1e6
            raise RequestError(
                f"View {was.key!r} cannot be retired: the running stream of {was.source.name!r} writes it (seen "
                f"{seconds:.0f} s ago), because it began before the view was removed. Restart the stream first"
            )
