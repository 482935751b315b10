"""Where the cut goes: to the end of the last gapless day, never past the watermark, never back."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from forebay import Count
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.codec import NO_CUT
from forebay.instants import MINUTE_US
from forebay.offline.archive import RETAINED
from forebay.online.keys import Keys
from forebay.online.progress import PartitionProgress, Progress
from forebay.online.slot_state import read_cut
from tests.backfill.shop import sales, user_sales
from tests.backfill.world import World, day, sale
from tests.places import everywhere

KEYS = ["u1", "u2"]


def publish(world: World) -> tuple[int | None, str]:
    """Publish; the cut and why it is there."""
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    if report.cut_us is not None:
        assert read_cut(world.redis, world.namespace, user_sales) == report.cut_us
    return report.cut_us, report.remark


def test_nothing_folded_is_nothing_published(world: World) -> None:
    """
    day   0   1   2
    fold  .   ■   ■      the first day is missing
    """
    fold_dates(world.store, user_sales, day(1), day(3))
    cut, remark = publish(world)
    assert (cut, "2024-01-01" in remark) == (None, True)
    assert read_cut(world.redis, world.namespace, user_sales) == NO_CUT


@everywhere
def test_the_cut_stops_at_a_gap_and_goes_on_when_it_is_filled(world: World) -> None:
    """
    day   0   1   2   3
    fold  ■   ■   .   ■      cut at the start of 2, then at the end of 3
    """
    world.load([sale(number, day(number, 1)) for number in range(4)])
    fold_dates(world.store, user_sales, day(0), day(2))
    fold_dates(world.store, user_sales, day(3), day(4))
    assert publish(world)[0] == day(2)
    fold_dates(world.store, user_sales, day(2), day(3))
    assert publish(world)[0] == day(4)
    assert world.online(user_sales, KEYS, day(4)) == world.expected(user_sales, KEYS, day(4))


@pytest.mark.parametrize(
    ("newest", "cut"),
    [
        (day(3) + 10 * MINUTE_US, day(3)),  # exactly: all of day 2 has arrived
        (day(3) + 10 * MINUTE_US - 1, day(2)),  # a microsecond less, and day 2 may still get events
        (day(3, 5), day(3)),
        (day(0, 5), None),  # less than a day of stream
    ],
)
def test_the_cut_stays_behind_the_watermark_less_lateness(world: World, newest: int, cut: int | None) -> None:
    world.load([sale(number, day(number, 1)) for number in range(2)])
    world.stream([sale(100, newest)])
    fold_dates(world.store, user_sales, day(0), day(4))
    assert publish(world)[0] == cut


def test_the_cut_waits_for_the_archive_of_a_partition_that_the_stream_has_begun(world: World) -> None:
    """
    day       0   1   2
    folded    ■   ■   ■
    online            ● of partition 0        the archive holds nothing of it: its events may be of any day
    """
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    begun = Progress(1, {"a": PartitionProgress(4, NO_CUT), "0": PartitionProgress(7, day(2, 5))})
    world.redis.set(Keys(world.namespace).progress(user_sales.key, [5])[0], begun.encode())
    cut, remark = publish(world)
    assert (cut, "partition '0'" in remark) == (None, True)
    world.stream([sale(100, day(4, 5))])
    assert publish(world)[0] == day(3)


@pytest.mark.parametrize("folded", [[], [(0, 1)]])
def test_history_that_was_raised_past_archived_events_does_not_hide_them(
    world: World, folded: list[tuple[int, int]]
) -> None:
    """
    day       0   1   2   3
    archived  ■       ■   ■
    history           ├──────     raised by a flow's definitions, or by an apply before an older event came
    folded            ■   ■       then 0 and 1, once history begins on 0 again
    """
    world.stream([sale(number, day(number, 1)) for number in (0, 2, 3, 4)])
    raised = replace(user_sales, source=replace(sales, history_start="2024-01-03"))
    for first, end in [*folded, (2, 4)]:
        fold_dates(world.store, raised, day(first), day(end))
    report = publish_view(world.redis, world.namespace, world.store, raised)
    assert report.cut_us == (day(1) if folded else None)
    said = "the archive holds events from 2024-01-01 on, before history_start 2024-01-03: set it back, apply, and"
    assert said in report.remark
    fold_dates(world.store, user_sales, day(0), day(2))
    assert publish(world)[0] == day(4)
    assert world.online(user_sales, KEYS, day(4)) == world.expected(user_sales, KEYS, day(4))


def test_history_that_begins_after_what_was_removed_is_published(world: World) -> None:
    """
    day       0   1   2   3   4   5
    archived  ●   □   ■   ■   ■   ■     all before 2 was removed; the event of 0 came since, and goes the next time
    history           ├────────────     raised past what is gone
    """
    features = [Count("bought", windows=["24h"], default=0)]
    raised = replace(user_sales, source=replace(sales, history_start="2024-01-03"), features=features)
    world.stream([sale(number, day(number, 1)) for number in (1, 2, 3, 4, 5)])
    world.store.archive(sales).table.remove("date < '2024-01-03'", {RETAINED: day(2)})
    world.stream([sale(0, day(0, 1))])
    fold_dates(world.store, raised, day(2), day(5))
    assert publish_view(world.redis, world.namespace, world.store, raised).cut_us == day(5)


def test_the_cut_never_goes_back(world: World) -> None:
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    assert publish(world)[0] == day(3)
    world.stream([sale(100, day(1, 5))])  # a stream begins, far behind
    cut, remark = publish(world)
    assert (cut, "stays" in remark) == (day(3), True)


@everywhere
def test_a_day_that_was_folded_too_early_stops_the_cut_until_it_is_folded_again(world: World) -> None:
    """
    day        0      1      2
    folded     ■      ■·····             at noon of day 1, before its evening
    stream     ────────────────────┤     then reaches day 2
    """
    world.stream([sale(0, day(0, 1)), sale(1, day(1, 11))])
    fold_dates(world.store, user_sales, day(0), day(2))
    world.stream([sale(2, day(1, 20)), sale(3, day(2, 8))])
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.cut_us, report.behind, "again" in report.remark) == (day(1), ("2024-01-02",), True)
    fold_dates(world.store, user_sales, day(1), day(2))
    assert publish(world)[0] == day(2)


def test_a_day_that_was_folded_too_early_stops_the_cut_although_it_is_marked_for_repair(world: World) -> None:
    """
    day        0      1        2
    stream     ─────────┤ ●    ┤      a late event of day 1 marks it; its evening came after the fold
    """
    world.stream([sale(0, day(0, 1)), sale(1, day(1, 11))])
    fold_dates(world.store, user_sales, day(0), day(2))
    world.stream([sale(2, day(1, 20)), sale(3, day(1, 5)), sale(4, day(2, 8))])
    world.store.repairs().append([("sales", "2024-01-02", "late")], day(9))
    assert publish(world)[0] == day(1)
    fold_dates(world.store, user_sales, day(1), day(2))
    world.stream([sale(5, day(1, 6))])
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.cut_us, report.behind) == (day(2), ("2024-01-02",)), "now nothing but a late event is missing"


def test_a_day_that_is_marked_for_repair_is_reported_and_does_not_stop_the_cut(world: World) -> None:
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    publish(world)
    world.load([sale(100, day(0, 5))])
    world.store.repairs().append([("sales", "2024-01-01", "late")], day(9))
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.cut_us, report.behind) == (day(3), ("2024-01-01",))
    fold_dates(world.store, user_sales, day(0), day(1))
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.cut_us, report.behind) == (day(3), ())
    assert world.online(user_sales, KEYS, day(3)) == world.expected(user_sales, KEYS, day(3))


@everywhere
def test_days_before_the_cut_that_got_events_since_are_marked_for_repair_once(world: World) -> None:
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    publish(world)
    assert world.store.repairs().scan("sales").num_rows == 0
    world.load([sale(100, day(1, 5)), sale(101, day(3, 5))])
    for _ in range(2):
        assert publish(world)[0] == day(3)
        assert world.store.repairs().scan("sales")["day"].to_pylist() == ["2024-01-02"]


@everywhere
def test_an_entity_that_a_repair_empties_is_deleted(world: World) -> None:
    world.load([sale(0, day(0, 1), "u1"), sale(1, day(0, 1), "u2")])
    fold_dates(world.store, user_sales, day(0), day(1))
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.rows, report.deleted) == (2, 0)
    table = world.store.tiles(user_sales)
    _, tiles = table.read()
    table.overwrite(day(0), day(1), ["u1"], tiles.take(tiles.code == 0), {"2024-01-01": 2})
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert (report.rows, report.deleted) == (1, 1)
