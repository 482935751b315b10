"""One Kafka cluster, as the stream of one source sees it: how it is connected to, and what its topic has now.

Lives here: the settings of Kafka's client, questions to the cluster, and how its errors are said. Rules:

- Settings come from the environment by their own names (`FOREBAY_KAFKA_SASL_PASSWORD` is `sasl.password`); those that
  exactly-once depends on belong to the flow and are refused. Nothing that may be a secret is ever part of a message.
- There is no consumer group: partitions are assigned, and offsets are those of the stores. `group.id` is only a name.
- A question that is asked while the flow runs is a future: nothing waits for a cluster that is away.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from forebay.errors import ConfigError, StoreError, StoreUnavailableError
from forebay.language.source import EventSource, KafkaTopic
from forebay.settings import KAFKA

OWNED = {
    "auto.offset.reset": "error",  # where to begin is what the stores say; an offset that is not there is an error
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",  # what is read counts, and an aborted transaction is never taken back
    "enable.partition.eof": True,  # how `--until-end` knows an end, and how trailing gaps are seen
}
"""Settings that the flow depends on: nobody else may set them."""
ADDRESSES = ("bootstrap.servers", "metadata.broker.list")
"""What the client calls the brokers; `FOREBAY_KAFKA_BROKERS` is in their place."""
PREFERRED = {
    "client.id": "forebay",
    "group.id": "forebay",
    "fetch.wait.max.ms": 5,  # a broker that does not answer a fetch as soon as there is an event does so after this
    "fetch.queue.backoff.ms": 5,  # a queue that was full is filled again at once
    "queued.max.messages.kbytes": 16 << 10,  # read ahead, per reader
    "reconnect.backoff.max.ms": 1000,
    "max.poll.interval.ms": 86_400_000,  # a reader that waits for slow stores is not gone
}
"""Defaults that suit a flow; the environment may say otherwise."""
ANSWER_S_MAX = 5.0
"""How long one answer of the cluster is waited for."""
AT_ONCE = (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.TOPIC_AUTHORIZATION_FAILED)
"""What waiting does not mend when a flow begins."""

CLEANUP = "cleanup.policy"
NO_ID = "A" * 22
"""All zeros: how a cluster without ids of topics calls each."""
PORT_MAX = 65_535

_PROTOCOL, _HOST = r"((plaintext|ssl|sasl_plaintext|sasl_ssl)://)?", r"([^\s:/@\[\]]+|\[[^\s\]]+\])"
_ADDRESS = re.compile(rf"{_PROTOCOL}{_HOST}(:(?P<port>[0-9]{{1,5}}))?/?", re.IGNORECASE)
_SECRET = re.compile(r"password|secret|key|pem|token|jaas|config")
_LOG = logging.getLogger("forebay.kafka")
_LOG.addHandler(logging.NullHandler())


def client_settings(source: EventSource, given: Mapping[str, str]) -> dict[str, Any]:
    """The settings of the client for a source's topic. Raises `ConfigError`."""
    topic = _topic(source)
    brokers = topic.brokers or given.get("brokers")
    if not brokers:
        raise ConfigError(
            f"Stream of {source.name!r}: topic {topic.topic!r} has no brokers; set {KAFKA}BROKERS=host:port,host:port"
        )
    _check_addresses(brokers, f"Stream of {source.name!r}: {'brokers' if topic.brokers else KAFKA + 'BROKERS'}")
    for name in given:
        if name in OWNED or name in ADDRESSES:
            variable = KAFKA + name.upper().replace(".", "_")
            instead = f"set {KAFKA}BROKERS instead" if name not in OWNED else "it belongs to the flow, unset it"
            raise ConfigError(f"{variable} cannot be used: {instead}")
    passed_on = {name: value for name, value in given.items() if name != "brokers"}
    return {**PREFERRED, **passed_on, **OWNED, "bootstrap.servers": brokers, "logger": _LOG}


class KafkaCluster:
    """The cluster that holds a source's topic."""

    def __init__(self, source: EventSource, given: Mapping[str, str], answer_s: float = ANSWER_S_MAX) -> None:
        self.topic = _topic(source).topic
        self._source, self._given, self._answer_s = source, given, min(answer_s, ANSWER_S_MAX)
        self._settings = client_settings(source, given) | {"error_cb": self._note}
        self._noted: KafkaError | None = None
        self.topic_id: str | None = None
        """What the cluster last called the topic besides its name; `None` for one that does not do so."""
        of_readers = {*OWNED, *PREFERRED} - {*given}
        self._admin: AdminClient = self._made(
            AdminClient, {n: v for n, v in self._settings.items() if n not in of_readers}
        )

    @property
    def where(self) -> str:
        """The topic and its cluster, for messages."""
        return f"topic {self.topic!r} of {self._source.name!r} (Kafka at {self._settings['bootstrap.servers']})"

    def consumer(self) -> Consumer:
        """A client that reads."""
        made: Consumer = self._made(Consumer, self._settings)
        return made

    def partitions(self) -> list[int]:
        """The topic's partitions, now. Raises `StoreUnavailableError`; `ConfigError` where waiting mends nothing."""
        self._noted = None  # what was wrong when it was asked before may be mended
        asked = self.ask()
        while not asked.done():
            self._admin.poll(0.02)
            self._refuse(self._noted)
        self._refuse(_error_of(asked))
        return self.answer(asked)

    def ask(self) -> Future[Any]:
        """Begin to ask for the topic's partitions; `answer` reads the answer."""
        topics = TopicCollection([self.topic])
        asked: Future[Any] = self._admin.describe_topics(topics, request_timeout=self._answer_s)[self.topic]
        return asked

    def answer(self, asked: Future[Any]) -> list[int]:
        """The partitions that the cluster named. Raises `StoreUnavailableError`."""
        self._admin.poll(0)
        error = _error_of(asked)
        if error is not None:
            known = error.code() != KafkaError._TIMED_OUT and error.code() != KafkaError._TRANSPORT
            said = error if known or self._noted is None else self._noted
            raise StoreUnavailableError(f"Cannot reach {self.where}: {self.said(said)}")
        self._noted = None
        described = asked.result()
        partitions, topic_id = described.partitions, str(described.topic_id)
        for partition in partitions:
            if partition.leader is None:
                raise StoreUnavailableError(f"Cannot read {self.where}: partition {partition.id} has no leader")
        self.topic_id = self.topic_id if topic_id == NO_ID else topic_id
        return sorted(partition.id for partition in partitions)

    def refuse_compacted(self) -> None:
        """Raise `ConfigError` where Kafka may leave out events that nobody has read, and the declaration does not know.

        A cluster that does not tell the settings of a topic, or not to this user, is believed.
        """
        topic = ConfigResource(ConfigResource.Type.TOPIC, self.topic)
        asked: Future[Any] = self._admin.describe_configs([topic], request_timeout=self._answer_s)[topic]
        entry = None if asked.exception() is not None else asked.result().get(CLEANUP)
        policy = "" if entry is None else entry.value or ""
        if "compact" in policy and not _topic(self._source).compacted:
            raise ConfigError(
                f"Compacted {self.where}: with {CLEANUP}={policy} Kafka leaves out events whose key came again, "
                f"read or not. Set {CLEANUP}=delete; or declare KafkaTopic({self.topic!r}, compacted=True), with which "
                "they are no loss"
            )

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that a partition holds, and the one behind its last. Raises `StoreUnavailableError`."""
        return self.answer_bounds(self.ask_bounds(partition))

    def ask_bounds(self, partition: int) -> Sequence[Future[Any]]:
        """Begin to ask for the bounds of a partition; `answer_bounds` reads the answers."""
        where = TopicPartition(self.topic, partition)
        specs = (OffsetSpec.earliest(), OffsetSpec.latest())
        return [self._admin.list_offsets({where: spec}, request_timeout=self._answer_s)[where] for spec in specs]

    def answer_bounds(self, asked: Sequence[Future[Any]]) -> tuple[int, int]:
        """The bounds that the cluster named. Raises `StoreUnavailableError`."""
        try:
            first, end = (one.result() for one in asked)
        except KafkaException as error:
            raise StoreUnavailableError(f"Cannot reach {self.where}: {self.said(error.args[0])}") from error
        return first.offset, end.offset

    def said(self, error: KafkaError) -> str:
        """An error's text without anything that may be a secret."""
        return self._without_secrets(f"{error.name()}: {error.str()}")

    def _note(self, error: KafkaError) -> None:
        """Keep what the client says is wrong: a question that times out does not say why."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN or self._noted is None:
            self._noted = error

    def _refuse(self, error: KafkaError | None) -> None:
        if error is None:
            return
        if error.code() in AT_ONCE:
            raise ConfigError(
                f"Not let in to {self.where}: {self.said(error)}. Look at {KAFKA}SECURITY_PROTOCOL, {KAFKA}SASL_… and "
                f"{KAFKA}SSL_…"
            )
        if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ConfigError(f"There is no {self.where}; create it, it may be empty")

    def _made(self, kind: Any, settings: Mapping[str, Any]) -> Any:
        try:
            return kind(dict(settings))
        except (KafkaException, AttributeError, ValueError, TypeError) as error:
            text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
            raise ConfigError(
                f"Kafka's client refuses its settings ({KAFKA}…): {self._without_secrets(text)}"
            ) from None

    def _without_secrets(self, text: str) -> str:
        for name, value in self._given.items():
            if _SECRET.search(name):
                text = text.replace(value, "…")
        return text


def fatal(cluster: KafkaCluster, partition: str, error: KafkaError) -> StoreError:
    """What ends a flow at once: an answer of the cluster that is about this partition and not about reaching it."""
    return StoreError(f"Cannot read partition {partition!r} of {cluster.where}: {cluster.said(error)}")


def _topic(source: EventSource) -> KafkaTopic:
    assert isinstance(source.stream, KafkaTopic)
    return source.stream


def _check_addresses(brokers: str, where: str) -> None:
    """Raise `ConfigError` for what the client would try to reach for ever; what may hold a password is not quoted."""
    addresses = [address for address in brokers.split(",") if address.strip()] or [""]
    for number, address in enumerate(addresses, 1):
        found = _ADDRESS.fullmatch(address.strip())
        if found is None or int(found["port"] or 0) > PORT_MAX:
            which = f"address {number} of {len(addresses)}" if len(addresses) > 1 else "it"
            raise ConfigError(f"{where}: {which} is not of the form host:port; expected host:port,host:port")


def _error_of(asked: Future[Any]) -> KafkaError | None:
    error = asked.exception()
    if error is None:
        return None
    if isinstance(error, KafkaException):
        said: KafkaError = error.args[0]
        return said
    raise error
