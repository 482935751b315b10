"""Two versions of a view stand side by side in every store, and can be compared on what is live.

events   day 0   ● ● ●     day 1   ● ●     day 2  ●  T         v1 counts all sales, v2 those above zero
batch    ├────────────────────────┤                            published, each version by itself
stream   ├───────────────────────────────────────┤             one flow writes both
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from forebay.errors import RequestError, UnknownNameError
from forebay.instants import moment
from forebay.online.scan import held, scan_view, some_entities
from tests.backfill.shop import counter_sales
from tests.backfill.world import day, sale
from tests.client.two_versions import FIRST, SECOND, V1, V2, Shop
from tests.places import everywhere

USERS = ["u1", "u2", "u3", "nobody"]
OLD = [sale(0, day(0, 1), "u1", "10.00"), sale(1, day(0, 2), "u1", "-4.00"), sale(2, day(1, 20), "u2", "5.00")]
NEW = [sale(3, day(2, 1), "u1", "2.50"), sale(4, day(2, 2), "u3", "-1.00")]
AT = day(2, 3)


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, place: str) -> Shop:
    return Shop.at(home, online_url, namespace, place)


def expect(shop: Shop, at_us: int = AT) -> None:
    """Each version, by itself, is in serving what it is in training; and they are two."""
    for service in (FIRST, SECOND):
        assert shop.online(service.key, USERS, at_us) == shop.training(service.key, USERS, at_us)
    first, second = (shop.online(service.key, USERS, at_us) for service in (FIRST, SECOND))
    assert first["bought_lifetime"] == [3, 1, 1, 0]
    assert second["bought_lifetime"] == [2, 1, 0, 0]
    assert first["spent_lifetime"] == [Decimal(text) for text in ("8.50", "5.00", "-1.00", "0.00")]
    assert second["spent_lifetime"] == [Decimal(text) for text in ("12.50", "5.00", "0.00", "0.00")]


@everywhere
def test_two_versions_of_one_flow_stand_side_by_side_in_every_store(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream(OLD, V1, V2)
    shop.stream(NEW, V1, V2)
    expect(shop)
    assert (shop.backfill(V1, 2), shop.backfill(V2, 1)) == (day(2), day(1)), "each version has a cut of its own"
    expect(shop)
    tiles = [shop.offline.tiles(view) for view in (V1, V2)]
    assert [list(table.folded()) for table in tiles] == [["2024-01-01", "2024-01-02"], ["2024-01-01"]]


@everywhere
def test_a_second_version_that_comes_later_is_backfilled_while_the_first_goes_on(shop: Shop) -> None:
    shop.apply(FIRST)
    old = shop.archive(OLD)
    shop.apply_online(old, V1)
    shop.backfill(V1, 2)
    served = shop.online("shop@1", USERS, day(2))
    shop.apply(FIRST, SECOND)
    assert shop.backfill(V2, 2) == day(1), "the archive is sure of the first day alone"
    assert shop.online("shop@1", USERS, day(2)) == served == shop.training("shop@1", USERS, day(2))
    shop.apply_online(old, V1, V2)  # the flow starts again and replays for the new view: the other one drops it
    shop.stream(NEW, V1, V2)
    expect(shop)


@everywhere
def test_a_comparison_counts_what_differs_and_shows_it(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream([*OLD, *NEW], V1, V2)
    found = shop.store.compare("user_sales@1", "user_sales@2")
    assert (found.before, found.after, found.entities) == ("user_sales@1", "user_sales@2", 2)
    assert (found.only_before, found.only_after, found.lacking) == (1, 0, ({"user_id": "u3"},))
    assert found.instant > moment(AT)
    features = {one.name: one for one in found.features}
    bought, spent = features["bought_lifetime"], features["spent_lifetime"]
    assert (bought.entities, bought.equal, bought.share_equal, bought.largest) == (2, 1, 0.5, 1.0)
    example = bought.examples[0]
    assert (example.entity, example.before, example.after) == ({"user_id": "u1"}, 3, 2)
    assert (spent.largest, spent.quantiles) == (4.0, {"p50": 4.0, "p90": 4.0, "p99": 4.0})
    assert features["last_amount_lifetime"].share_equal == 1.0
    assert features["bought_24h"].largest is None, "nothing of 2024 is within the last day"
    said = found.to_dict()
    assert said["features"][1]["examples"][0] == {"entity": {"user_id": "u1"}, "before": 3, "after": 2}


def test_a_comparison_is_of_two_views_of_one_entity_that_are_deployed(shop: Shop) -> None:
    shop.apply(FIRST, SECOND, counter_sales)
    with pytest.raises(RequestError, match="is compared with itself"):
        shop.store.compare("user_sales@1", "user_sales@1")
    with pytest.raises(RequestError, match="expected two views of one entity"):
        shop.store.compare("user_sales@1", "counter_sales@1")
    with pytest.raises(UnknownNameError, match="user_sales@3"):
        shop.store.compare("user_sales@1", "user_sales@3")
    with pytest.raises(RequestError, match="sample=1;"):
        shop.store.compare("user_sales@1", "user_sales@2", sample=1)
    nothing = shop.store.compare("user_sales@1", "user_sales@2")
    assert (nothing.entities, {one.share_equal for one in nothing.features}) == (0, {1.0})


def test_a_sample_takes_of_both_views_and_no_more_than_it_may(shop: Shop) -> None:
    many = [sale(number, day(0, 1), f"u{number}") for number in range(40)]
    shop.apply(FIRST, SECOND)
    shop.stream(many, V1, V2)
    found = shop.store.compare("user_sales@1", "user_sales@2", sample=10)
    assert (found.entities, found.only_before, found.only_after) == (10, 0, 0)


def test_a_scan_finds_the_keys_of_a_view_and_of_no_other(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream([*OLD, sale(9, day(0, 3), "progress")], V1, V2)
    shop.backfill(V1, 1)
    namespace = shop.settings.namespace
    shop.redis.set(f"{namespace}:{{17}}:a:b:{V1.key}:s", b"not ours")
    blobs = [blob for step in scan_view(shop.redis, namespace, V1.key) for blob in step]
    assert sorted((blob.entity, blob.kind) for blob in blobs) == [
        *(("progress", kind) for kind in "bp"),
        *(("u1", kind) for kind in "bp"),
        ("u2", "p"),
    ]
    assert {entity for step in scan_view(shop.redis, namespace, V2.key) for _, entity, _ in step} == {
        "progress",
        "u1",
        "u2",
    }
    assert held(shop.redis, namespace, V1.key, ["u2", "u3"]) == [True, False]
    assert len(some_entities(shop.redis, namespace, V1.key, 2, 1_000)) == 2
