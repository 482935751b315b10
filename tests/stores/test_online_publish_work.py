"""What a publication sends and asks: counted, so that it stays little, and in the order in which it is safe to die."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import redis

from forebay.core.identity import SLOTS
from forebay.online.keys import ROW, Keys
from forebay.online.publication import KEYS_TOGETHER
from forebay.online.publish import Published, pieces, publish_rows
from tests.stores.conftest import Steps
from tests.stores.test_online_publish import WEATHER

COUNT = 20_000


def table(count: int) -> pa.Table:
    """A row of each of so many places."""
    instants = pa.array(np.full(count, 10), pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "place": [f"p{number:06d}" for number in range(count)],
            "wind": pa.array(np.linspace(0.0, 1.0, count)),
            "rain": pa.array([1] * count, pa.decimal128(38, 1)),
            "event_timestamp": instants,
            "created_timestamp": instants,
        }
    )


def calls(client: redis.Redis) -> dict[str, int]:
    """How often each command was called since the last reset."""
    return {name.removeprefix("cmdstat_"): counted["calls"] for name, counted in client.info("commandstats").items()}


def test_a_publication_sends_few_commands_and_waits_for_few_answers(
    client: redis.Redis, namespace: str, steps: Steps
) -> None:
    rows = table(COUNT)
    publish_rows(client, namespace, WEATHER, rows, rate=0)
    steps.clear()
    client.config_resetstat()
    sent = int(client.info("stats")["total_net_input_bytes"])
    assert publish_rows(client, namespace, WEATHER, rows, rate=0) == Published(COUNT, 0, 2)
    sent = int(client.info("stats")["total_net_input_bytes"]) - sent
    found = calls(client)
    packs = len(list(pieces(np.arange(COUNT), np.zeros(COUNT, np.int64))))
    transactions = packs + 2  # each pack is less than a chunk; then the number, and the lease is given back
    value = len(client.get(Keys(namespace).row(WEATHER.key, "p000000")) or b"")
    name = len(Keys(namespace).row(WEATHER.key, "p000000"))
    assert found["msetex"] <= COUNT / KEYS_TOGETHER + SLOTS + packs + 1
    assert found["set"] == 1, "the lease; no list changes"
    assert found["exec"] == transactions
    assert found["watch"] == found["mget"] - 2 == transactions + 2
    assert steps.count == transactions + 2 + 5  # both connections are armed; SET, MGET twice, TIME, MSETEX of none
    assert sent < COUNT * (value + name + 17), "of each row its name, its value, how long they are, and little more"


def test_whatever_has_a_blob_is_on_a_list_and_the_first_ones_do_not_wait_for_the_last_list(
    client: redis.Redis, namespace: str, steps: Steps
) -> None:
    """Step by step: how many slots have a list, while blobs are written."""
    keys = Keys(namespace)
    published = keys.slots("published", WEATHER.key, range(SLOTS))
    lists: list[int] = []

    def look(number: int) -> None:
        blobs = {name.decode().split(":")[-3] for name in client.scan_iter(f"{namespace}:*:{ROW}", 5_000)}
        found = [text for text in client.mget(published) if text]
        assert blobs <= set(b"\n".join(found).decode().split("\n"))
        lists.extend([len(found)] if blobs else [])

    steps.clear()
    steps.before = look
    publish_rows(client, namespace, WEATHER, table(COUNT), rate=0)
    assert lists[0] <= 8, "of few slots is it known what has a blob before the first is written"
    assert lists[-1] == SLOTS


def test_a_list_that_only_loses_entities_is_written_once(client: redis.Redis, namespace: str) -> None:
    publish_rows(client, namespace, WEATHER, table(2_000), rate=0)
    client.config_resetstat()
    assert publish_rows(client, namespace, WEATHER, table(1_000), rate=0) == Published(1_000, 1_000, 2)
    assert calls(client)["set"] == 1 + SLOTS
    assert len(list(client.scan_iter(f"{namespace}:*:{ROW}", 5_000))) == 1_000


def test_a_list_is_not_written_again_where_only_the_order_of_its_entities_is_another(
    client: redis.Redis, namespace: str
) -> None:
    rows = table(2_000)
    publish_rows(client, namespace, WEATHER, rows, rate=0)
    published = Keys(namespace).slots("published", WEATHER.key, range(SLOTS))
    lists = client.mget(published)
    client.config_resetstat()
    assert publish_rows(client, namespace, WEATHER, rows.take(np.arange(2_000)[::-1]), rate=0) == Published(2_000, 0, 2)
    assert (calls(client)["set"], client.mget(published)) == (1, lists), "the lease, and no list"
