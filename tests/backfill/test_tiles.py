"""Folding the archive: equal to the training path, repeatable, whole or not at all."""

from __future__ import annotations

import pytest

from forebay.backfill import tiles as folding
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.errors import RequestError
from forebay.instants import DAY_US
from forebay.offline.clustering import Clustering
from forebay.offline.tiles_columns import HOP_US
from forebay.offline.tiles_columns import START as START_COLUMN
from forebay.offline.upkeep import keep_up
from tests.backfill.shop import counter_sales, user_sales
from tests.backfill.world import World, day, sale, some_sales

KEYS = ["u1", "u2", "u3", "%C3%BC%7C4", "u5", "nobody"]


@pytest.mark.parametrize("chunk", [folding.EVENTS_MAX, 100])
def test_published_tiles_answer_as_the_training_path_does(
    any_world: World, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(folding, "EVENTS_MAX", chunk)
    world = any_world
    world.load(some_sales(800, 12))
    for view, keys in ((user_sales, KEYS), (counter_sales, ["NL|7", "NL|8"])):
        folded = fold_dates(world.store, view, day(0), day(12))
        assert (folded.dates, folded.events) == (12, 800)
        assert publish_view(world.redis, world.namespace, world.store, view).cut_us == day(12)
        for hour in (0.0, 0.5, 23.99, 24.0 * 6.5, 24.0 * 9):
            assert world.online(view, keys, day(12, hour)) == world.expected(view, keys, day(12, hour))


def test_a_lifetime_is_published_as_one_tile_and_counts_all(world: World) -> None:
    world.load([sale(number, day(number, 12), amount=f"{number}.50") for number in range(10)])
    fold_dates(world.store, user_sales, day(0), day(10))
    publish_view(world.redis, world.namespace, world.store, user_sales)
    answers = {name: values for name, values, _ in world.online(user_sales, ["u1"], day(40))}
    assert (answers["bought_lifetime"], str(answers["last_amount_lifetime"][0])) == ([10], "9.50")
    (blob,) = (world.redis.get(key) for key in world.redis.keys(f"{world.namespace}:*u1:user_sales@1:b"))
    assert world.online(user_sales, ["u1"], day(10)) == world.expected(user_sales, ["u1"], day(10))
    assert isinstance(blob, bytes)
    assert len(blob) < 9_000


def test_a_range_replaces_its_dates_and_no_others(world: World) -> None:
    """
    day      0     1     2     3
    first    ●     ●     ●     ●      folded 0…3
    then           ●●    ●●           folded 1…2, again and again
    """
    world.load([sale(number, day(number, 1)) for number in range(4)])
    fold_dates(world.store, user_sales, day(0), day(4))
    world.load([sale(10, day(1, 2)), sale(11, day(2, 2))])
    for _ in range(2):
        again = fold_dates(world.store, user_sales, day(1), day(3))
        assert (again.dates, again.events, again.entities) == (2, 4, 1)
    table = world.store.tiles(user_sales)
    assert table.folded() == {"2024-01-01": 1, "2024-01-02": 2, "2024-01-03": 2, "2024-01-04": 1}
    _, tiles = table.read(DAY_US, day(0), day(4))
    assert tiles.records["events"].tolist() == [1, 2, 2, 1]


def test_a_fold_that_fails_leaves_what_was_there(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folding, "EVENTS_MAX", 1)
    world.load([sale(number, day(number, 1)) for number in range(3)])
    fold_dates(world.store, user_sales, day(0), day(3))
    before = world.store.tiles(user_sales).read()
    world.load([sale(10, day(0, 2))])

    def full(*_: object) -> None:
        raise MemoryError

    chunks = folding._chunks(world.store.archive(user_sales.source).events_by_date(), {}, day(0), day(3))
    monkeypatch.setattr(folding, "_chunks", lambda *_: (next(chunks), full()))
    with pytest.raises(MemoryError):
        fold_dates(world.store, user_sales, day(0), day(3))
    after = world.store.tiles(user_sales).read()
    assert (after[0], after[1].records.tolist()) == (before[0], before[1].records.tolist())
    assert world.store.tiles(user_sales).folded()["2024-01-01"] == 1


def test_an_empty_day_is_known_to_be_empty(world: World) -> None:
    folded = fold_dates(world.store, user_sales, day(0), day(2))
    assert (folded.dates, folded.events, folded.rows, folded.entities) == (2, 0, 0, 0)
    assert world.store.tiles(user_sales).folded() == {"2024-01-01": 0, "2024-01-02": 0}


@pytest.mark.parametrize(
    ("first", "last"), [(day(0), day(0)), (day(0), day(0, 5)), (day(0, 1), day(2)), (day(2), day(1))]
)
def test_only_whole_dates_are_folded(world: World, first: int, last: int) -> None:
    with pytest.raises(RequestError, match="whole dates"):
        fold_dates(world.store, user_sales, first, last)


def test_tiles_in_order_are_the_same_tiles_and_are_folded_again_as_ever(any_world: World) -> None:
    world, order = any_world, Clustering(("user_id",), first=(HOP_US,), last=(START_COLUMN,))
    world.load(some_sales(300, 4))
    fold_dates(world.store, user_sales, day(0), day(4))
    table = world.store.tiles(user_sales)
    before, folded = table.read(), table.folded()
    assert keep_up(table.table, order).ordered == tuple(folded)
    assert keep_up(table.table, order).ordered == ()
    after = world.store.tiles(user_sales)
    assert after.folded() == folded
    assert sorted(after.read()[0]) == sorted(before[0])
    assert publish_view(world.redis, world.namespace, world.store, user_sales).cut_us == day(4)
    assert world.online(user_sales, KEYS, day(4)) == world.expected(user_sales, KEYS, day(4))
    world.load([sale(999, day(1, 1))])
    fold_dates(world.store, user_sales, day(1), day(2))
    assert keep_up(table.table, order).ordered == ("2024-01-02",)
