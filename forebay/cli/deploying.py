"""Commands that compare the definitions with what is deployed: `plan`, `apply`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forebay.errors import PlanRefusedError

if TYPE_CHECKING:
    from forebay.client.deployed import Deployed
    from forebay.deploy.footprint import ArchiveSize, Footprint
    from forebay.deploy.plan import Change, Plan
    from forebay.deploy.registry import Registry
    from forebay.language.definitions import Definitions
    from forebay.language.source import EventSource

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PLAN_REFUSED = 3
_SIGNS = {"added": ("+", "green"), "removed": ("-", "yellow"), "changed": ("~", "cyan"), "refused": ("✗", "bold red")}


def plan(as_json: Json = False) -> None:
    """Show what `apply` would change, and what a backfill of it will touch; exit code 3 if it would be refused."""
    from forebay.cli.printing import print_json

    registry, code, sizes, reusable, deployed = _opened()
    planned = registry.plan(code, now_us=time.time_ns() // 1_000, archives=sizes, reusable=reusable)
    unknown = _unknown(deployed, code)
    if as_json:
        print_json(planned.to_dict() | unknown)
    else:
        _print(planned, "Nothing to do: what is declared is deployed.")
        _say_unknown(unknown)
    if planned.refused:
        raise typer.Exit(PLAN_REFUSED)


def apply(as_json: Json = False) -> None:
    """Deploy the definitions, unless they contradict what is deployed (exit code 3)."""
    from forebay.cli.printing import fail, print_json, say

    registry, code, sizes, _, deployed = _opened()
    waiting: tuple[list[str], dict[str, str]] = ([], {})

    def prepare(planned: Plan) -> None:
        nonlocal waiting
        waiting = _waiting(deployed, code, planned)

    try:
        applied = registry.apply(code, now_us=time.time_ns() // 1_000, archives=sizes, prepare=prepare)
    except PlanRefusedError:
        planned = registry.plan(code, archives=sizes)
        if as_json:
            print_json(planned.to_dict())
        else:
            _print(planned, "")
        fail("Nothing was applied: the plan is refused.")
        raise typer.Exit(PLAN_REFUSED) from None
    (unavailable, missing), unknown = waiting, _unknown(deployed, code)
    if as_json:
        print_json(applied.to_dict() | {"unavailable": unavailable, "missing": missing} | unknown)
        return
    _print(applied.plan, "Nothing to do: what is declared is deployed.")
    say(f"Deployed: manifest {applied.number}.")
    if unavailable:
        say(f"UNAVAILABLE until the stream has filled them with what is archived: {', '.join(unavailable)}.")
    for view, text in missing.items():
        say(f"{view}: {text}")
    _say_unknown(unknown)


def _waiting(deployed: Deployed, code: Definitions, planned: Plan) -> tuple[list[str], dict[str, str]]:
    """The new views that have to be filled, and those that lack what was loaded."""
    from forebay.backfill.gaps import mark_gaps
    from forebay.deploy.unstreamed import mark_unstreamed
    from forebay.language.view import WindowedView

    where = (deployed.redis, deployed.settings.namespace, deployed.offline)
    added = [code.view(change.key) for change in planned.added if change.kind == "view"]
    windowed = [view for view in added if isinstance(view, WindowedView)]
    return mark_unstreamed(*where, added), mark_gaps(*where, windowed)


def _unknown(deployed: Deployed, code: Definitions) -> dict[str, list[str]]:
    """All views of the code that the running flow does not stream, and all sources that it judges otherwise."""
    from forebay.deploy.outdated import outdated_sources
    from forebay.deploy.unstreamed import unknown_views

    where, now_us = (deployed.redis, deployed.settings.namespace), time.time_ns() // 1_000
    return {
        "unstreamed": unknown_views(*where, code.views.values(), now_us),
        "outdated": outdated_sources(*where, code, now_us),
    }


def _say_unknown(unknown: Mapping[str, Iterable[str]]) -> None:
    from forebay.cli.printing import say
    from forebay.deploy.outdated import OUTDATED
    from forebay.deploy.unstreamed import UNSTREAMED

    for what, text in (("unstreamed", UNSTREAMED), ("outdated", OUTDATED)):
        for key in unknown[what]:
            say(f"{key}: {text}.")


def _opened() -> tuple[Registry, Definitions, Any, Any, Deployed]:
    from forebay.client.deployed import Deployed
    from forebay.deploy.footprint import ArchiveSize, Reused
    from forebay.deploy.registry import Registry
    from forebay.language.definitions import Definitions
    from forebay.language.view import WindowedView
    from forebay.offline.archive import first_kept
    from forebay.settings import Settings

    settings = Settings.from_env()
    code = Definitions.load(settings.definitions)
    deployed = Deployed(settings, code)

    def size(source: EventSource) -> ArchiveSize | None:
        archive = deployed.offline.archive(source)
        found = archive.size()
        if found is None:
            return None
        first_day = first_kept(archive.events_by_date(), archive.retained_us())
        return ArchiveSize(*found, first_day, archive.stored_otherwise())

    def reusable(view: WindowedView) -> Reused | None:
        from forebay.backfill.reuse import reuse_of

        archive = deployed.offline.archive(view.source)
        others = [one for one in code.views.values() if isinstance(one, WindowedView)]
        found = reuse_of(deployed.offline, view, others, archive.events_by_date(), archive.watermark_us())
        if found is None:
            return None
        donor, days = found
        return Reused(donor.view.key, len(days), tuple(partial.name for partial in donor.lacking))

    return Registry.open(settings, deployed.redis), code, size, reusable, deployed


def _print(planned: Plan, otherwise: str) -> None:
    from forebay.cli.printing import print_table, say

    if planned.empty:
        say(otherwise)
        return
    print_table("Plan", ["", "what", "name", "backfill, differences or reason"], _rows(planned))


def _rows(planned: Plan) -> Iterator[tuple[Any, ...]]:
    from rich.text import Text

    for outcome, (sign, style) in _SIGNS.items():
        for change in getattr(planned, outcome):
            yield Text(sign, style=style), change.kind, Text(change.key, style=style), Text("\n".join(_details(change)))


def _details(change: Change) -> Iterator[str]:
    if change.reason:
        yield change.reason
    yield from (str(difference) for difference in change.differences)
    if change.footprint is not None:
        yield _touched(change.footprint)
    if change.advice:
        yield f"→ {change.advice}"


def _touched(footprint: Footprint) -> str:
    parts = ["unpartitioned"]
    if footprint.unit != "none":
        parts = [f"{footprint.count:,} {footprint.unit} partitions, {footprint.first} to {footprint.last}"]
    if footprint.rows is not None:
        parts.append(f"{footprint.rows:,} events")
    if footprint.bytes is not None:
        parts.append(f"{footprint.bytes / 2**20:,.1f} MiB to read")
    if footprint.reused is not None:
        parts.append(f"of which {footprint.reused.days:,} days are made of the tiles of {footprint.reused.view}")
        parts += (
            [f"which lack {', '.join(footprint.reused.lacking)}: that is folded"] if footprint.reused.lacking else []
        )
    if footprint.seconds is not None:
        parts.append(f"about {footprint.seconds:,.0f} s")
    return ", ".join(parts)
