"""The flow over Kafka: the same events in both stores once, whatever happens to the flow and to the broker."""

from __future__ import annotations

import random
import signal
from pathlib import Path
from typing import cast

import pytest

from forebay import EventSource
from forebay.deploy.registry import Registry
from forebay.errors import ConfigError, StoreError
from forebay.online.lane import wall_clock_us
from streaming.log_ends import LogEnds
from streaming.status import Status
from tests.infra.kafka import Broker
from tests.infra.noida import Noida
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.tansu import Tansu
from tests.streaming.kafka_world import KafkaWorld
from tests.streaming.test_flow import LATER, MERCHANTS
from tests.streaming.world import VIEWS, await_that, check, check_archive, check_online, check_streamed, end, lines


@pytest.fixture
def world(broker: Broker, home: Path, online_url: str, namespace: str) -> KafkaWorld:
    """A deployment whose log is a topic with three partitions."""
    return KafkaWorld.on(broker, home, online_url, namespace)


def test_a_topic_is_in_both_stores_once(world: KafkaWorld) -> None:
    for partition in range(3):
        some = lines(partition, 600)
        world.append(str(partition), [*some[:300], None, b"", *some[300:]])
    said = world.run("--workers", "2")
    check(world)
    assert said["events"] == len(world.valid())
    assert said["dead"]["tombstone"] >= 3
    assert said["late"] > 0
    again = world.run("--workers", "1")
    assert (again["events"], again["late"], again["dead"]) == (0, 0, {})
    before = len(world.valid())
    world.append("1", lines(9, 100, first=600))
    assert world.run("--workers", "3")["events"] == len(world.valid()) - before
    check(world)


def test_kill_9_at_random_moments_loses_nothing_and_counts_nothing_twice(world: KafkaWorld) -> None:
    seed = 4
    rng = random.Random(seed)
    for turn, workers in enumerate((1, 2)):
        with world.flow("--workers", str(workers)) as process:
            before = world.applied(), world.archived()
            for n in range(4):
                for partition in range(3):
                    world.append(str(partition), lines(rng.randrange(10**9), 60, first=(turn * 4 + n) * 60))
            goal = rng.randrange(before[0] + 1, sum(map(len, world.log.values())))
            if turn == 1:
                await_that(lambda before=before: world.archived() > before[1], process)
            else:
                await_that(lambda goal=goal: world.applied() >= goal, process)
            assert end(process, signal.SIGKILL)[0] == -signal.SIGKILL, f"seed {seed}, turn {turn}"
    world.run("--workers", "2")
    check(world)


def restarted(world: KafkaWorld, *, durable: bool) -> None:
    """A flow that waits while its broker is away goes on when it is back."""
    world.append("0", lines(1, 300))
    with world.flow("--workers", "2") as process:
        await_that(lambda: world.applied() == len(world.log[f"{world.topic}:0"]), process)
        assert world.broker is not None
        if durable:
            world.broker.kill()
        world.broker.restart()
        world.append("0", lines(2, 300, first=300))
        world.append("1", lines(3, 300))
        await_that(lambda: world.applied() == sum(map(len, world.log.values())), process)
        code, _, errors = end(process)
        assert (code, errors) == (0, "")
    check(world)


def test_a_broker_that_restarts_is_waited_for(home: Path, online_url: str, namespace: str) -> None:
    with Noida() as broker:
        restarted(KafkaWorld.on(broker, home, online_url, namespace), durable=False)


def test_a_durable_broker_that_is_killed_and_comes_back_is_waited_for(
    home: Path, online_url: str, namespace: str, seaweedfs: SeaweedFs
) -> None:
    with Tansu(seaweedfs.bucket(namespace), seaweedfs.environment) as broker:
        restarted(KafkaWorld.on(broker, home, online_url, namespace), durable=True)


def test_partitions_that_are_added_while_the_flow_runs_are_read(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 200))
    with world.flow("--workers", "2") as process:
        await_that(lambda: world.applied() == len(world.log[f"{world.topic}:0"]), process)
        noida.grow(world.topic, 3)
        world.append("1", lines(2, 200))
        world.append("2", lines(3, 200))
        await_that(lambda: world.applied() == sum(map(len, world.log.values())), process)
        assert end(process)[0] == 0
    check(world)


def test_events_that_were_deleted_unread_stop_the_flow_until_their_loss_is_accepted(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 200))
    world.run()
    read = len(world.log[f"{world.topic}:0"])
    world.append("0", lines(2, 200, first=200))
    noida.truncate(world.topic, 0, read + 50)
    with pytest.raises(StoreError, match=r"deleted before they were archived.*--accept-loss orders"):
        world.run()
    lost = world.log[f"{world.topic}:0"][read : read + 50]
    world.run("--accept-loss", "orders")
    world.log[f"{world.topic}:0"][read : read + 50] = [b"lost"] * len(lost)
    check_archive(world)
    check_streamed(world)
    assert check_online(world) > 100
    assert world.run()["events"] == 0, "the loss is behind the positions: it need not be accepted again"


def test_a_view_that_needs_events_that_are_gone_from_the_topic_gets_them_from_the_archive(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=1)
    world.append("0", lines(1, 300))
    world.run()
    noida.truncate(world.topic, 0, 40)
    assert world.run()["events"] == 0, "what every store has may go"
    world.apply(*VIEWS, LATER)
    world.append("0", lines(2, 100, first=300))
    world.run()
    assert sum(world.read(LATER, MERCHANTS)) == len(world.valid())
    check(world)


def test_a_broker_that_is_away_for_good_ends_the_flow_in_one_line(home: Path, online_url: str, namespace: str) -> None:
    with Tansu() as broker:
        world = KafkaWorld.on(broker, home, online_url, namespace)
        world.append("0", lines(1, 50))
        with world.flow("--give-up-after", "0.5") as process:
            await_that(lambda: world.applied() > 0, process)
            broker.kill()
            errors = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert f"Cannot reach topic '{namespace}' of 'orders'" in errors


def test_a_topic_without_brokers_is_refused_in_one_line(world: KafkaWorld) -> None:
    cast("dict[str, str]", world.settings.kafka).clear()
    with pytest.raises(ConfigError, match="has no brokers; set FOREBAY_KAFKA_BROKERS=host:port"):
        world.run()


def test_the_status_says_what_waits_in_a_topic(noida: Broker, home: Path, online_url: str, namespace: str) -> None:
    """On the broker whose ends can be believed."""
    world = KafkaWorld.on(noida, home, online_url, namespace)
    world.append("0", lines(1, 100))
    world.append("2", lines(2, 50))
    world.run()
    before = {name: len(some) for name, some in world.log.items()}
    world.append("2", lines(3, 30, first=50))
    definitions = Registry.open(world.settings, world.online).current()
    assert definitions is not None
    source = cast("EventSource", definitions.source("orders"))
    look = Status(world.online, namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    found, error = look.partitions(source, definitions.windowed_views(source), wall_clock_us())
    waiting = {one.partition: (one.log_end, one.applied, one.lag_events) for one in found if one.log_end}
    assert error == ""
    assert waiting == {name: (len(some), before[name], len(some) - before[name]) for name, some in world.log.items()}
    assert waiting[f"{world.topic}:2"][2] >= 30


def test_a_cluster_that_is_away_leaves_the_rest_of_the_status(home: Path, online_url: str, namespace: str) -> None:
    with Noida() as gone:
        world = KafkaWorld.on(gone, home, online_url, namespace)
        world.append("0", lines(1, 100))
        world.run()
    definitions = Registry.open(world.settings, world.online).current()
    assert definitions is not None
    look = Status(world.online, namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    (found,) = look(definitions, [cast("EventSource", definitions.source("orders"))], wall_clock_us())
    assert "Cannot reach topic" in found.log_error
    (one,) = [one for one in found.partitions if one.partition.endswith(":0")]
    assert (one.log_end, one.lag_events) == (None, None)
    assert one.applied == one.archived == len(world.log[f"{world.topic}:0"])
