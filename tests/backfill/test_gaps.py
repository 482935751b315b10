"""What is archived and not online is named: loaded days that are not folded or not published, and no others."""

from __future__ import annotations

import pytest

from forebay.backfill import publication as publication_module
from forebay.backfill.gaps import gap
from forebay.backfill.publication import publish_view, read_cut
from forebay.backfill.tiles import fold_dates
from forebay.core.codec import NO_CUT
from tests.backfill.shop import user_sales
from tests.backfill.world import World, day, sale


def found(world: World) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Days to be folded, days to be published."""
    missing = gap(world.store, user_sales, read_cut(world.redis, world.namespace, user_sales))
    return missing.unfolded, missing.unpublished


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
