"""A new version takes over the tiles that serve, day by day, and equals a fold of the archive."""

from __future__ import annotations

import decimal
from typing import Any

import msgspec
import numpy as np
import pytest

from forebay import Count, CountDistinct, Last, Max, Mean, Sum, Variance, WindowedView
from forebay.backfill.publication import publish_view
from forebay.backfill.reuse import donors_of
from forebay.backfill.tiles import fold_dates
from forebay.instants import HOUR_US, MINUTE_US
from forebay.offline.archive import Archive
from tests.backfill.shop import counter_sales, user_sales
from tests.backfill.world import World, day, sale, some_sales

KEYS = ["u1", "u2", "u3", "%C3%BC%7C4", "u5", "nobody"]
WIDER = [
    Count("bought", windows=["24h", "30d", None], default=0),
    Sum("spent", of="amount", windows=["7d", "30d"], default=0),
    Mean("mean_spent", of="amount", windows=["24h"], default=0.0),
    Last("last_amount", of="amount", windows=[None], default=None),
]


def version(number: int, **fields: Any) -> WindowedView:
    """`user_sales` as another version."""
    return msgspec.structs.replace(user_sales, version=number, **fields)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, int | None]]:
    """What is read of the archive, from when to when."""
    found: list[tuple[int | None, int | None]] = []
    scan = Archive.scan

    def watched(archive: Archive, columns: Any, start_us: Any = None, end_us: Any = None, entities: Any = None) -> Any:
        found.append((start_us, end_us))
        return scan(archive, columns, start_us, end_us, entities)

    monkeypatch.setattr(Archive, "scan", watched)
    return found


def test_a_wider_window_and_a_mean_of_what_is_summed_read_nothing_of_the_archive(
    any_world: World, reads: list[Any]
) -> None:
    world, wider, folded = any_world, version(2, features=WIDER), version(3, features=WIDER)
    world.load(some_sales(600, 12))
    fold_dates(world.store, user_sales, day(0), day(12))
    reads.clear()
    done = fold_dates(world.store, wider, day(0), day(12), [counter_sales, user_sales])
    assert (done.dates, done.reused, done.events, reads) == (12, 12, 0, [])
    fold_dates(world.store, folded, day(0), day(12))
    assert same(world, wider, folded)
    assert publish_view(world.redis, world.namespace, world.store, wider).cut_us == day(12)
    for hour in (0.0, 5.5, 24.0 * 9):
        assert world.online(wider, KEYS, day(12, hour)) == world.expected(wider, KEYS, day(12, hour))


def test_days_that_are_behind_or_not_folded_are_folded_from_the_archive(world: World, reads: list[Any]) -> None:
    """
    day      0   1   2   3   4
    v1       ■   ■   ■·  .   ■       2 has got an event since, 3 is not folded
    v2       →   →   ■   ■   →
    """
    world.load([sale(number, day(number, 1)) for number in range(5)])
    fold_dates(world.store, user_sales, day(0), day(3))
    fold_dates(world.store, user_sales, day(4), day(5))
    world.load([sale(9, day(2, 5))])
    reads.clear()
    wider, folded = version(2, features=WIDER), version(3, features=WIDER)
    done = fold_dates(world.store, wider, day(0), day(5), [user_sales])
    assert (done.reused, done.events, reads) == (3, 3, [(day(2), day(4))])
    fold_dates(world.store, folded, day(0), day(5))
    assert same(world, wider, folded)
    assert world.store.tiles(wider).behind(world.store.archive(wider.source).events_by_date()) == {}


def test_after_a_stream_has_run_a_day_is_taken_over_with_the_watermark_that_it_was_folded_under(world: World) -> None:
    world.load([sale(0, day(0, 1)), sale(1, day(1, 1))])
    fold_dates(world.store, user_sales, day(0), day(1))
    world.stream([sale(2, day(1, 2)), sale(3, day(2, 3))])
    fold_dates(world.store, user_sales, day(1), day(2))
    seen = world.store.tiles(user_sales).watermarks_us()
    world.stream([sale(4, day(3, 3))])
    wider = version(2, features=WIDER)
    done = fold_dates(world.store, wider, day(0), day(2), [user_sales])
    assert done.reused == 1, "of the first day nobody knows what a stream had brought"
    assert world.store.tiles(wider).watermarks_us() == {"2024-01-01": day(3, 3), "2024-01-02": seen["2024-01-02"]}


def test_of_versions_that_are_declared_together_each_takes_what_the_old_one_has(world: World, reads: list[Any]) -> None:
    """
    day      0   1   2
    v1       ■   ■   ■
    v2       →   →   →      v3 would serve as well, and has no tiles
    v3       →   →   →      by now v2 serves best
    """
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    second, third = version(2, features=WIDER), version(3, features=WIDER)
    reads.clear()
    for one in (second, third):
        assert fold_dates(world.store, one, day(0), day(3), [user_sales, second, third]).reused == 3
    assert reads == []
    assert same(world, second, third)


MORE = [
    *user_sales.features,
    Max("most", of="amount", windows=["7d", None], default=0),
    CountDistinct("shops", of="shop", windows=["24h"], default=0),
    Count("hops0", of="weight", windows=["1h"], default=0),
]


def test_what_a_donor_lacks_is_folded_alone_and_laid_beside_what_it_has(
    any_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    v1     total_amount  present_amount  earliest… latest_amount  moments_weight …
    v2     the same                                                                highest_amount, hashes of shops
    """
    world, more, folded = any_world, version(2, features=MORE), version(3, features=MORE)
    world.load(some_sales(600, 12))
    fold_dates(world.store, user_sales, day(0), day(12))
    (donor,) = donors_of(more, [counter_sales, user_sales])
    assert {partial.column for partial in donor.lacking} == {"amount", "shop"}
    columns: list[str] = []
    scan = Archive.scan

    def watched(archive: Archive, names: Any, *arguments: Any) -> Any:
        columns.extend(names)
        return scan(archive, names, *arguments)

    monkeypatch.setattr(Archive, "scan", watched)
    done = fold_dates(world.store, more, day(0), day(12), [counter_sales, user_sales])
    assert (done.dates, done.reused, done.events) == (12, 12, 600)
    assert "weight" not in columns, "its partials are the donor's"
    fold_dates(world.store, folded, day(0), day(12))
    assert same(world, more, folded)
    assert same_cells(world, more, folded)
    assert publish_view(world.redis, world.namespace, world.store, more).cut_us == day(12)
    for hour in (0.0, 5.5, 24.0 * 9):
        assert world.online(more, KEYS, day(12, hour)) == world.expected(more, KEYS, day(12, hour))


def test_events_that_come_while_a_donor_is_completed_make_the_day_be_folded_whole(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, folded = version(2, features=MORE), version(3, features=MORE)
    world.load([sale(number, day(number // 4, number % 4)) for number in range(12)])
    fold_dates(world.store, user_sales, day(0), day(3))
    scan, late = Archive.scan, [sale(98, day(1, 9), "u2"), sale(99, day(1, 2))]

    def meanwhile(archive: Archive, *arguments: Any) -> Any:
        if late:
            world.load([late.pop()])
        return scan(archive, *arguments)

    monkeypatch.setattr(Archive, "scan", meanwhile)
    done = fold_dates(world.store, more, day(0), day(3), [user_sales])
    assert (done.dates, done.reused) == (3, 0)
    fold_dates(world.store, folded, day(0), day(3))
    assert same(world, more, folded)
    assert world.store.tiles(more).behind(world.store.archive(more.source).events_by_date()) == {}


SUMMED = [*user_sales.features, CountDistinct("shops", of="shop", windows=["24h"], default=0)]
VARIED = [*SUMMED, Variance("varied", of="amount", windows=["7d"], default=0.0)]
HIGHEST = [Max("most", of="amount", windows=["7d"], default=0)]


@pytest.mark.parametrize(
    ("theirs", "mine"),
    [(SUMMED, VARIED), (VARIED, SUMMED), (VARIED, VARIED), (VARIED, VARIED + HIGHEST), (SUMMED, VARIED + HIGHEST)],
)
def test_what_is_too_large_for_squares_counts_in_all_partials_of_a_column_or_in_none(
    world: World, theirs: list[Any], mine: list[Any]
) -> None:
    """More than 2^47 units are null in each partial of a column of which squares are summed, and nowhere else."""
    sold = some_sales(200, 4)
    sold[50]["amount"] = decimal.Decimal(2 * 10**12)
    world.load(sold)
    donor, taken, folded = version(2, features=theirs), version(3, features=mine), version(4, features=mine)
    fold_dates(world.store, donor, day(0), day(4))
    assert fold_dates(world.store, taken, day(0), day(4), [donor]).reused == 4
    fold_dates(world.store, folded, day(0), day(4))
    assert same(world, taken, folded)


def same_cells(world: World, one: WindowedView, other: WindowedView) -> bool:
    """Whether the cells of both are the same, by entity and tile."""
    return cells(world, one) == cells(world, other)


def cells(world: World, view: WindowedView) -> list[Any]:
    rows = world.store.tiles(view).rows()
    names = ["entity_key", "hop_us", "tile_start"]
    ragged = [name for name in rows.column_names if str(rows.schema.field(name).type).startswith("list")]
    assert ragged
    return sorted(rows.select([*names, *ragged]).to_pylist(), key=str)


@pytest.mark.parametrize(
    ("fields", "hop_us"),
    [
        ({"features": WIDER}, 15 * MINUTE_US),
        ({"features": [Count("n", windows=["7d"], default=0)]}, HOUR_US),
        ({"features": [Count("n", windows=["10m"], default=0)]}, None),  # a finer hop than any
        ({"features": [Max("most", of="amount", windows=["7d"], default=0)]}, None),  # a partial that is not there
        ({"features": WIDER, "where": "amount > 1"}, None),
        ({"features": WIDER, "entity": counter_sales.entity}, None),
        ({"features": WIDER, "source": msgspec.structs.replace(user_sales.source, dedupe="5m")}, None),
    ],
)
def test_what_serves_is_of_the_same_events_and_holds_all_partials(fields: dict[str, Any], hop_us: int | None) -> None:
    found = donors_of(version(2, **fields), [user_sales, version(2, **fields)])
    assert [donor.hop_us for donor in found] == ([] if hop_us is None else [hop_us])


def same(world: World, one: WindowedView, other: WindowedView) -> bool:
    """Whether both have the same tiles, floats aside."""
    (keys, tiles), (keys2, tiles2) = world.store.tiles(one).read(), world.store.tiles(other).read()
    places = np.array([keys.index(key) for key in keys2])
    order, order2 = (
        np.lexsort((records["start"], records["ring"], code))
        for code, records in ((tiles.code, tiles.records), (places[tiles2.code], tiles2.records))
    )
    return all(
        (tiles.records[name][order] == tiles2.records[name][order2]).all() for name in tiles.records.dtype.names or ()
    )
