"""Where the events of a benchmark are appended: files in a folder, or a Kafka topic.

Lives here: appending purchases to the log that Forebay's flow reads, to a log that holds nothing else (for a contender
that reads from the beginning), and a line at a time. A log is named by one word, which `feeder`, `tail` and `per_event`
are told: a path (several, with `|` between them, to append to in turn), or `kafka://HOST:PORT/TOPIC`.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.purchases import Purchases
from benchmarks.shop import purchases
from streaming.routing import reader_of

if TYPE_CHECKING:
    from tests.infra.kafka import Broker

KAFKA, AND = "kafka://", "|"
PARTITIONS = 4
ACKNOWLEDGED_S = 60.0
BULK_LINGER_MS = 50
QUEUE_MAX = 2_000_000
"""Lines that a producer holds, so that producing waits for nothing."""


class Logs(Protocol):
    """The log of a flow, in some partitions, and logs of their own for others."""

    def append(self, events: Purchases) -> None:
        """Append to the flow's log, one to each partition in turn."""
        ...

    def apart(self, events: Purchases) -> str:
        """A log with nothing else."""
        ...


@dataclass(frozen=True)
class Files:
    """Files under a home, as the shop's purchases are streamed from."""

    home: Path

    def append(self, events: Purchases) -> None:
        """Append to four files."""
        events.append_ndjson(*(self.home / "stream" / name for name in partitions()))

    def apart(self, events: Purchases) -> str:
        """One file, made anew."""
        path = self.home / "one.ndjson"
        path.unlink(missing_ok=True)
        events.append_ndjson(path)
        return str(path)


@dataclass
class Topics:
    """Topics of a broker: the flow's, and one more for each log apart."""

    broker: Broker
    topic: str = purchases.name
    _apart: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.broker.create(self.topic, PARTITIONS)

    @property
    def name(self) -> str:
        """The flow's topic."""
        return named(self.broker, self.topic)

    def append(self, events: Purchases) -> None:
        """Append to its partitions."""
        produce(self.name, (line[:-1].encode() for line in events.lines()))

    def apart(self, events: Purchases) -> str:
        """A topic made for it."""
        apart = Topics(self.broker, f"{self.topic}-{next(self._apart)}")
        apart.append(events)
        return apart.name


def partitions() -> list[str]:
    """Names of files that two workers share evenly, and four one each."""
    names = (f"purchases{n}.ndjson" for n in itertools.count())
    found: dict[int, str] = {}
    while len(found) < PARTITIONS:
        name = next(names)
        found.setdefault(reader_of(purchases.name, name, PARTITIONS), name)
    return [found[n] for n in range(PARTITIONS)]


def named(broker: Broker, topic: str) -> str:
    """The name of a log that is a topic."""
    return f"{KAFKA}{broker.brokers}/{topic}"


def where(name: str) -> tuple[str, str] | None:
    """The brokers and the topic of a log; `None` where it is a file."""
    if not name.startswith(KAFKA):
        return None
    brokers, _, topic = name.removeprefix(KAFKA).partition("/")
    return brokers, topic


def producer_of(brokers: str, linger_ms: int = 0) -> Producer:
    """A producer that sends at once, or batches of what comes within a while."""
    return Producer({"bootstrap.servers": brokers, "linger.ms": linger_ms, "queue.buffering.max.messages": QUEUE_MAX})


def produce(name: str, lines: Iterable[bytes]) -> None:
    """Append to the partitions of a topic in turn; returns when all is acknowledged."""
    place = where(name)
    assert place is not None, f"{name} is no topic"
    brokers, topic = place
    producer = producer_of(brokers, BULK_LINGER_MS)
    for number, line in enumerate(lines):
        producer.produce(topic, line, partition=number % PARTITIONS)
    left = producer.flush(ACKNOWLEDGED_S)
    assert not left, f"{left} messages were not acknowledged within {ACKNOWLEDGED_S:g} s"


def consumer_of(name: str) -> Consumer:
    """A consumer of all partitions of a topic from their beginning, which waits for a fetch as long as Forebay's."""
    place = where(name)
    assert place is not None, f"{name} is no topic"
    brokers, topic = place
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "benchmarks", "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    return consumer


@contextlib.contextmanager
def appending(name: str) -> Iterator[Callable[[Sequence[bytes]], None]]:
    """Within the block lines (with their ends) can be appended as they come; they are sent at once."""
    place = where(name)
    if place is None:
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(Path(one).open("ab", buffering=0)) for one in name.split(AND)]
            turns = itertools.cycle(range(len(files)))
            yield lambda lines: _write(files, next(turns), lines)
        return
    producer, topic = producer_of(place[0]), place[1]

    def append(lines: Sequence[bytes]) -> None:
        for number, line in enumerate(lines):
            producer.produce(topic, line[:-1], partition=number % PARTITIONS)
        producer.poll(0)

    yield append
    producer.flush(ACKNOWLEDGED_S)


def _write(files: Sequence[BinaryIO], first: int, lines: Sequence[bytes]) -> None:
    """Deal lines to files, beginning with one of them."""
    for n in range(min(len(files), len(lines))):
        files[(first + n) % len(files)].write(b"".join(lines[n :: len(files)]))
