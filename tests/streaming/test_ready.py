"""A flow that could not run says so before it takes over, so that the one that runs goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace as but

from forebay import KafkaTopic, RedisStream
from forebay.errors import ConfigError, StoreUnavailableError
from forebay.language.definitions import Definitions
from forebay.settings import Settings
from streaming.parts import Task
from streaming.ready import check_ready
from streaming.retry import Patience
from tests.infra.kafka import Broker
from tests.infra.server import free_port
from tests.streaming.world import VIEWS, World, await_that, end, lines, orders


def test_the_flow_that_runs_outlives_those_that_cannot(world: World) -> None:
    world.append("a.ndjson", lines(1, 100))
    port = free_port()
    with world.flow("--metrics-port", str(port)) as first:
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), first)
        fences = world.fences()
        for options in (["--metrics-port", str(port)], ["--metrics-port", str(port - 2), "--workers", "2"]):
            with world.flow(*options) as second:
                errors = second.communicate(timeout=60)[1]
            assert (second.returncode, errors.count("\n")) == (2, 1), errors
            assert f"--metrics-port {port} cannot be listened on" in errors
        assert world.fences() == fences
        world.append("a.ndjson", lines(2, 100, first=100))
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), first)
        assert end(first)[0] == 0


def task(settings: Settings, stream: Any = orders.stream) -> Task:
    """Streaming the orders from somewhere."""
    source = but(orders, stream=stream)
    views = [but(view, source=source) for view in VIEWS]
    return Task(settings, Definitions.of(*views), [source], patience=Patience(0.2))


def test_a_folder_that_is_not_there_is_seen(world: World, tmp_path: Path) -> None:
    check_ready(task(world.settings))
    with pytest.raises(ConfigError, match=r"there is no file or folder .*elsewhere"):
        check_ready(task(replace(world.settings, home=tmp_path / "elsewhere")))


def test_a_stream_that_cannot_be_reached_is_waited_for(world: World) -> None:
    check_ready(task(world.settings, RedisStream("orders")))
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        check_ready(task(world.settings, RedisStream("orders", url=f"redis://127.0.0.1:{free_port()}/0")))


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_a_compacted_topic_is_refused_unless_the_declaration_knows(broker: Broker, world: World, policy: str) -> None:
    """Kafka may leave out events that nobody has read: what was sent would not be what counts."""
    name = world.settings.namespace
    broker.create(name, cleanup_policy=policy)
    settings = replace(world.settings, kafka={"brokers": broker.brokers})
    with pytest.raises(ConfigError, match=rf"Compacted topic '{name}' of 'orders' .*{policy}.*compacted=True"):
        check_ready(task(settings, KafkaTopic(name)))
    check_ready(task(settings, KafkaTopic(name, compacted=True)))
    broker.delete(name)


@pytest.mark.parametrize(
    ("topic", "kafka", "why"),
    [
        (KafkaTopic("nowhere"), {}, "There is no topic 'nowhere' of 'orders'"),
        (KafkaTopic("ready"), {"fetch.wait.max.ms": "soon"}, "Kafka's client refuses its settings"),
        (KafkaTopic("ready", format="avro"), {}, "set FOREBAY_SCHEMA_REGISTRY_URL"),
    ],
)
def test_what_is_wrong_with_a_topic_is_seen(
    noida: Broker, world: World, topic: KafkaTopic, kafka: dict[str, str], why: str
) -> None:
    noida.create("ready")
    settings = replace(world.settings, kafka={"brokers": noida.brokers})
    check_ready(task(settings, KafkaTopic("ready")))
    with pytest.raises(ConfigError, match=why):
        check_ready(task(replace(settings, kafka=dict(settings.kafka) | kafka), topic))
    noida.delete("ready")
