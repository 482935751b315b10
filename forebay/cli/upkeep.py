"""The command that keeps the tables in order: `maintain`."""

from __future__ import annotations

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
    """Put the files of tables in order, merge small ones, remove garbage and sum up logs; no row is removed."""
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
    kept = [upkeep.keep_up(table, order, hours=older_than_hours, dry_run=dry_run) for table, order in chosen]
    if as_json:
        print_json([vars(one) for one in kept])
        return
    headers = ["table", "#files before", "#after", "#dates ordered", "#compacted", "#left to writers", "#files removed"]
    print_table("Would be done" if dry_run else "Done", headers, [_row(one) for one in kept if one.files_before])


def _row(kept: Kept) -> list[str]:
    counts = (kept.files_before, kept.files_after, len(kept.ordered), kept.compacted, len(kept.busy), kept.removed)
    return [kept.table, *map(str, counts)]
