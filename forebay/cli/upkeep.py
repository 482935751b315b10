"""The command that keeps the tables in order, and removes what is not to be kept: `maintain`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forebay.client.deployed import Deployed
    from forebay.offline.retention import Removed
    from forebay.offline.upkeep import Kept


def maintain(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]…", help="Such as events/purchases; all where none is named.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    older_than_hours: Annotated[int, typer.Option(help="Garbage is removed once it is as old; 24 or more.")] = 168,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Remove what sources do not keep; put files in order, merge small ones, remove garbage and sum up logs."""
    from forebay.cli.printing import print_json, print_table
    from forebay.client.deployed import Deployed
    from forebay.errors import RequestError, UnknownNameError
    from forebay.offline import upkeep
    from forebay.settings import Settings

    if older_than_hours < upkeep.VACUUM_HOURS_MIN:
        raise RequestError(
            f"--older-than-hours is {older_than_hours}; expected {upkeep.VACUUM_HOURS_MIN} or more, since what is "
            "being written or read now would be removed"
        )
    deployed = Deployed(Settings.from_env())
    found = {table.path: (table, order) for table, order in upkeep.tables(deployed.offline, deployed.definitions)}
    for name in tables or ():
        if name not in found:
            raise UnknownNameError.of("table", name, found)
    chosen = [found[name] for name in tables or found]
    removed = list(_removed(deployed, tables, dry_run))
    kept = [upkeep.keep_up(table, order, hours=older_than_hours, dry_run=dry_run) for table, order in chosen]
    if as_json:
        print_json({"retention": [vars(one) for one in removed], "tables": [vars(one) for one in kept]})
        return
    for one in removed:
        rows = ", ".join(f"{count:,} of {path}" for path, count in one.rows.items()) or "none"
        what = "would be removed" if dry_run else "removed"
        print(f"{one.name} is kept from {one.kept_from} on ({one.remark}); rows {what}: {rows}")
    headers = ["table", "#files before", "#after", "#dates ordered", "#compacted", "#left to writers", "#files removed"]
    print_table("Would be done" if dry_run else "Done", headers, [_row(one) for one in kept if one.files_before])


def _removed(deployed: Deployed, tables: list[str] | None, dry_run: bool) -> Iterator[Removed]:
    """What sources and batch views do not keep, of all tables or of those that are named."""
    from forebay.language.source import EventSource
    from forebay.language.view import BatchView
    from forebay.offline.retention import remove_old, remove_superseded

    store, definitions = deployed.offline, deployed.definitions
    for source in definitions.sources.values():
        if isinstance(source, EventSource) and (not tables or f"events/{source.name}" in tables):
            found = remove_old(store, definitions, source, dry_run=dry_run)
            yield from () if found is None else (found,)
    for view in definitions.views.values():
        if isinstance(view, BatchView) and (not tables or f"superseded/{view.key}" in tables):
            found = remove_superseded(store, view, time.time_ns() // 1_000, dry_run=dry_run)
            yield from () if found is None else (found,)


def _row(kept: Kept) -> list[str]:
    counts = (kept.files_before, kept.files_after, len(kept.ordered), kept.compacted, len(kept.busy), kept.removed)
    return [kept.table, *map(str, counts)]
