"""A log that lost events which count online and were not archived yet: a flow that was killed in its first second.

archive   (nothing)
online    ├────────────┤ applied
log            ├──────────▶          truncated, or another one: refused, unless the loss is accepted
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forebay.core.codec import NO_CUT
from forebay.errors import StoreError
from streaming import log_losses
from streaming.file_log import open_file
from streaming.log import LogStart
from streaming.offline import Offline
from tests.infra.kafka import Broker
from tests.infra.valkey import Valkey
from tests.streaming.kafka_world import KafkaWorld
from tests.streaming.test_chunked_streams import Streamed
from tests.streaming.test_logs import SOURCE
from tests.streaming.world import World, check, check_archive, check_online, lines, orders


def forget_archived(world: World) -> None:
    """As if the flow had been killed before anything reached the offline store."""
    for table in ("events", "dead_letters", "streamed"):
        shutil.rmtree(world.home / "offline" / table)


def applied(world: World, count: int) -> int:
    """Some events count online, and are in no archive."""
    world.run()
    forget_archived(world)
    assert (world.applied(), world.archived()) == (count, 0)
    return count


def archived_events(world: World) -> int:
    return (world.offline.archive(orders).size() or (0, 0))[0]


def test_a_flow_that_was_killed_before_it_archived_anything_goes_on(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 200))
    applied(world, len(world.log[f"{namespace}:0"]))
    world.append("0", lines(2, 200, first=200))
    world.run()
    check(world)


def test_a_topic_that_was_truncated_meanwhile_is_refused_until_the_loss_is_accepted(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 300))
    count = applied(world, len(world.log[f"{namespace}:0"]))
    noida.truncate(world.topic, 0, 40)
    with pytest.raises(StoreError, match=r"deleted before they were archived.*--accept-loss orders"):
        world.run()
    assert archived_events(world) == 0
    world.run("--accept-loss", "orders")
    check_online(world)
    world.log[f"{namespace}:0"][:40] = [b"lost"] * 40
    check_archive(world)
    assert world.applied() == count


def test_a_topic_whose_beginning_had_gone_before_is_read_on_wherever_its_first_flow_was_killed(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", [b"lost"] * 40)
    noida.truncate(world.topic, 0, 40)
    world.append("0", lines(1, 300))
    applied(world, len(world.log[f"{namespace}:0"]))
    Offline(world.offline, lambda source: NO_CUT).begin(orders, {f"{namespace}:0": 40})  # what it does at first
    world.run()
    check_online(world)
    check_archive(world)


@pytest.mark.parametrize("left", [0, 20])
def test_a_topic_that_was_made_anew_meanwhile_is_refused(
    noida: Broker, home: Path, online_url: str, namespace: str, left: int
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 300))
    applied(world, len(world.log[f"{namespace}:0"]))
    noida.delete(world.topic)
    noida.create(world.topic, 1)
    noida.append(world.topic, 0, lines(2, left))
    with pytest.raises(StoreError, match=r"it ends at offset .*the topic was made anew.* epoch=1"):
        world.run("--give-up-after", "1")
    assert archived_events(world) == 0


def test_a_file_that_lost_lines_meanwhile_is_refused_and_read_on_once_it_is_whole(
    home: Path, online_url: str, namespace: str
) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 300))
    applied(world, len(world.log["a.ndjson"]))
    path = home / "orders" / "a.ndjson"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    with pytest.raises(StoreError, match=r"a\.ndjson holds \d+ lines, but \d+ were read from it before"):
        world.run()
    assert archived_events(world) == 0
    path.write_bytes(whole)
    world.append("a.ndjson", lines(2, 100, first=300))
    world.run()
    check(world)


def test_rows_that_were_read_and_are_gone_are_missed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "a.parquet")
    start = LogStart(300, applied=1001)
    with pytest.raises(StoreError, match="holds 1000 rows, but 1001"):
        open_file(SOURCE, tmp_path / "a.parquet", start, until_end=True).poll()


@pytest.mark.parametrize("to", ["trimmed", "deleted", "made anew"])
def test_a_stream_of_which_nothing_is_left_that_counts_online_is_refused_until_the_loss_is_accepted(
    home: Path, valkey: Valkey, namespace: str, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Streamed.make(home, valkey.url, namespace)
    some: Sequence[bytes] = [line for line in lines(1, 400) if line.startswith(b'{"event_id"')]
    one.append(some[:100], 1)
    one.world.run()
    forget_archived(one.world)
    client, key = valkey.connect(), one.key
    if to == "trimmed":
        client.xtrim(key, maxlen=0, approximate=False)
    else:
        client.delete(key)
    if to != "deleted":
        one.append(some[100:150], 1)
    with pytest.raises(StoreError, match=r"the last that is counted online, before any was archived.*--accept-loss"):
        one.world.run()
    assert archived_events(one.world) == 0
    said: list[str] = []
    monkeypatch.setattr(log_losses.LOG, "warning", lambda event, **facts: said.append(event))
    one.world.run("--accept-loss", "orders")
    assert said == ["lost_unarchived"]
