"""What is noted of publications, and what is missed where the online store forgot one."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from forebay.backfill.losses import LostPublication, losses_of
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.ingest.batch import INSTANT
from forebay.online.slot_state import read_cuts
from tests.backfill.shop import user_sales, user_tier
from tests.backfill.world import World, day, sale
from tests.places import everywhere


def wipe(world: World) -> None:
    names: Any = list(world.redis.scan_iter(f"{world.namespace}:*", 1000))
    world.redis.delete(*names)


@everywhere
def test_a_lost_publication_of_rows_is_missed_and_its_number_not_given_again(world: World) -> None:
    named = (world.redis, world.namespace, world.store, user_tier)
    publish_view(*named)
    assert world.store.publications(user_tier).last() == 0, "nothing was computed: nothing can be lost"
    instants = dict.fromkeys(("event_timestamp", "created_timestamp", "partition_start"), pa.array([day(0)], INSTANT))
    world.store.rows(user_tier).overwrite(day(0), day(1), pa.table({"user_id": ["u1"], "tier": [4], **instants}))
    publish_view(*named)
    assert losses_of(*named) == []
    wipe(world)
    assert losses_of(*named) == [LostPublication(user_tier.key, 2, 0)]
    publish_view(*named)
    assert losses_of(*named) == []
    assert {cut.publication for cut in read_cuts(world.redis, world.namespace, user_tier)} == {3}


@everywhere
def test_a_lost_publication_of_tiles_is_missed_of_one_slot_too(world: World) -> None:
    named = (world.redis, world.namespace, world.store, user_sales)
    world.load([sale(number, day(number, 1)) for number in range(4)])
    fold_dates(world.store, user_sales, day(0), day(3))
    for _ in range(2):
        publish_view(*named)
    assert losses_of(*named) == []
    world.redis.delete(*world.redis.scan_iter(f"{world.namespace}:{{17}}:*", 1000))
    assert losses_of(*named) == [LostPublication(user_sales.key, 2, 0)]
    publish_view(*named)
    assert losses_of(*named) == []
    world.store.publications(user_sales).note(1)
    assert world.store.publications(user_sales).last() == 3, "it never goes back"
