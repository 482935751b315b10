"""Schedules from `refresh`: at each tick, what is due of a view is computed and published.

    partitions      …──●──●──●──○──○──┤ tick          ● materialized    ○ due: from the newest ● to the tick

A tick asks for all partitions since the newest one that is materialized, in one run, so that a daemon that was down
leaves no gap. Where nothing is materialized yet, or more than CATCH_UP_MAX partitions are due, it asks for the last
one alone and says so: a long backfill is a person's decision. A tick whose table isn't there is skipped.
"""

from __future__ import annotations

from collections.abc import Sequence

from dagster import (
    AssetSelection,
    DefaultScheduleStatus,
    RunRequest,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
    define_asset_job,
)

from assets.keys import offline_key, online_key
from assets.partitions import partitions_of
from forebay.errors import ForebayError
from forebay.language.source import TableSource
from forebay.language.view import AnyView, BatchView
from forebay.settings import Settings

CATCH_UP_MAX = 200
"""Partitions of one scheduled run: eight days of hours, half a year of days."""
NOTE = "forebay/catch_up"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def refresh_schedule(view: AnyView) -> ScheduleDefinition | None:
    """The schedule of a view; `None` where it declares no refresh."""
    if view.refresh is None:
        return None
    partitions = partitions_of(view)
    job = define_asset_job(
        f"refresh_{view.asset_name}",
        AssetSelection.assets(offline_key(view), online_key(view)),
        description=f"Compute what is due of {view.key} and publish it.",
    )

    def due(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        missing = missing_table(view)
        if missing is not None:
            return SkipReason(missing)
        if partitions is None:
            return RunRequest()
        names = partitions.get_partition_keys(current_time=context.scheduled_execution_time)
        if not names:
            return SkipReason(f"no partition of {view.key} has begun")
        first, note = first_due(names, context.instance.get_materialized_partitions(offline_key(view)))
        return RunRequest(tags={RANGE_START: first, RANGE_END: names[-1], NOTE: note})

    return ScheduleDefinition(
        name=f"refresh_{view.asset_name}",
        cron_schedule=view.refresh,
        job=job,
        execution_fn=due,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
    )


def first_due(names: Sequence[str], materialized: set[str]) -> tuple[str, str]:
    """The first partition that a tick asks for, and why.

    It is the newest materialized one, which may have been under way when it was computed.
    """
    newest = next((number for number in reversed(range(len(names))) if names[number] in materialized), None)
    if newest is None:
        return names[-1], "nothing is materialized: the last partition alone; backfill the others from the UI"
    due = len(names) - newest
    if due > CATCH_UP_MAX:
        return names[-1], f"{due} partitions are due, more than {CATCH_UP_MAX}: the last one alone; backfill the others"
    return names[newest], f"{due} since the newest materialized one"


def missing_table(view: AnyView) -> str | None:
    """What is wrong with the files that a batch view reads; `None` if they are there."""
    from forebay.offline.table_source import check_files

    home = Settings.from_env().home
    for source in view.sources if isinstance(view, BatchView) else ():
        if isinstance(source, TableSource) and source.path is not None:
            try:
                check_files(source, home)
            except ForebayError as error:
                return str(error)
    return None
