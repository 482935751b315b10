"""Publishing: one publisher a view, a cut that never goes back, nothing left of what a re-run has emptied."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis

from forebay import BatchView, Decimal, Entity, Feature, Float64, String, TableSource, Timestamp
from forebay.core.codec import BATCH, unpack
from forebay.core.identity import slots_of
from forebay.core.layout import Layout
from forebay.core.rows import REMEMBERED_US
from forebay.errors import FencedError, RequestError, StoreError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online import lease as lease_module
from forebay.online.bulk import AHEAD, Bulk, Throttle
from forebay.online.keys import Keys
from forebay.online.progress import Cut
from forebay.online.publication import Publication
from forebay.online.publish import PACK_BYTES, Published, firsts, pieces, publish_rows, publish_tiles
from forebay.online.resp import Chunk, Commands, chunks, packed, set_commands
from forebay.online.row_blob import unpack_rows
from forebay.online.wire import pack
from tests.stores.conftest import Steps
from tests.stores.online_world import (
    MIDNIGHT_US,
    Order,
    batch_tiles,
    ever,
    lane_of,
    publish,
    recent,
    stretch,
)

ORDERS = [Order(("ann", "bob", "eve")[i % 3], MIDNIGHT_US - 10 * HOUR_US + i * 20 * MINUTE_US, i) for i in range(30)]


def columns(*commands: bytes) -> tuple[Commands, Any]:
    """Some commands as a column for a publication, and the slots of their keys."""
    return packed(commands), np.zeros(len(commands), np.int64)


def test_blobs_carry_the_cut_and_the_publication(client: redis.Redis, namespace: str) -> None:
    keys = Keys(namespace)
    assert publish(client, namespace, ORDERS, MIDNIGHT_US) == Published(3, 0, 1, MIDNIGHT_US)
    publish(client, namespace, ORDERS, MIDNIGHT_US)
    headers, tiles = unpack(Layout.of(recent), [client.get(keys.batch(recent.key, "ann"))])
    header = headers[0]
    assert (int(header["kind"]), int(header["commit"]), int(header["cut"])) == (BATCH, 2, MIDNIGHT_US)
    assert int(header["newest"]) == max(order.ts for order in ORDERS if order.entity == "ann")
    assert set(tiles.records["ring"].tolist()) == {0, 1}
    cuts = client.mget(keys.slots("cut", recent.key, range(64)))
    assert {Cut.decode(blob) for blob in cuts} == {Cut(MIDNIGHT_US, 2)}


def test_only_what_a_window_can_need_is_published(client: redis.Redis, namespace: str) -> None:
    old = Order("old", MIDNIGHT_US - 3 * DAY_US, 99)
    assert publish(client, namespace, [*ORDERS, old], MIDNIGHT_US).rows == 3
    assert publish(client, namespace, [*ORDERS, old], MIDNIGHT_US, ever).rows == 4
    keys = Keys(namespace)
    assert client.ttl(keys.batch(recent.key, "ann")) > 86_400
    assert client.ttl(keys.batch(ever.key, "ann")) == -1


def test_a_cut_never_goes_back(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, ORDERS, MIDNIGHT_US)
    with pytest.raises(StoreError, match=r"'recent@1' is published up to 2013-12-15T00:00:00Z; one up to 2013-12-14"):
        publish(client, namespace, ORDERS, MIDNIGHT_US - DAY_US)
    assert client.exists(Keys(namespace).lease(recent.key)) == 0


def test_what_a_re_run_has_emptied_is_deleted(client: redis.Redis, namespace: str) -> None:
    publish(client, namespace, ORDERS, MIDNIGHT_US)
    found = publish(client, namespace, [order for order in ORDERS if order.entity != "eve"], MIDNIGHT_US)
    assert found == Published(2, 1, 2, MIDNIGHT_US)
    keys = Keys(namespace)
    assert client.exists(*(keys.batch(recent.key, entity) for entity in ("ann", "bob", "eve"))) == 2
    lists = [blob for blob in client.mget(keys.slots("published", recent.key, range(64))) if blob]
    assert sorted(b"\n".join(lists).split()) == [b"ann", b"bob"]
    assert publish(client, namespace, [], MIDNIGHT_US) == Published(0, 2, 3, MIDNIGHT_US)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cut_us": MIDNIGHT_US + MINUTE_US},
            r"cannot be cut at 2013-12-15T00:01:00Z: tiles of 15m .* Cut at a midnight",
        ),
        ({"cut_us": MIDNIGHT_US - DAY_US}, r"a tile at 2013-12-14.* not before the cut 2013-12-14T00:00:00Z"),
        ({"keys": ["ann", "bob", "ann"]}, "an entity is named twice"),
    ],
)
def test_tiles_that_would_break_the_seam_are_refused(
    client: redis.Redis, namespace: str, change: dict[str, Any], message: str
) -> None:
    keys, tiles = batch_tiles(recent, ORDERS, MIDNIGHT_US)
    given = {"keys": keys, "tiles": tiles, "cut_us": MIDNIGHT_US} | change
    with pytest.raises(RequestError, match=message):
        publish_tiles(client, namespace, recent, **given)
    assert not client.keys(f"{namespace}:*")


def test_tiles_may_come_in_any_order_of_entities(client: redis.Redis, namespace: str) -> None:
    keys, tiles = batch_tiles(recent, ORDERS, MIDNIGHT_US)
    shuffled = type(tiles)(tiles.code[::-1], tiles.records[::-1])
    publish_tiles(client, namespace, recent, keys, tiles, MIDNIGHT_US, now_us=0)
    straight = client.get(Keys(namespace).batch(recent.key, "bob"))
    publish_tiles(client, f"{namespace}-2", recent, keys, shuffled, MIDNIGHT_US, now_us=0)
    reversed_ = client.get(Keys(f"{namespace}-2").batch(recent.key, "bob"))
    assert reversed_ is not None
    assert straight is not None
    assert straight[:32] == reversed_[:32]
    assert len(straight) == len(reversed_)


def test_a_second_publisher_waits_and_is_refused(client: redis.Redis, namespace: str) -> None:
    with (
        Publication(client, namespace, recent.key),
        pytest.raises(FencedError, match=r"'recent@1' is being published by another process, which renewed its lease"),
        Publication(client, namespace, recent.key, wait_s=0),
    ):
        pass
    with Publication(client, namespace, ever.key), Publication(client, namespace, recent.key, wait_s=0):
        pass


def test_a_publisher_that_lost_its_lease_writes_nothing_more(
    client: redis.Redis, namespace: str, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "CHUNK_BYTES", 1)
    keys = Keys(namespace)
    publish(client, namespace, ORDERS[:10], MIDNIGHT_US)
    written = {name: client.get(name) for name in client.keys(f"{namespace}:*:b")}

    def lose(number: int) -> None:
        if number == 5:
            client.delete(keys.lease(recent.key))  # it ran out while the process was suspended

    steps.clear()
    steps.before = lose
    with pytest.raises(FencedError, match=r"silent for 20 s and the lease ran out\. Publish again"):
        publish(client, namespace, ORDERS, MIDNIGHT_US)
    assert {name: client.get(name) for name in client.keys(f"{namespace}:*:b")} == written


def test_a_publisher_that_is_replaced_leaves_the_lease_to_the_other(client: redis.Redis, namespace: str) -> None:
    lease = Keys(namespace).lease(recent.key)
    with Publication(client, namespace, recent.key) as first:
        client.set(lease, "another")
        with pytest.raises(FencedError, match="took over the publication"):
            first.write([columns(pack(("SET", f"{namespace}:x", "1")))])
    assert client.get(lease) == b"another"
    assert not client.exists(f"{namespace}:x")


def test_many_entities_go_in_many_transactions(client: redis.Redis, namespace: str) -> None:
    """More than one pack and more than one chunk, each entity with its own tiles."""
    count = 5000
    orders = [Order(f"u{i}", MIDNIGHT_US - HOUR_US + i, i, i) for i in range(count)]
    assert publish(client, namespace, orders, MIDNIGHT_US).rows == count
    keys = Keys(namespace)
    found = client.mget([keys.batch(recent.key, f"u{i}") for i in range(count)])
    _, tiles = unpack(Layout.of(recent), found)
    first = tiles.take(tiles.records["ring"] == 0)
    assert first.code.tolist() == list(range(count))
    assert first.records["total_amount"]["lo"].tolist() == list(range(count))


WEATHER = BatchView(
    name="weather",
    version=1,
    entity=Entity("place", keys={"place": String}),
    sources=[TableSource("stations", schema={"place": String, "at": Timestamp}, effective="at", path="x.csv")],
    features=[Feature("wind", Float64, default=0.0), Feature("rain", Decimal(1), default=0)],
    ttl="2d",
    history_start="2013-01-01",
)


def weather(rows: list[tuple[str | None, int, int, float | None]]) -> pa.Table:
    """(place, event_us, created_us, wind)"""
    instant = pa.timestamp("us", "UTC")
    return pa.table(
        {
            "place": [row[0] for row in rows],
            "wind": pa.array([row[3] for row in rows], pa.float64()),
            "rain": pa.array([1] * len(rows), pa.decimal128(38, 1)),
            "event_timestamp": pa.array([row[1] for row in rows], instant),
            "created_timestamp": pa.array([row[2] for row in rows], instant),
        }
    )


def stored_winds(client: redis.Redis, namespace: str, *places: str) -> list[tuple[int, float | None]]:
    blobs = [client.get(Keys(namespace).row(WEATHER.key, place)) for place in places]
    columns, event_us = unpack_rows(WEATHER, blobs)
    wind = columns["wind"]
    winds = np.where(wind.valid, wind.values, np.nan)
    return [
        (event, None if np.isnan(value) else value)
        for event, value in zip(event_us.tolist(), winds.tolist(), strict=True)
    ]


def test_the_newest_row_wins_and_of_equal_ones_the_latest_made(client: redis.Redis, namespace: str) -> None:
    rows = [("JFK", 10, 1, 1.0), ("JFK", 20, 1, 2.0), ("JFK", 20, 3, 3.0), ("JFK", 20, 2, 4.0), ("EWR", 5, 9, None)]
    found = publish_rows(client, namespace, WEATHER, weather([*rows, (None, 30, 1, 5.0)]))
    assert found == Published(2, 0, 1)
    assert stored_winds(client, namespace, "JFK", "EWR") == [(20, 3.0), (5, None)]


def test_rows_that_are_gone_are_deleted_and_the_others_expire(client: redis.Redis, namespace: str) -> None:
    publish_rows(client, namespace, WEATHER, weather([("JFK", 10, 1, 1.0), ("EWR", 5, 9, 2.0)]), now_us=10)
    assert publish_rows(client, namespace, WEATHER, weather([("JFK", 12, 1, 1.0)]), now_us=12) == Published(1, 1, 2)
    keys = Keys(namespace)
    assert client.exists(keys.row(WEATHER.key, "EWR")) == 0
    keep_s = (2 * DAY_US + REMEMBERED_US) // 1_000_000
    assert keep_s < client.ttl(keys.row(WEATHER.key, "JFK")) <= keep_s + 3601


def test_streaming_and_publishing_do_not_fence_each_other(client: redis.Redis, namespace: str) -> None:
    lane = lane_of(client, namespace)
    with Publication(client, namespace, recent.key) as publication:
        lane.commit([stretch(ORDERS)])
        publication.begin(pa.array(["ann"]), slots_of(["ann"]))
    lane.commit([stretch([Order("ann", MIDNIGHT_US, 30)])])


def test_a_publication_renews_its_lease_and_goes_on_on_all_connections(
    client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Renewing touches the key that every connection watches."""
    monkeypatch.setattr(lease_module, "CHUNK_BYTES", 1)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
    assert publish(client, namespace, ORDERS, MIDNIGHT_US) == Published(3, 0, 1, MIDNIGHT_US)


def test_whatever_is_under_way_when_the_lease_is_lost_is_not_applied(
    client: redis.Redis, namespace: str, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On either connection, and from the next send of each."""
    monkeypatch.setattr(lease_module, "CHUNK_BYTES", 1)
    lease = Keys(namespace).lease(recent.key)
    column = columns(*(pack(("SET", f"{namespace}:{number}", "x")) for number in range(40)))

    there: list[bytes] = []

    def lose(number: int) -> None:
        if number == 7:
            client.set(lease, "another")
            there.extend(client.keys(f"{namespace}:[0-9]*"))

    def publish_column() -> None:
        with Publication(client, namespace, recent.key) as publication:
            steps.clear()
            steps.before = lose
            publication.write([column])

    with pytest.raises(FencedError, match="took over the publication"):
        publish_column()
    assert sorted(client.keys(f"{namespace}:[0-9]*")) == sorted(there)
    assert len(there) < len(column[0])
    assert client.get(lease) == b"another"


def test_a_server_that_refuses_to_write_is_named_and_keeps_what_it_has(client: redis.Redis, namespace: str) -> None:
    """The replies are not those that are expected of a good end, so they are read."""
    good = pack(("SET", f"{namespace}:x", "1"))
    for bad, message in (
        (pack(("SET", f"{namespace}:y")), r"refused to write: ERR wrong number .* Nothing was written"),
        (pack(("SET", f"{namespace}:y", "1", "PXAT", 0)), r"refused a command: ERR invalid expire time"),
    ):
        with pytest.raises(StoreError, match=message), Publication(client, namespace, recent.key) as publication:
            publication.write([columns(good, bad)])
        assert client.exists(Keys(namespace).lease(recent.key), f"{namespace}:y") == 0


def test_a_throttle_lets_so_many_values_or_kilobytes_pass_in_a_second() -> None:
    """
    second     0        1        2        3
    chunks     100 ──── 300 ─────────────────────────── next
    """
    now, slept = [50.0], []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    throttle = Throttle(100, lambda: now[0], sleep)
    throttle.wait(Chunk(memoryview(b"x" * 100), 4, 100))
    throttle.wait(Chunk(memoryview(b"x" * 1024 * 300), 1, 1))
    now[0] += 1.0
    throttle.wait(Chunk(memoryview(b""), 1, 1))
    assert slept == [1.0, 2.0]
    Throttle(0, lambda: now[0], sleep).wait(Chunk(memoryview(b""), 1, 10**9))
    assert slept == [1.0, 2.0]


def many_orders() -> list[Order]:
    """Two hundred entities, whose newest orders are up to ten hours apart."""
    return [Order(f"u{i}", MIDNIGHT_US - 10 * HOUR_US + i * 3 * MINUTE_US, i) for i in range(200)]


def test_keys_of_one_slot_and_a_like_lifetime_are_set_by_one_command(client: redis.Redis, namespace: str) -> None:
    """A server or a user without MSETEX gets a SET for each key: the same values, and lifetimes that are as long."""
    name = f"{namespace}-user".replace(":", "-")
    client.execute_command("ACL", "SETUSER", name, "reset", "on", ">secret", "allkeys", "+@all", "-msetex")
    where = client.connection_pool.connection_kwargs
    client.config_resetstat()
    with redis.Redis(where["host"], where["port"], where["db"], username=name, password="secret") as limited:
        publish(limited, f"{namespace}-x", many_orders(), MIDNIGHT_US)
    single = client.info("commandstats")
    publish(client, namespace, many_orders(), MIDNIGHT_US)
    several = client.info("commandstats")
    client.execute_command("ACL", "DELUSER", name)
    assert "cmdstat_msetex" not in single or single["cmdstat_msetex"]["calls"] == 0
    assert 0 < several["cmdstat_msetex"]["calls"] < 150
    assert several["cmdstat_set"]["calls"] - single["cmdstat_set"]["calls"] < 200
    names, others = (
        [Keys(space).batch(recent.key, f"u{i}") for i in range(200)] for space in (namespace, f"{namespace}-x")
    )
    assert client.mget(names) == client.mget(others)
    for one, other in zip(names, others, strict=True):
        assert client.ttl(other) - 5 <= client.ttl(one) <= client.ttl(other) * 1.14


def test_what_never_expires_is_set_by_one_command_on_every_server(client: redis.Redis, namespace: str) -> None:
    client.config_resetstat()
    assert publish(client, namespace, many_orders(), MIDNIGHT_US, ever).rows == 200
    counts = client.info("commandstats")
    assert counts["cmdstat_mset"]["calls"] <= 65
    assert "cmdstat_msetex" not in counts
    names = [Keys(namespace).batch(ever.key, f"u{i}") for i in range(200)]
    headers, tiles = unpack(Layout.of(ever), client.mget(names))
    assert headers["newest"].tolist() == [order.ts for order in many_orders()]
    assert (np.bincount(tiles.code) > 0).all()


def test_a_command_ends_with_its_slot_and_with_its_lifetimes() -> None:
    """
    slot       0 0 0 0 0 1 1 1
    lifetime   1 1 1 1 9 9 9 9   (hours; at most three together)
    command    a a a b c d d d
    """
    slots, hours = np.array([0, 0, 0, 0, 0, 1, 1, 1]), np.array([1, 1, 1, 1, 9, 9, 9, 9])
    assert firsts(slots, hours * 3600, 3).tolist() == [0, 3, 4, 5]
    assert firsts(slots, None, 3).tolist() == [0, 3, 5]
    columns = ["{0}:"], np.zeros(3, np.int64), pa.array(["a", "bb", "c"])
    values = (pa.array([b"x", b"", b"z"]), pa.array([b"", b"yy", b"zz"]))
    together = set_commands(*columns, ":v", values, np.array([5, 1000, 7]), np.array([0, 2]))
    assert bytes(together.data) == b"".join(
        pack(parts)
        for parts in (
            ("MSETEX", 2, "{0}:a:v", "x", "{0}:bb:v", "yy", "PXAT", 1000),
            ("MSETEX", 1, "{0}:c:v", "zzz", "PXAT", 7),
        )
    )
    assert [(chunk.commands, chunk.keys, chunk.reply) for chunk in chunks(together, 1 << 18, 2)] == [
        (1, 2, b":1\r\n"),
        (1, 1, b":1\r\n"),
    ]
    for expires_ms, first, expected in (
        (None, np.array([0]), [("MSET", "{0}:a:v", "x", "{0}:bb:v", "yy", "{0}:c:v", "zzz")]),
        (None, None, [("SET", "{0}:a:v", "x"), ("SET", "{0}:bb:v", "yy"), ("SET", "{0}:c:v", "zzz")]),
        (
            np.array([5, 6, 70]),
            None,
            [
                ("SET", "{0}:a:v", "x", "PXAT", 5),
                ("SET", "{0}:bb:v", "yy", "PXAT", 6),
                ("SET", "{0}:c:v", "zzz", "PXAT", 70),
            ],
        ),
    ):
        found = set_commands(*columns, ":v", values, expires_ms, first)
        assert bytes(found.data) == b"".join(map(pack, expected))
        assert (found.reply, len(found)) == (b"+OK\r\n", len(expected))


def test_chunks_wait_packed_and_are_not_sent_after_a_failure() -> None:
    """
    sent      0 1      both connections are busy
    packed    2 3 4 5  and whoever comes with a seventh is told that 0 has failed
    """
    written: list[int] = []
    gates = [threading.Event() for _ in range(2 * (1 + AHEAD) + 1)]

    class Connection:
        def write(self, chunk: Chunk) -> None:
            written.append(chunk.keys)
            assert gates[chunk.keys].wait(10)
            if chunk.keys == 0:
                raise FencedError("the token is gone")

    bulk = Bulk([Connection(), Connection()], Throttle(0))  # type: ignore[list-item]  # of a fence it only writes
    some = [Chunk(memoryview(b""), 1, number) for number in range(len(gates))]
    for chunk in some[:-1]:
        bulk.send(chunk)
    assert set(written) <= {0, 1}
    gates[0].set()
    with pytest.raises(FencedError, match="the token is gone"):
        bulk.send(some[-1])
    cancelled = threading.Event()
    bulk._under_way[-1].add_done_callback(lambda _: cancelled.set())
    closing = threading.Thread(target=bulk.close)
    closing.start()
    assert cancelled.wait(10), "it would be sent yet"
    for gate in gates:
        gate.set()
    closing.join()
    assert set(written) <= {0, 1, 2}


def test_what_is_packed_together_is_bounded_and_begins_small() -> None:
    def together(sizes: list[int]) -> list[int]:
        order = np.arange(len(sizes))[::-1]
        found = list(pieces(order, np.array(sizes, np.int64)))
        assert [number for some in found for number in some] == order.tolist()
        return [len(some) for some in found]

    assert together([]) == []
    assert together([0] * 7_000) == [256, 512, 1024, 2048, 3160]
    assert together([PACK_BYTES // 16] * 40) == [1, 2, 4, 8, 16, 9]
    assert together([6 * PACK_BYTES, 3 * PACK_BYTES]) == [1, 1]


def test_a_slow_publication_goes_in_small_chunks_and_keeps_its_lease(client: redis.Redis, namespace: str) -> None:
    assert publish_rows(client, namespace, WEATHER, weather([("JFK", 10, 1, 1.0)]), rate=1) == Published(1, 0, 1)
    commands = packed([b"one", b"two", b"three"])
    assert [(bytes(chunk.data), chunk.commands) for chunk in chunks(commands, 1 << 18, 2)] == [
        (b"onetwo", 2),
        (b"three", 1),
    ]
    assert [chunk.commands for chunk in chunks(packed([b"two", b"three"]), 3, 9)] == [1, 1]
