"""The world of the streaming tests with its log in a Kafka topic: the same events, views and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msgspec.structs import replace as but

from forebay import KafkaTopic, WindowedView
from forebay.deploy.registry import Registry
from forebay.language.definitions import Definitions
from forebay.language.source import Format
from tests.infra.kafka import Broker
from tests.streaming.world import VIEWS, World, orders


@dataclass
class KafkaWorld(World):
    """A deployment whose log is a topic; partitions are named by their numbers."""

    broker: Broker | None = None
    topic: str = ""

    @classmethod
    def on(
        cls,
        broker: Broker,
        home: Path,
        online_url: str,
        namespace: str,
        *,
        partitions: int = 3,
        coded: Format = "json",
        registry: Mapping[str, str] | None = None,
    ) -> KafkaWorld:
        """A deployment with the views applied and an empty topic."""
        made = World.make(home, online_url, namespace)
        kafka = {"brokers": broker.brokers}
        settings = replace(made.settings, kafka=kafka, registry=dict(registry or {}))
        world = cls(home, settings, made.online, broker=broker, topic=namespace)
        broker.create(world.topic, partitions)
        world.apply(*VIEWS, coded=coded)
        return world

    def apply(self, *views: WindowedView, coded: Format = "json") -> None:
        """Deploy views of the orders that are in the topic."""
        source = but(orders, stream=KafkaTopic(self.topic, format=coded))
        definitions = Definitions.of(*(but(view, source=source) for view in views))
        Registry.open(self.settings, self.online).apply(definitions)

    def append(self, partition: str, more: Sequence[bytes | None]) -> None:
        """Append messages to a partition of the log; its raw bytes are what a dead letter has."""
        assert self.broker is not None
        self.log.setdefault(f"{self.topic}:{partition}", []).extend(value or b"" for value in more)
        self.broker.append(self.topic, int(partition), more)

    def environment(self) -> dict[str, str]:
        """What a flow's process is told."""
        kafka = {f"FOREBAY_KAFKA_{name.upper().replace('.', '_')}": to for name, to in self.settings.kafka.items()}
        registry = {
            f"FOREBAY_SCHEMA_REGISTRY_{name.upper().replace('.', '_')}": to
            for name, to in self.settings.registry.items()
        }
        return super().environment() | kafka | registry
