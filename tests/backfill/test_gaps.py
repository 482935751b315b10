"""What is archived and not online is named: loaded days that are not folded or not published, and no others."""

from __future__ import annotations

import pytest

from forebay.backfill import publication as publication_module
from forebay.backfill.gaps import MARKED, gap, mark_gaps
from forebay.backfill.publication import publish_view, tiles_before
from forebay.backfill.tiles import fold_dates
from forebay.core.codec import NO_CUT
from forebay.deploy.filled import unfilled
from forebay.online.publish import publish_tiles
from forebay.online.read import OnlineReader
from forebay.online.slot_state import read_cut
from tests.backfill.shop import user_sales
from tests.backfill.world import World, day, plain, sale
from tests.places import everywhere


def found(world: World) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Days to be folded, days to be published."""
    missing = gap(world.store, user_sales, read_cut(world.redis, world.namespace, user_sales))
    return missing.unfolded, missing.unpublished


@everywhere
def test_loaded_days_are_missing_until_they_are_folded_and_published(world: World) -> None:
    assert found(world) == ((), ())
    world.load([sale(number, day(number, 1)) for number in range(4)])
    days = ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04")
    assert found(world) == (days, ())
    fold_dates(world.store, user_sales, day(0), day(2))
    assert found(world) == (days[2:], days[:2])
    publish_view(world.redis, world.namespace, world.store, user_sales)
    assert found(world) == (days[2:], ())
    missing = gap(world.store, user_sales, day(2))
    assert str(missing) == "in training sets and not online: 2024-01-03 to 2024-01-04 not folded"
    fold_dates(world.store, user_sales, day(0), day(4))
    publish_view(world.redis, world.namespace, world.store, user_sales)
    assert found(world) == ((), ())
    world.load([sale(100, day(1, 2)), sale(101, day(5, 2))])
    assert found(world) == (("2024-01-02", "2024-01-06"), ())


def test_what_a_stream_brought_is_online_without_a_publication(world: World) -> None:
    """
    day       0   1   2   3
    stream    ●   ●   ●   ●
    loaded        ●
    """
    world.stream([sale(number, day(number, 1)) for number in range(4)])
    assert found(world) == ((), ())
    assert not gap(world.store, user_sales, NO_CUT)
    world.load([sale(100, day(1, 2))])
    assert found(world) == (("2024-01-02",), ())


def marked(world: World, keys: list[str], at_us: int) -> tuple[dict[str, list[str]], set[int]]:
    """The statuses of each feature, and up to where events are missing, as a read finds them."""
    read = OnlineReader(world.redis, world.namespace).read([user_sales], {user_sales.key: keys}, at_us, at_us)
    view = read.views[user_sales.key]
    return {name: statuses for name, _, statuses in plain(view.columns)}, set(view.missing.tolist())


@everywhere
def test_a_read_says_of_which_values_loaded_events_are_missing(world: World) -> None:
    """
    day       0   1   2   3   4   5   6   7   8   9
    loaded    u1  u1
    stream        u1                          u1  T
    """
    world.stream([sale(100, day(8, 1))])
    world.load([sale(1, day(0, 1)), sale(2, day(1, 3))])
    at_us, keys, named = day(9), ["u1", "nobody"], (world.redis, world.namespace, world.store)
    assert marked(world, keys, at_us)[1] == {NO_CUT}
    assert mark_gaps(*named, [user_sales]) == {
        user_sales.key: f"in training sets and not online: 2024-01-01 to 2024-01-02 not folded; {MARKED}"
    }
    assert unfilled(*named[:2], [user_sales]) == [user_sales.key], "a mark is no value"
    assert marked(world, keys, at_us) == (
        {
            "bought_1h": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "bought_24h": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "bought_7d": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "bought_lifetime": ["UNAVAILABLE", "UNAVAILABLE"],
            "spent_24h": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "spent_7d": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "weight_mean_24h": ["DEFAULT_MISSING", "DEFAULT_MISSING"],
            "last_amount_lifetime": ["UNAVAILABLE", "UNAVAILABLE"],
        },
        {day(1, 3) + 1},
    ), "no stream has written here; windows that begin after what was loaded lack nothing"
    assert marked(world, keys, day(8))[0]["bought_7d"] == ["UNAVAILABLE"] * 2, "[day 1, day 8) holds an event"
    fold_dates(world.store, user_sales, day(0), day(1))
    publish_view(*named[:2], world.store, user_sales)
    assert marked(world, keys, at_us)[1] == {day(1, 3) + 1}
    assert marked(world, keys, at_us)[0]["bought_lifetime"] == ["STALE", "UNAVAILABLE"], "some of it is online"
    fold_dates(world.store, user_sales, day(1), day(8))
    publish_view(*named[:2], world.store, user_sales)
    assert marked(world, keys, at_us)[1] == {NO_CUT}
    assert marked(world, keys, at_us)[0]["bought_lifetime"] == ["PRESENT", "DEFAULT_MISSING"]
    assert mark_gaps(*named, [user_sales]) == {}
    world.load([sale(3, day(1, 4))])
    assert list(mark_gaps(*named, [user_sales])) == [user_sales.key]
    assert unfilled(*named[:2], [user_sales]) == []
    assert marked(world, keys, at_us)[1] == {day(1, 4) + 1}, "before the cut as well"
    assert marked(world, keys, at_us)[0]["bought_lifetime"] == ["STALE", "UNAVAILABLE"]


def test_late_events_of_a_stream_mark_nothing(world: World) -> None:
    """They are the exception that the law has up to the repair of their date, which is on record."""
    world.load([sale(1, day(0, 1))])
    world.stream([sale(2, day(4, 1))])
    fold_dates(world.store, user_sales, day(0), day(3))
    publish_view(world.redis, world.namespace, world.store, user_sales)
    world.stream([sale(3, day(1, 1))])
    assert mark_gaps(world.redis, world.namespace, world.store, [user_sales]) == {
        user_sales.key: "in training sets and not online: 2024-01-02 not folded"
    }
    assert marked(world, ["u1"], day(5))[1] == {NO_CUT}


def test_what_is_loaded_while_a_publication_is_under_way_is_marked(world: World) -> None:
    """The publication has read what it publishes; it looks again before it moves the cut, under its lease."""
    world.load([sale(1, day(0, 1))])
    fold_dates(world.store, user_sales, day(0), day(1))
    keys, tiles = tiles_before(world.store, user_sales, day(1))

    def missing() -> int:
        world.load([sale(2, day(0, 2))])
        return gap(world.store, user_sales, day(1)).until_us

    publish_tiles(world.redis, world.namespace, user_sales, keys, tiles, day(1), missing=missing)
    assert marked(world, ["u1"], day(2))[1] == {day(0, 2) + 1}


def test_a_publication_reports_what_it_leaves_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And reads a lifetime some tiles at a time."""
    monkeypatch.setattr(publication_module, "TILES_MAX", 5)
    world.load([sale(number, day(number, 1), ("u1", "u2")[number % 2]) for number in range(9)])
    fold_dates(world.store, user_sales, day(0), day(7))
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert report.missing == "in training sets and not online: 2024-01-08 to 2024-01-09 not folded"
    fold_dates(world.store, user_sales, day(7), day(9))
    report = publish_view(world.redis, world.namespace, world.store, user_sales)
    assert report.missing == "all that is archived is online"
    assert world.online(user_sales, ["u1", "u2"], day(9)) == world.expected(user_sales, ["u1", "u2"], day(9))
