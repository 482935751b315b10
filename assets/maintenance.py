"""The assets of the tables' maintenance: `forebay maintain` as Dagster runs and shows it, with a job and a schedule.

One asset per table, `maintained/…`, downstream of what fills the table; all that are chosen are one run. What it does
is `forebay.offline.maintenance`, on the definitions that are deployed, as the command does.
No `from __future__ import annotations` here: Dagster reads the annotations of an asset's function as they are.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    BackfillPolicy,
    Config,
    DefaultScheduleStatus,
    MaterializeResult,
    ScheduleDefinition,
    define_asset_job,
    multi_asset,
)

from assets.keys import history_key, maintained_key, offline_key, source_key
from assets.partitions import wall_clock_us
from assets.reporting import clear_errors
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import WindowedView

GROUP, NAME = "maintenance", "maintain"
DAILY = "17 3 * * *"
"""At night (UTC), and not at the full hour, when views are refreshed."""


class Maintain(Config):
    """With `dry_run` only what would be done is told; garbage is removed once it is as old (24 hours or more)."""

    dry_run: bool = False
    older_than_hours: int = 168


def tables_of(definitions: Definitions) -> dict[str, tuple[AssetKey, list[AssetKey]]]:
    """The paths of the tables of some definitions, the asset of each one's maintenance and what fills it."""
    filled: dict[str, list[AssetKey]] = {}
    for source in definitions.sources.values():
        if isinstance(source, EventSource):
            filled[f"events/{source.name}"] = [source_key(source)]
    for view in definitions.views.values():
        if isinstance(view, WindowedView):
            filled[f"tiles/{view.key}"] = [offline_key(view)]
            filled[f"streamed/{view.key}"] = [source_key(view.source)]
        else:
            filled |= {f"{folder}/{view.key}": [offline_key(view)] for folder in ("features", "superseded", "newest")}
        if view.history is not None:
            filled[f"history/{view.key}"] = [history_key(view)]
    filled |= {"dead_letters": [], "repairs": [], "revived": []}
    return {path: (maintained_key(path.replace("@", "_v")), deps) for path, deps in filled.items()}


def maintained_asset(definitions: Definitions) -> AssetsDefinition:
    """The maintenance of all tables, any of which may be chosen alone."""
    tables = tables_of(definitions)
    specs = [
        AssetSpec(
            key,
            deps=deps,
            description=f"Upkeep of {path}: what is not kept goes, files are put in order, garbage is removed.",
            group_name=GROUP,
            kinds={"deltalake"},
            skippable=True,
        )
        for path, (key, deps) in tables.items()
    ]

    @multi_asset(specs=specs, name="maintained", can_subset=True, backfill_policy=BackfillPolicy.single_run())
    def maintained(context: AssetExecutionContext, config: Maintain) -> Iterator[MaterializeResult]:
        from forebay.client.deployed import Deployed
        from forebay.offline.maintenance import Maintenance
        from forebay.offline.upkeep import tables as deployed_tables
        from forebay.settings import Settings

        chosen = {path: key for path, (key, _) in tables.items() if key in context.selected_asset_keys}
        with clear_errors(), closing(Deployed(Settings.from_env())) as deployed:
            there = {table.path for table, _ in deployed_tables(deployed.offline, deployed.definitions)}
            names = [path for path in chosen if path in there]
            if beside := chosen.keys() - there:
                context.log.warning(f"of views and sources that are not deployed, and left alone: {sorted(beside)}")
            how = {"older_than_hours": config.older_than_hours, "dry_run": config.dry_run}
            work = Maintenance(deployed.offline, deployed.definitions, names, **how)
            removed: dict[str, int] = {}
            for one in work.remove_unkept(wall_clock_us()):
                context.log.info(f"{one.name} is kept from {one.kept_from} on ({one.remark}); rows gone: {one.rows}")
                removed |= one.rows
            for kept in work.keep_up():
                facts = {"dry_run": config.dry_run, "rows_removed": removed.get(kept.table, 0)}
                yield MaterializeResult(asset_key=chosen[kept.table], metadata={**facts, **shown(vars(kept))})

    return maintained


def shown(kept: Mapping[str, Any]) -> dict[str, Any]:
    """What upkeep did to a table, as metadata: dates are counted, the first are named."""
    facts = {name: value for name, value in kept.items() if not isinstance(value, tuple) and name != "table"}
    facts["files_removed"] = facts.pop("removed")
    return facts | {
        "dates_ordered": len(kept["ordered"]),
        "dates_left_to_writers": len(kept["busy"]),
        "left_to_writers": ", ".join(kept["busy"][:10]) or "none",
    }


maintain_job = define_asset_job(
    NAME,
    AssetSelection.key_prefixes("maintained"),
    description="Remove what is not kept, put the files of all tables in order, remove garbage, sum up logs.",
)
maintain_schedule = ScheduleDefinition(
    name=NAME,
    job=maintain_job,
    cron_schedule=DAILY,
    execution_timezone="UTC",
    default_status=DefaultScheduleStatus.RUNNING,
)
