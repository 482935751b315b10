"""The rate of a publication, from its argument to what is sent: how long it waits, and what a transaction holds."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import redis

from forebay import WindowedView
from forebay.core.identity import SLOTS
from forebay.instants import HOUR_US
from forebay.online.publish import publish_rows, publish_tiles
from forebay.settings import PUBLISH_RATE_MIN
from tests.stores.online_world import MIDNIGHT_US, Order, batch_tiles, ever, recent
from tests.stores.test_online_publish import WEATHER, weather

COUNT = 1600
"""Entities: more of each slot than one transaction may hold, at the least rate."""
KEYS = COUNT + 2 * SLOTS
"""What is written of them in a first publication: a value each, and the list of every slot, before and after."""


def is_throttled(name: str) -> bool:
    """Whether it is a value or a list: neither a cut, of which one transaction sets all, nor a token or a number."""
    return not any(what in name for what in (":cut:", ":publisher:", ":written"))


def assert_paced(transactions: Sequence[Sequence[str]], waits: Sequence[float], rate: int) -> None:
    """Each chunk but the last has had its time, and none of them is of more than a tenth of a second."""
    chunks = [keys for names in transactions if (keys := sum(map(is_throttled, names)))]
    assert sum(chunks) == KEYS
    assert max(chunks) == rate // 10
    assert sum(waits) == pytest.approx((KEYS - chunks[-1]) / rate)


@pytest.mark.parametrize("view", [recent, ever], ids=["expiring", "kept"])
def test_tiles_are_published_no_faster_than_was_asked_for(
    client: redis.Redis,
    namespace: str,
    transactions: list[list[str]],
    waits: list[float],
    view: WindowedView,
) -> None:
    orders = [Order(f"u{n}", MIDNIGHT_US - HOUR_US + n, n) for n in range(COUNT)]
    keys, tiles = batch_tiles(view, orders, MIDNIGHT_US)
    publish_tiles(client, namespace, view, keys, tiles, MIDNIGHT_US, rate=PUBLISH_RATE_MIN)
    assert_paced(transactions, waits, PUBLISH_RATE_MIN)


def test_rows_are_published_no_faster_than_was_asked_for(
    client: redis.Redis, namespace: str, transactions: list[list[str]], waits: list[float]
) -> None:
    table = weather([(f"p{n}", MIDNIGHT_US, 1, 1.0) for n in range(COUNT)])
    publish_rows(client, namespace, WEATHER, table, rate=PUBLISH_RATE_MIN)
    assert_paced(transactions, waits, PUBLISH_RATE_MIN)


def test_without_a_bound_nothing_is_waited_for(
    client: redis.Redis, namespace: str, transactions: list[list[str]], waits: list[float]
) -> None:
    table = weather([(f"p{n}", MIDNIGHT_US, 1, 1.0) for n in range(COUNT)])
    publish_rows(client, namespace, WEATHER, table, rate=0)
    assert waits == []
    assert max(map(len, transactions)) > PUBLISH_RATE_MIN // 10
