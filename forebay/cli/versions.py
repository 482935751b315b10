"""Commands about versions that stand side by side: `compare`, `flip`, `retire`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from forebay.client.comparison import Comparison
    from forebay.deploy.retirement import Retirement

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def compare(
    before: Annotated[str, typer.Argument(metavar="VIEW", help="name@version, such as the version that serves.")],
    after: Annotated[str, typer.Argument(metavar="OTHER", help="name@version, such as the one that is to follow it.")],
    sample: Annotated[int, typer.Option(help="How many live entities to look at.")] = 1_000,
    as_json: Json = False,
) -> None:
    """Compare two views, or two versions of one, on entities that are live now: both are read at one instant."""
    from forebay.cli.printing import print_json
    from forebay.client.feature_store import FeatureStore

    with FeatureStore.connect() as store:
        compared = store.compare(before, after, sample=sample)
    if as_json:
        print_json(compared.to_dict())
    else:
        _print(compared)


def flip(
    service: Annotated[str, typer.Argument(help="The bare name of a service.")],
    to: Annotated[int, typer.Option(help="The version that its bare name is to mean.")],
    anyway: Annotated[bool, typer.Option("--anyway", help="Also where nothing of its views is online yet.")] = False,
    as_json: Json = False,
) -> None:
    """Make a version of a service the active one: models that ask for its bare name get it within a second."""
    from forebay.cli.printing import print_json, say
    from forebay.deploy.filled import check_filled
    from forebay.deploy.registry import Registry
    from forebay.language.definitions import Definitions
    from forebay.online.connection import connect_online
    from forebay.settings import Settings

    settings = Settings.from_env()
    online = connect_online(settings)
    registry = Registry.open(settings, online)
    if not anyway:
        check_filled(online, settings.namespace, registry.current() or Definitions(), f"{service}@{to}")
    flipped = registry.flip(service, to)
    if as_json:
        print_json(vars(flipped))
    elif flipped.before == flipped.after:
        say(f"{service}@{to} is the active version already (manifest {flipped.number}).")
    else:
        say(f"{service} is version {to} now, and was {flipped.before} (manifest {flipped.number}).")
        say(f"Back: forebay flip {service} --to {flipped.before}")


def retire(
    view: Annotated[str, typer.Argument(help="name@version of a view that is deployed no more.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count what would be removed.")] = False,
    as_json: Json = False,
) -> None:
    """Remove all that is stored of a view that is deployed no more: its keys and its tables."""
    from forebay.cli.printing import print_json, say
    from forebay.deploy.registry import Registry
    from forebay.deploy.retirement import plan_retirement
    from forebay.deploy.retirement import retire as remove
    from forebay.offline.location import Location
    from forebay.online.connection import connect_online
    from forebay.settings import Settings

    settings = Settings.from_env()
    online, location = connect_online(settings), Location.of(settings.offline_url, namespace=settings.namespace)
    registry, namespace = Registry.open(settings, online), settings.namespace
    planned = plan_retirement(registry, online, namespace, location, view, now_us=time.time_ns() // 1_000)
    if not as_json:
        _print_holdings(planned)
    if dry_run or planned.empty:
        if as_json:
            print_json({**planned.to_dict(), "removed": None})
        return
    removed = remove(online, namespace, location, planned)
    if as_json:
        print_json({**planned.to_dict(), "removed": {"keys": removed.keys, "files": removed.files}})
    else:
        say(f"Removed {removed.keys:,} keys and {removed.files:,} files in {removed.seconds:.1f} s.")


def _print_holdings(planned: Retirement) -> None:
    from forebay.cli.printing import print_table, say

    if planned.empty:
        say(f"Nothing is stored of {planned.view}.")
        return
    online = planned.online
    keys = sum(online.keys.values()) + online.beside
    rows = [("online store", f"{keys:,} keys", f"{online.bytes / 2**20:,.2f} MiB")]
    rows += [(table.path, f"{table.files:,} files", f"{table.bytes / 2**20:,.2f} MiB") for table in planned.tables]
    print_table(f"Stored of {planned.view}", ["where", "#what", "#size"], rows)


def _print(compared: Comparison) -> None:
    from forebay.cli.printing import print_table, say, text

    print_table(
        f"{compared.before} → {compared.after} of {compared.entities:,} live entities at {text(compared.instant)}",
        ["feature", "#equal", "#median apart", "#p99", "#most", "for example"],
        _rows(compared),
    )
    if compared.only_before:
        some = ", ".join(_entity(entity) for entity in compared.lacking)
        say(f"{compared.only_before} more are in {compared.before} alone: {some}")
    if compared.only_after:
        say(f"{compared.only_after} more are in {compared.after} alone.")
    for what, names in (("dropped", compared.dropped), ("added", compared.added)):
        if names:
            say(f"Features {what}: {', '.join(names)}")


def _rows(compared: Comparison) -> Iterator[tuple[Any, ...]]:
    from forebay.cli.printing import text

    for one in compared.features:
        shares = one.quantiles or {}
        shown = [f"{_entity(e.entity)}: {text(e.before)} → {text(e.after)}" for e in one.examples[:2]]
        if one.statuses:
            shown.append(f"{one.statuses} equal with another status")
        yield one.name, f"{one.share_equal:.2%}", shares.get("p50"), shares.get("p99"), one.largest, "; ".join(shown)


def _entity(entity: dict[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in entity.items())
