"""Pauses lie between the split and the end, and a partition is named only when it is over."""

from __future__ import annotations

import pytest

from demo.timeline import partitions, timeline
from forebay.instants import DAY_US, HOUR_US, day_us


@pytest.mark.parametrize(("history_days", "days"), [(348, 18), (5, 2), (1, 1), (10, 3)])
def test_pauses_are_in_order_and_end_at_the_end(history_days: int, days: int) -> None:
    line = timeline(history_days=history_days, days=days)
    assert line.split_us == day_us("2013-01-01") + history_days * DAY_US
    assert list(line.pauses_us) == sorted(set(line.pauses_us))
    assert line.split_us < line.pauses_us[0]
    assert line.pauses_us[-1] == line.end_us


def test_pauses_differ_in_their_time_of_day() -> None:
    line = timeline()
    assert len({us % DAY_US for us in line.pauses_us}) == len(line.pauses_us) == 4


def test_partitions_are_named_as_dagster_names_them() -> None:
    noon = day_us("2013-12-17") + 12 * HOUR_US + 1
    assert partitions(day_us("2013-12-15"), noon, DAY_US).text == "2013-12-15...2013-12-16"
    assert partitions(day_us("2013-12-17"), noon, HOUR_US).text == "2013-12-17-00:00...2013-12-17-11:00"


def test_no_partition_is_over_before_it_began() -> None:
    noon = day_us("2013-12-17") + 12 * HOUR_US
    assert not partitions(day_us("2013-12-17"), noon, DAY_US)
    assert len(list(partitions(day_us("2013-12-17"), noon, HOUR_US))) == 12
