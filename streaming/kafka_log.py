"""Kafka as a log: partition `<topic>:<i>` is a partition of the topic, offsets are Kafka's own.

Lives here: reading a topic's partitions from an offset on. Rules:

- Offsets may have gaps (compaction, transactions); a chunk covers them, so the positions of the stores move over them,
  also over a gap at the end.
- Events that were deleted before they were archived are an error, unless that loss was accepted for the source. What
  was gone before anybody read a partition is no loss: the archive is told where that begins, before events of it are
  handed on. So a partition of which the archive knows nothing, and some of which counts online, began at offset 0.
- Offsets beyond the end mean that the topic was made anew, or that its cluster lost acknowledged events: an error. So
  does another id of the topic while it is read.
- A value that is null (a tombstone) is no event: the decoder makes it a dead letter.
- The end of a topic (`until_end`) is where a partition ended when its first events arrived, or where the cluster said
  that it ends. High watermarks are taken from fetches alone: what a cluster lists may be behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, Message, TopicPartition

from forebay.errors import StoreError, StoreUnavailableError
from forebay.language.source import EventSource, KafkaTopic
from streaming.chunk import CHUNKS_MAX, EVENTS_MAX, Chunk
from streaming.heartbeat import End
from streaming.kafka_client import KafkaCluster, fatal
from streaming.log import LogStarts
from streaming.log_losses import say_lost
from streaming.retry import Patience

LOOK_INTERVAL_S = 1.0
"""How often the cluster is asked for new partitions, and whether it is there."""
ANSWERED_WITHIN_S = 2.0
"""For so long a cluster that answered counts as one that would have sent what it had."""
ELSEWHERE = (
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._AUTHENTICATION,
    KafkaError._SSL,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)
"""Errors of a fetch that the next look at the cluster judges, or of the consumer group, which is not used."""
MOVED = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)


@dataclass(frozen=True)
class Topics:
    """How the topics of a flow are opened."""

    settings: Mapping[str, str]
    patience: Patience
    accepted: Collection[str]
    """Sources of which events may be lost: they are read on where their log begins."""
    begun: Callable[[EventSource, Mapping[str, int]], None]
    """Makes durable where partitions begin of which the archive has nothing."""

    def open(
        self, source: EventSource, mine: Callable[[str], bool], start: LogStarts, *, until_end: bool
    ) -> TopicReader:
        """A reader of some partitions of a source's topic."""
        return TopicReader(source, self, mine, start, until_end=until_end)


def partition_name(topic: KafkaTopic, partition: int) -> str:
    """A partition's name in the stores.

    >>> partition_name(KafkaTopic("shop"), 3), partition_name(KafkaTopic("shop", epoch=1), 3)
    ('shop:3', 'shop~1:3')
    """
    return f"{topic.topic}{f'~{topic.epoch}' if topic.epoch else ''}:{partition}"


@dataclass
class _Part:
    """One partition: what was handed on of it, and what is known of its end."""

    number: int
    name: str
    next_offset: int
    before: int
    """Up to where it was read before."""
    eof: int = -1
    """Where it ended when the cluster last said so."""
    end: int | None = None
    """Where it ended when its first events arrived."""

    @property
    def read(self) -> int:
        """Up to where it was read: it cannot end before that."""
        return max(self.before, self.next_offset)

    @property
    def at_end(self) -> bool:
        return self.eof >= self.before or (self.end is not None and self.next_offset >= self.end)


@dataclass
class _Moved:
    """A partition that does not have the offset that comes next: the cluster was asked what it has, and when."""

    asked: Sequence[Future[Any]]
    asked_s: float


class TopicReader:
    """Some partitions of one topic, read together by one client."""

    def __init__(
        self,
        source: EventSource,
        topics: Topics,
        mine: Callable[[str], bool],
        start: LogStarts,
        *,
        until_end: bool,
    ) -> None:
        assert isinstance(source.stream, KafkaTopic)
        self.source, self._topic, self._topics = source, source.stream, topics
        self._mine, self._start, self._until_end = mine, start, until_end
        self._cluster = KafkaCluster(source, topics.settings, topics.patience.give_up_after_s)
        self._consumer = self._cluster.consumer()
        self._parts: dict[int, _Part] = {}
        self._asked: Future[Any] | None = None
        self._asked_s = self._looked_s = self._answered_s = time.monotonic()
        self._moved: dict[int, _Moved] = {}
        self._trouble_s: dict[str, float] = {}
        self._numbers: Sequence[int] = topics.patience(self._cluster.partitions)
        self._take_up(self._numbers)
        self._read_of: str | None = None
        """The id of the topic of which something was read."""
        self._compare_ids()

    @property
    def unfinished(self) -> Sequence[str]:
        """Messages are whole: none."""
        return ()

    @property
    def ended(self) -> bool:
        """Whether all partitions were read to where they ended."""
        return not self._moved and all(part.at_end for part in self._parts.values())

    @property
    def names(self) -> Collection[str] | None:
        """The partitions that the cluster named; `None` while it is away."""
        return {partition_name(self._topic, number) for number in self._numbers} if self._answers else None

    @property
    def _answers(self) -> bool:
        return time.monotonic() - self._answered_s <= ANSWERED_WITHIN_S

    def ends(self) -> Sequence[End]:
        """The partitions of which the cluster said that they ended where they were read to; none while it is away."""
        if not self._answers:
            return []
        parts = [part for number, part in self._parts.items() if number not in self._moved]
        return [End(part.name, part.next_offset) for part in parts if part.eof == part.next_offset]

    def poll(self) -> list[Chunk]:
        """The next events of each partition that has some now."""
        messages = self._consumer.consume(EVENTS_MAX * max(1, min(len(self._parts), CHUNKS_MAX)), 0)
        faults = [message for message in messages if message.error() is not None]
        events = [message for message in messages if message.error() is None] if faults else messages
        chunks = [
            self._chunk(self._parts[number], some[first : first + EVENTS_MAX])
            for number, some in _by_partition(events).items()
            for first in range(0, len(some), EVENTS_MAX)
        ]
        for message in faults:
            self._on_fault(message)
        self._seek([self._parts[number] for number in self._moved])
        due = time.monotonic() - self._looked_s >= LOOK_INTERVAL_S
        if due:
            self._look()
        return chunks + self._gaps() if due or self._until_end else chunks

    def close(self) -> None:
        """Let go of the connections."""
        self._consumer.close()

    def _chunk(self, part: _Part, messages: Sequence[Message]) -> Chunk:
        offsets = np.fromiter(map(Message.offset, messages), np.int64, len(messages))
        first, end = int(offsets[0]), int(offsets[-1]) + 1
        begin = part.next_offset
        if first < begin:
            raise self._made_anew(part, f"offset {first} came after {begin - 1}")
        if part.end is None:
            part.end = self._high(part)
            if part.end is not None and part.end < part.read:
                raise self._made_anew(part, f"it ends at offset {part.end}")
        part.next_offset = end
        if self._read_of is None and self._cluster.topic_id is not None:
            self._looked_s -= LOOK_INTERVAL_S  # the first events: look at once which topic they are of
        dense = first == begin and end - first == len(messages)
        lines = list(map(Message.value, messages))
        return Chunk(self.source, part.name, begin, end, lines=lines, offsets=None if dense else offsets)

    def _gaps(self) -> list[Chunk]:
        """Offsets at the end of partitions that hold no event (the marks of transactions): positions pass them."""
        chunks = []
        for part in self._parts.values():
            if part.eof > part.next_offset:
                chunks.append(Chunk(self.source, part.name, part.next_offset, part.eof))
                part.next_offset = part.eof
        return chunks

    def _on_fault(self, message: Message) -> None:
        error = message.error()
        assert error is not None
        part = self._parts.get(message.partition() or 0)
        if part is not None and error.code() == KafkaError._PARTITION_EOF:
            part.eof = max(part.eof, message.offset() or 0)
        elif part is not None and error.code() in MOVED:
            self._moved[part.number] = self._moved.get(part.number) or self._ask_bounds(part)
        elif error.code() not in ELSEWHERE:
            raise fatal(self._cluster, self._topic.topic if part is None else part.name, error)

    def _look(self) -> None:
        """Take up new partitions; notice that the cluster is away, or holds less than was read from it."""
        if self._asked is None:
            self._asked = self._cluster.ask()
            self._asked_s = time.monotonic()
        if not self._asked.done():
            return
        asked, self._asked = self._asked, None
        self._looked_s = time.monotonic()
        try:
            numbers = self._cluster.answer(asked)
        except StoreUnavailableError as error:
            self._bear("away", error, self._asked_s)
            return
        self._compare_ids()
        self._answered_s = self._asked_s
        self._trouble_s.pop("away", None)
        self._numbers = numbers
        if not self._until_end:
            self._take_up(numbers)
        self._compare_ends()

    def _take_up(self, numbers: Sequence[int]) -> None:
        """Begin to read the partitions that are this reader's and not read yet."""
        for number in numbers:
            name = partition_name(self._topic, number)
            if number not in self._parts and self._mine(name):
                start = self._start(name)
                part = _Part(number, name, start.offset, start.read)
                self._parts[number] = part
                self._consumer.incremental_assign([TopicPartition(self._topic.topic, number, part.next_offset)])

    def _ask_bounds(self, part: _Part) -> _Moved:
        return _Moved(self._cluster.ask_bounds(part.number), time.monotonic())

    def _seek(self, parts: Sequence[_Part]) -> None:
        """The cluster does not have the offsets that come next: read on where the partitions begin, or refuse.

        Its answers are not waited for: other partitions, and other sources, are read meanwhile.
        """
        firsts = {part.number: first for part in parts if (first := self._first(part)) is not None}
        begun = {self._parts[number].name: first for number, first in firsts.items() if not self._parts[number].read}
        if begun:
            self._topics.patience(lambda: self._topics.begun(self.source, begun))
        for number, first in firsts.items():
            where = TopicPartition(self._topic.topic, number, first)
            self._consumer.incremental_unassign([where])
            self._consumer.incremental_assign([where])
            del self._moved[number]

    def _first(self, part: _Part) -> int | None:
        """Where a partition is read on that does not have the offset that comes next; `None` before that is known."""
        moved, what = self._moved[part.number], f"bounds of {part.name}"
        if not all(one.done() for one in moved.asked):
            return None
        try:
            first, end = self._cluster.answer_bounds(moved.asked)
        except StoreUnavailableError as error:
            self._bear(what, error, moved.asked_s)
            if time.monotonic() - moved.asked_s >= LOOK_INTERVAL_S:
                self._moved[part.number] = self._ask_bounds(part)
            return None
        self._trouble_s.pop(what, None)
        if part.next_offset > end:
            raise self._made_anew(part, f"it ends at offset {end}")
        if part.next_offset < first and part.read:
            self._check_lost(part, first)
        return max(first, part.next_offset)

    def _check_lost(self, part: _Part, first: int) -> None:
        """Refuse to pass over events that were there, or say which are passed over."""
        if self.source.name not in self._topics.accepted:
            raise StoreError(
                f"Partition {part.name!r} of {self._cluster.where} begins at offset {first}, but offset "
                f"{part.next_offset} is the next that the archive needs: the events between were deleted before they "
                f"were archived. Start with --accept-loss {self.source.name} to read on where the log begins"
            )
        say_lost(self.source, part.name, part.next_offset, first)

    def _compare_ends(self) -> None:
        """A cluster may answer a fetch beyond the end with nothing: notice that the end stays behind what was read."""
        for part in self._parts.values():
            high = self._high(part)
            if high is not None and high < part.read:
                self._bear(part.name, self._made_anew(part, f"it ends at offset {high}"), self._asked_s)
            else:
                self._trouble_s.pop(part.name, None)

    def _compare_ids(self) -> None:
        """Refuse to read on in a topic that is another one of the same name, if anything was read of the former."""
        part = next((part for part in self._parts.values() if part.read), None)
        if part is not None:
            if self._read_of not in (None, self._cluster.topic_id):
                raise self._made_anew(part, "its topic has another id since")
            self._read_of = self._cluster.topic_id

    def _high(self, part: _Part) -> int | None:
        """Where a partition ended at the newest fetch; `None` before the first."""
        where = TopicPartition(self._topic.topic, part.number)
        high = self._consumer.get_watermark_offsets(where, cached=True)[1]
        return high if high >= 0 else None

    def _bear(self, what: str, error: StoreError, asked_s: float) -> None:
        """Raise what has been wrong for too long, by the answer to a question; `_trouble_s` says since when."""
        since_s = self._trouble_s.setdefault(what, asked_s)
        if time.monotonic() - since_s >= self._topics.patience.give_up_after_s:
            raise error
        if isinstance(error, StoreUnavailableError):
            self._topics.patience.retried(error)

    def _made_anew(self, part: _Part, found: str) -> StoreError:
        return StoreError(
            f"Partition {part.name!r} of {self._cluster.where} was read up to offset {part.read}, but {found}: "
            "the topic was made anew, or its cluster lost events. If it was made anew, declare "
            f"KafkaTopic({self._topic.topic!r}, epoch={self._topic.epoch + 1}) and apply that: its offsets begin again"
        )


def _by_partition(messages: Sequence[Message]) -> Mapping[int, Sequence[Message]]:
    """Messages of each partition, in their order."""
    numbers = [number or 0 for number in map(Message.partition, messages)]
    if len(set(numbers)) <= 1:
        return {numbers[0]: messages} if messages else {}
    found: dict[int, list[Message]] = {}
    for number, message in zip(numbers, messages, strict=True):
        found.setdefault(number, []).append(message)
    return found
