"""Partitions as Dagster has them: named by their start in UTC, the same for every view with the same grain and start.

    daily    2013-01-01            hourly   2013-01-01-07:00

A daily view that is refreshed more than once a day has today's partition too: it is computed as of each tick until its
day is over. All others begin with the first partition that is over.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from dagster import AssetExecutionContext, DailyPartitionsDefinition, HourlyPartitionsDefinition, PartitionsDefinition
from dagster._utils.schedules import get_latest_completed_cron_tick, get_smallest_cron_interval

from forebay.instants import instant_us, moment
from forebay.language.view import AnyView, BatchView, WindowedView

GRAIN_S = {"daily": 86_400, "hourly": 3_600}


def partitions_of(view: AnyView) -> PartitionsDefinition | None:
    """The partitions of a view's tiles or features; `None` where it has none."""
    if isinstance(view, WindowedView):
        return _daily(view.source.history_start, 0)
    if view.partitions == "none" or view.first_day is None:
        return None
    if view.partitions == "daily":
        return _daily(view.first_day, int(refreshed_within(view)))
    return HourlyPartitionsDefinition(f"{view.first_day}-00:00", end_offset=int(refreshed_within(view)))


def history_days(view: AnyView) -> PartitionsDefinition:
    """The days of a view's history: all that are over since its own begins, or since 1970 where nothing says."""
    return _daily(view.source.history_start if isinstance(view, WindowedView) else view.first_day or "1970-01-01", 0)


def refreshed_within(view: BatchView) -> bool:
    """Whether a view is refreshed while a partition of it is under way."""
    if view.refresh is None:
        return False
    return get_smallest_cron_interval(view.refresh, "UTC").total_seconds() < GRAIN_S[view.partitions]


def window_us(context: AssetExecutionContext) -> tuple[int, int]:
    """`[start, end)` of the partitions of a run, in µs UTC."""
    window = context.partition_time_window
    return instant_us(window.start), instant_us(window.end)


def tick_us(cron: str | None, now_us: int) -> int | None:
    """The last tick of a schedule at or before now; `None` where there is no schedule."""
    if cron is None:
        return None
    tick = get_latest_completed_cron_tick(cron, moment(now_us), "UTC")
    return None if tick is None else instant_us(tick)


def wall_clock_us() -> int:
    """Now."""
    return time.time_ns() // 1_000


def _daily(first_day: str, end_offset: int) -> DailyPartitionsDefinition:
    return DailyPartitionsDefinition(datetime.fromisoformat(first_day).replace(tzinfo=UTC), end_offset=end_offset)
