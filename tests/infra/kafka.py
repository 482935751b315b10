"""What tests do to a Kafka broker, whichever it is: topics, messages, restarts.

Lives here: the part that all brokers of the tests share; each broker's own words are in its own file.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.infra.server import Server, listens

ANSWER_S = 10.0
QUIET = {"log_level": 0, "logger": logging.getLogger("tests.kafka")}


class Broker:
    """A broker that runs: ``port`` is where clients reach it, with ``settings``; ``listens_on`` is its own port."""

    port: int
    listens_on: int
    settings: Mapping[str, str]
    server: Server

    @property
    def brokers(self) -> str:
        return f"127.0.0.1:{self.port}"

    def create(self, topic: str, partitions: int = 1, **settings: str) -> None:
        """Make a topic."""
        new = NewTopic(topic, partitions, 1, config={name.replace("_", "."): value for name, value in settings.items()})
        admin = self.admin()
        admin.create_topics([new])[topic].result(ANSWER_S)

    def delete(self, topic: str) -> None:
        """Remove a topic and all that is in it."""
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(ANSWER_S)

    def grow(self, topic: str, partitions: int) -> None:
        """Add partitions to a topic."""
        admin = self.admin()
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(ANSWER_S)

    def truncate(self, topic: str, partition: int, first: int) -> None:
        """Delete the messages before an offset."""
        where = TopicPartition(topic, partition, first)
        admin = self.admin()
        admin.delete_records([where])[where].result(ANSWER_S)

    def append(self, topic: str, partition: int, values: Iterable[bytes | None]) -> None:
        """Append messages; returns when they are acknowledged."""
        failed: list[object] = []
        producer = Producer(self.client | {"linger.ms": 2, "acks": "all"})
        for value in values:
            producer.produce(
                topic, value, b"key", partition, on_delivery=lambda error, _: failed.append(error) if error else None
            )
        left = producer.flush(ANSWER_S)
        assert not failed, failed[0]
        assert not left, f"{left} messages were not acknowledged"

    def restart(self) -> None:
        """Start it again on its port, after a kill or in place of the one that runs."""
        self.server.stop()
        self.server = self._start()

    def kill(self) -> None:
        """Take it away as a power cut would."""
        self.server.kill()

    def admin(self) -> AdminClient:
        """A client that asks; a question dies with it."""
        return AdminClient(self.client)

    @property
    def client(self) -> dict[str, object]:
        """What a client needs to reach it."""
        return {"bootstrap.servers": self.brokers, **self.settings, **QUIET}

    def _start(self) -> Server:
        raise NotImplementedError

    def _is_ready(self) -> bool:
        """Whether it answers."""
        if not listens(self.listens_on):
            return False
        try:
            return bool(
                AdminClient(QUIET | {"bootstrap.servers": f"127.0.0.1:{self.listens_on}"}).list_topics(timeout=1)
            )
        except KafkaException:
            return False
