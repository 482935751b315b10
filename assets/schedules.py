"""Schedules from `refresh`: at each tick, what is due of a view is computed and published.

    partitions      …──●──●──●──○──○──┤ tick          ● materialized    ○ due: from the newest ● to the tick

A tick asks for all partitions since the newest one that is materialized, in one run, so that a daemon that was down
leaves no gap; where nothing is materialized yet it asks for the last one alone, since a first backfill is a person's
decision.
"""

from __future__ import annotations

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
from forebay.language.view import AnyView

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
        if partitions is None:
            return RunRequest()
        names = partitions.get_partition_keys(current_time=context.scheduled_execution_time)
        if not names:
            return SkipReason(f"no partition of {view.key} has begun")
        first, last = first_due(names, context.instance.get_materialized_partitions(offline_key(view))), names[-1]
        return RunRequest(tags={RANGE_START: first, RANGE_END: last})

    return ScheduleDefinition(
        name=f"refresh_{view.asset_name}",
        cron_schedule=view.refresh,
        job=job,
        execution_fn=due,
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.RUNNING,
    )


def first_due(names: list[str], materialized: set[str]) -> str:
    """The first of the partitions that a tick asks for: the newest materialized one, which may have been unfinished."""
    done = [name for name in names if name in materialized]
    return done[-1] if done else names[-1]
