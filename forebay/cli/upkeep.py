"""The command that keeps the tables in order, and removes what is not to be kept: `maintain`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
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
    from forebay.offline.maintenance import Maintenance
    from forebay.settings import Settings

    deployed = Deployed(Settings.from_env())
    work = Maintenance(
        deployed.offline, deployed.definitions, tables or (), older_than_hours=older_than_hours, dry_run=dry_run
    )
    removed, kept = list(work.remove_unkept(time.time_ns() // 1_000)), list(work.keep_up())
    if as_json:
        print_json({"retention": [vars(one) for one in removed], "tables": [vars(one) for one in kept]})
        return
    for one in removed:
        rows = ", ".join(f"{count:,} of {path}" for path, count in one.rows.items()) or "none"
        what = "would be removed" if dry_run else "removed"
        print(f"{one.name} is kept from {one.kept_from} on ({one.remark}); rows {what}: {rows}")
    headers = ["table", "#files before", "#after", "#dates ordered", "#compacted", "#left to writers", "#files removed"]
    print_table("Would be done" if dry_run else "Done", headers, [_row(one) for one in kept if one.files_before])


def _row(kept: Kept) -> list[str]:
    counts = (kept.files_before, kept.files_after, len(kept.ordered), kept.compacted, len(kept.busy), kept.removed)
    return [kept.table, *map(str, counts)]
