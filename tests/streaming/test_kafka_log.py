"""Kafka topics as the flow reads them: offsets, resuming, ends, gaps, and topics that changed behind its back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from structlog.testing import capture_logs

from forebay import EventSource, Int64, KafkaTopic, String, Timestamp
from forebay.errors import ConfigError, StoreError, StoreUnavailableError
from streaming import kafka_log
from streaming.chunk import Chunk
from streaming.heartbeat import End
from streaming.kafka_log import TopicReader, Topics
from streaming.log import LogStart
from streaming.retry import Patience
from tests.infra.kafka import Broker
from tests.infra.server import free_port
from tests.infra.tansu import Tansu
from tests.streaming.world import await_that


def source(topic: str, epoch: int = 0) -> EventSource:
    return EventSource(
        "clicks",
        schema={"event_id": String, "n": Int64, "ts": Timestamp},
        timestamp="ts",
        event_id="event_id",
        stream=KafkaTopic(topic, epoch=epoch),
    )


class Following:
    """A reader and what it has read."""

    def __init__(
        self,
        brokers: str,
        topic: str,
        resume: Mapping[str, int] | None = None,
        *,
        until_end: bool = False,
        epoch: int = 0,
        accepted: Collection[str] = (),
        give_up_after_s: float = 30,
        mine: Callable[[str], bool] = lambda name: True,
        applied: Mapping[str, int] | None = None,
        **settings: str,
    ) -> None:
        given = {"brokers": brokers} | {name.replace("_", "."): value for name, value in settings.items()}
        self.begun: dict[str, int] = {}
        self.retried: list[BaseException] = []
        topics = Topics(given, Patience(give_up_after_s, self.retried.append), accepted, self.begin)

        def start(name: str) -> LogStart:
            return LogStart((resume or {}).get(name, 0), (applied or {}).get(name, 0))

        self.chunks: list[Chunk] = []
        self.reader: TopicReader = topics.open(source(topic, epoch), mine, start, until_end=until_end)

    def begin(self, source: EventSource, firsts: Mapping[str, int]) -> None:
        """What the archive is told before anything is handed on."""
        assert not {chunk.partition for chunk in self.chunks} & firsts.keys()
        self.begun |= firsts

    def poll(self) -> None:
        self.chunks += self.reader.poll()

    def read(self, count: int) -> dict[str, list[bytes | None]]:
        """The values of each partition, once there are so many."""
        return self.until(lambda: sum(map(len, self.chunks)) >= count)

    def read_to_the_end(self) -> dict[str, list[bytes | None]]:
        """The values of each partition."""
        return self.until(lambda: self.reader.ended)

    def until(self, condition: Callable[[], bool]) -> dict[str, list[bytes | None]]:
        self.await_that(condition)
        self.reader.close()
        return self.values()

    def await_that(self, condition: Callable[[], bool]) -> None:
        """Poll until a condition holds."""

        def polled() -> bool:
            self.poll()
            return condition()

        await_that(polled)

    def values(self) -> dict[str, list[bytes | None]]:
        """The values of each partition; its chunks join."""
        found: dict[str, list[bytes | None]] = {}
        ends: dict[str, int] = {}
        for chunk in self.chunks:
            assert chunk.first_offset == ends.get(chunk.partition, chunk.first_offset)
            offsets = chunk.offsets
            if offsets is None:
                assert not len(chunk) or len(chunk) == chunk.next_offset - chunk.first_offset
            else:
                assert (np.diff(offsets) > 0).all()
                assert chunk.first_offset <= offsets[0]
                assert offsets[-1] + 1 == chunk.next_offset
            ends[chunk.partition] = chunk.next_offset
            found.setdefault(chunk.partition, []).extend(chunk.lines)
        return found


def numbers(first: int, end: int) -> list[bytes | None]:
    return [b"%d" % n for n in range(first, end)]


@pytest.fixture
def topic(broker: Broker, namespace: str) -> str:
    """A topic with two partitions on the broker."""
    broker.create(namespace, 2)
    return namespace


@pytest.fixture
def own_topic(noida: Broker, namespace: str) -> str:
    """A topic with one partition, on the broker that can do all of it, that holds 100 messages."""
    noida.create(namespace)
    noida.append(namespace, 0, numbers(0, 100))
    return namespace


def test_offsets_are_kafkas_own_and_a_reader_resumes_at_any_of_them(broker: Broker, topic: str) -> None:
    broker.append(topic, 0, numbers(0, 100))
    broker.append(topic, 1, numbers(0, 50))
    everything = Following(broker.brokers, topic, until_end=True).read_to_the_end()
    assert everything == {f"{topic}:0": numbers(0, 100), f"{topic}:1": numbers(0, 50)}
    resumed = Following(broker.brokers, topic, {f"{topic}:0": 99, f"{topic}:1": 50}, until_end=True)
    assert resumed.read_to_the_end() == {f"{topic}:0": numbers(99, 100)}
    assert [(chunk.first_offset, chunk.next_offset) for chunk in resumed.chunks] == [(99, 100)]


def test_a_partition_that_is_far_behind_comes_in_chunks_of_bounded_length(
    broker: Broker, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_log, "EVENTS_MAX", 8)
    broker.append(topic, 0, numbers(0, 100))
    broker.append(topic, 1, numbers(0, 3))
    following = Following(broker.brokers, topic, until_end=True)
    assert following.read_to_the_end() == {f"{topic}:0": numbers(0, 100), f"{topic}:1": numbers(0, 3)}
    assert max(map(len, following.chunks)) <= 8


def test_a_topic_is_followed_and_each_reader_has_its_partitions(broker: Broker, topic: str) -> None:
    following = Following(broker.brokers, topic)
    alone = Following(broker.brokers, topic, mine=lambda name: name.endswith(":1"))
    for turn in range(3):
        for partition in (0, 1):
            broker.append(topic, partition, numbers(10 * turn, 10 * turn + 10))
    assert following.read(60) == {f"{topic}:{n}": numbers(0, 30) for n in (0, 1)}
    assert alone.read(30) == {f"{topic}:1": numbers(0, 30)}


def test_an_empty_topic_ends_at_once_and_a_busy_one_where_it_ended_when_it_was_first_read(
    broker: Broker, topic: str
) -> None:
    assert Following(broker.brokers, topic, until_end=True).read_to_the_end() == {}
    broker.append(topic, 0, numbers(0, 1000))
    stop = threading.Event()

    def produce() -> None:
        producer = Producer(broker.client | {"linger.ms": 0})
        while not stop.is_set():
            producer.produce(topic, b"more", partition=0)
            producer.poll(0.0005)
        producer.flush(10)

    busy = threading.Thread(target=produce)
    busy.start()
    try:
        read = Following(broker.brokers, topic, until_end=True).read_to_the_end()
    finally:
        stop.set()
        busy.join()
    assert read[f"{topic}:0"][:1000] == numbers(0, 1000)


def test_offsets_that_hold_no_event_are_covered_also_at_the_end(broker: Broker, topic: str) -> None:
    producer = Producer(broker.client | {"transactional.id": topic})
    producer.init_transactions(10)
    for value in (b"0", b"2"):  # and its own mark behind each
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        producer.commit_transaction(10)
    following = Following(broker.brokers, topic)
    values = following.until(lambda: following.chunks[-1:] != [] and not len(following.chunks[-1]))
    assert values == {f"{topic}:0": [b"0", b"2"]}
    assert [chunk.next_offset for chunk in following.chunks[-2:]] == [3, 4]
    resumed = Following(broker.brokers, topic, {f"{topic}:0": 4}, until_end=True)
    assert resumed.read_to_the_end() == {}


def test_messages_of_aborted_transactions_are_not_read(noida: Broker, own_topic: str) -> None:
    """Tansu hands them out all the same, whatever a consumer asks for."""
    producer = Producer(noida.client | {"transactional.id": own_topic})
    producer.init_transactions(10)
    for count, end in (
        (3, producer.commit_transaction),
        (5, producer.abort_transaction),
        (2, producer.commit_transaction),
    ):
        producer.begin_transaction()
        for n in range(count):
            producer.produce(own_topic, b"%d of %d" % (n, count), partition=0)
        assert producer.flush(10) == 0, "the broker has them"
        end(10)
    following = Following(noida.brokers, own_topic, {f"{own_topic}:0": 100}, until_end=True)
    read = following.read_to_the_end()
    assert read == {f"{own_topic}:0": [b"0 of 3", b"1 of 3", b"2 of 3", b"0 of 2", b"1 of 2"]}
    assert following.chunks[-1].next_offset == 100 + 3 + 5 + 2 + 3, "positions pass what was aborted, and the marks"


def test_a_message_without_a_value_is_none(broker: Broker, topic: str) -> None:
    broker.append(topic, 0, [b"{}", None, b""])
    assert Following(broker.brokers, topic, until_end=True).read_to_the_end()[f"{topic}:0"] in (
        [b"{}", None, b""],
        [b"{}", None, None],
    )


def test_partitions_that_are_added_are_picked_up(noida: Broker, own_topic: str) -> None:
    following = Following(noida.brokers, own_topic)
    noida.grow(own_topic, 3)
    for partition in (1, 2):
        noida.append(own_topic, partition, numbers(0, 7))
    values = following.read(114)
    assert values == {
        f"{own_topic}:0": numbers(0, 100),
        f"{own_topic}:1": numbers(0, 7),
        f"{own_topic}:2": numbers(0, 7),
    }


def test_events_that_were_deleted_unread_are_refused_unless_their_loss_is_accepted(
    noida: Broker, own_topic: str
) -> None:
    noida.truncate(own_topic, 0, 30)
    at = {f"{own_topic}:0": 20}
    following = Following(noida.brokers, own_topic, at)
    with pytest.raises(
        StoreError, match=r"begins at offset 30, but offset 20 is the next that the archive needs.*accept"
    ):
        following.read(1)
    with capture_logs() as said:
        accepted = Following(noida.brokers, own_topic, at, accepted=["clicks"], until_end=True)
        assert accepted.read_to_the_end() == {f"{own_topic}:0": numbers(30, 100)}
    (lost,) = [one for one in said if one["event"] == "lost_unread"]
    assert (lost["partition"], lost["first_offset"], lost["end_offset"]) == (f"{own_topic}:0", 20, 30)
    assert accepted.chunks[0].first_offset == 20, "positions pass what is lost"


def test_a_truncated_topic_of_which_nothing_is_archived_is_begun_where_it_begins(noida: Broker, own_topic: str) -> None:
    noida.truncate(own_topic, 0, 30)
    name = f"{own_topic}:0"
    with capture_logs() as said:
        first = Following(noida.brokers, own_topic, until_end=True, accepted=["clicks"])
        assert first.read_to_the_end() == {name: numbers(30, 100)}
    assert said == []
    first = Following(noida.brokers, own_topic, until_end=True)
    assert first.read_to_the_end() == {name: numbers(30, 100)}
    assert first.chunks[0].first_offset == 0
    assert first.begun == {name: 30}, "so that what goes behind that is missed"


def test_events_that_count_online_and_went_before_they_were_archived_are_refused_unless_accepted(
    noida: Broker, own_topic: str
) -> None:
    name = f"{own_topic}:0"
    noida.truncate(own_topic, 0, 30)
    with pytest.raises(StoreError, match=r"begins at offset 30, but offset 0 is the next .* before they were archived"):
        Following(noida.brokers, own_topic, applied={name: 63}).read(1)
    with capture_logs() as said:
        accepted = Following(noida.brokers, own_topic, applied={name: 63}, accepted=["clicks"], until_end=True)
        assert accepted.read_to_the_end() == {name: numbers(30, 100)}
    (lost,) = [one for one in said if one["event"] == "lost_unread"]
    assert (lost["first_offset"], lost["end_offset"], accepted.begun) == (0, 30, {})


@pytest.mark.parametrize("events", [0, 20])
@pytest.mark.parametrize("until_end", [False, True])
def test_a_topic_that_was_made_anew_before_anything_was_archived_is_refused(
    noida: Broker, own_topic: str, until_end: bool, events: int
) -> None:
    noida.delete(own_topic)
    noida.create(own_topic, 1)
    noida.append(own_topic, 0, numbers(0, events))
    anew = Following(noida.brokers, own_topic, applied={f"{own_topic}:0": 100}, until_end=until_end, give_up_after_s=1)
    with pytest.raises(StoreError, match=rf"up to offset 100, but it ends at offset {events}: the topic was made anew"):
        anew.until(lambda: until_end and anew.reader.ended)
    assert anew.chunks == []
    more = numbers(events, 130)
    noida.append(own_topic, 0, more)
    grown = Following(noida.brokers, own_topic, applied={f"{own_topic}:0": 100}, until_end=True)
    assert grown.read_to_the_end() == {f"{own_topic}:0": numbers(0, 130)}, "it can not be told from the old one"


def test_an_end_is_said_no_more_when_there_are_events_behind_it(noida: Broker, own_topic: str) -> None:
    name = f"{own_topic}:0"
    following = Following(noida.brokers, own_topic)
    following.await_that(lambda: following.reader.ends() == [End(name, 100)])
    noida.append(own_topic, 0, numbers(100, 9_000))
    following.await_that(lambda: sum(map(len, following.chunks)) > 100)
    assert following.chunks[-1].next_offset < 9_000, "they come in several chunks"
    assert following.reader.ends() == []
    following.await_that(lambda: following.reader.ends() == [End(name, 9_000)])
    following.reader.close()


class Unanswered(Future[Any]):
    """An answer that is not there before the test gives it."""

    def result(self, timeout: float | None = None) -> Any:
        assert self.done(), "a reader waited for an answer"
        return super().result(timeout)


class Bounds:
    """Where partitions begin and end, as the cluster is asked for it: it answers when the test says so."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.answers: list[Callable[[], None]] = []
        self.failures = self.asked = 0
        ask = AdminClient.list_offsets

        def asked(admin: AdminClient, which: dict[TopicPartition, OffsetSpec], **options: Any) -> Any:
            self.asked += 1
            ((where, real),) = ask(admin, which, **options).items()
            answer = Unanswered()
            if self.failures:
                self.failures -= 1
                answer.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            else:
                self.answers.append(lambda: answer.set_result(real.result()))
            return {where: answer}

        patch.setattr(AdminClient, "list_offsets", asked)

    def answer(self) -> None:
        for answer in self.answers:
            answer()


def test_others_are_read_while_the_cluster_is_asked_where_a_partition_begins(
    noida: Broker, own_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noida.grow(own_topic, 2)
    noida.append(own_topic, 1, numbers(0, 7))
    noida.truncate(own_topic, 0, 30)
    bounds = Bounds(monkeypatch)
    following = Following(noida.brokers, own_topic, {f"{own_topic}:0": 20}, accepted=["clicks"], until_end=True)
    following.await_that(lambda: len(bounds.answers) == 2)
    following.await_that(lambda: following.values() == {f"{own_topic}:1": numbers(0, 7)})
    following.await_that(lambda: following.reader.ends() == [End(f"{own_topic}:1", 7)])
    assert not following.reader.ended
    bounds.answer()
    assert following.read_to_the_end() == {f"{own_topic}:0": numbers(30, 100), f"{own_topic}:1": numbers(0, 7)}
    assert bounds.asked == 2


def test_a_cluster_that_does_not_say_where_a_partition_begins_is_borne_with_and_then_said(
    noida: Broker, own_topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noida.truncate(own_topic, 0, 30)
    bounds = Bounds(monkeypatch)
    bounds.failures = 2
    following = Following(noida.brokers, own_topic, until_end=True)
    following.await_that(lambda: len(bounds.answers) == 2)
    assert bounds.asked == 4, "again after a second, and not at each poll"
    bounds.answer()
    assert following.read_to_the_end() == {f"{own_topic}:0": numbers(30, 100)}
    bounds.failures = 1000
    following = Following(noida.brokers, own_topic, give_up_after_s=0.5)
    with pytest.raises(StoreUnavailableError, match=r"Cannot reach topic .*_TIMED_OUT"):
        following.read(1)


def test_a_topic_that_was_made_anew_is_refused_and_another_epoch_reads_it(noida: Broker, own_topic: str) -> None:
    noida.delete(own_topic)
    noida.create(own_topic)
    noida.append(own_topic, 0, numbers(0, 3))
    following = Following(noida.brokers, own_topic, {f"{own_topic}:0": 100})
    with pytest.raises(StoreError, match=r"read up to offset 100, but it ends at offset 3.*epoch=1\)"):
        following.read(1)
    anew = Following(noida.brokers, own_topic, {f"{own_topic}:0": 100}, epoch=1, until_end=True)
    assert anew.read_to_the_end() == {f"{own_topic}~1:0": numbers(0, 3)}


def test_a_topic_that_is_made_anew_while_it_is_read_is_refused_however_long_it_has_grown(namespace: str) -> None:
    with Tansu() as broker:  # noida has no ids of topics
        broker.create(namespace)
        broker.append(namespace, 0, numbers(0, 100))
        following = Following(broker.brokers, namespace)
        following.await_that(lambda: sum(map(len, following.chunks)) == 100)
        following.await_that(lambda: following.reader._read_of is not None)
        broker.kill()
        broker.restart()
        broker.create(namespace)
        broker.append(namespace, 0, numbers(1000, 1300))
        with pytest.raises(StoreError, match=r"up to offset \d+, but its topic has another id since: .*epoch=1\)"):
            following.await_that(lambda: False)


def test_a_topic_of_which_nothing_was_read_may_be_made_anew(namespace: str) -> None:
    with Tansu() as broker:
        broker.create(namespace)
        following = Following(broker.brokers, namespace)
        following.poll()
        broker.kill()
        broker.restart()
        broker.create(namespace)
        broker.append(namespace, 0, numbers(0, 10))
        assert following.read(10) == {f"{namespace}:0": numbers(0, 10)}


def test_a_broker_that_lost_its_topics_is_refused_after_a_while(namespace: str) -> None:
    with Tansu() as broker:
        broker.create(namespace)
        broker.append(namespace, 0, numbers(0, 100))
        following = Following(broker.brokers, namespace, give_up_after_s=1.5)
        while sum(map(len, following.chunks)) < 100:
            following.poll()
        broker.kill()
        broker.restart()
        broker.create(namespace)
        broker.append(namespace, 0, numbers(0, 3))
        with pytest.raises(StoreError, match=r"up to offset 100, but it.* made anew"):
            following.read(101)


def test_partitions_are_at_their_end_as_long_as_the_broker_says_so(namespace: str) -> None:
    with Tansu() as broker:
        broker.create(namespace, 2)
        broker.append(namespace, 0, numbers(0, 3))
        following = Following(broker.brokers, namespace)
        assert following.reader.ends() == []
        both = {f"{namespace}:0", f"{namespace}:1"}
        following.await_that(lambda: {end.partition for end in following.reader.ends()} == both)
        broker.kill()
        following.await_that(lambda: following.reader.ends() == [])
        following.reader.close()


def test_a_broker_that_is_away_is_waited_for_and_then_said_in_one_line(
    namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.kafka_client.ANSWER_S_MAX", 0.5)
    with Tansu() as broker:
        broker.create(namespace)
        following = Following(broker.brokers, namespace, give_up_after_s=2.5)
        broker.kill()
        with pytest.raises(
            StoreUnavailableError, match=rf"Cannot reach topic '{namespace}' of 'clicks' \(Kafka at 127"
        ):
            following.read(1)
    assert following.retried, "so that a flow says, and counts, what it waits for"
    with pytest.raises(StoreUnavailableError, match="Cannot reach topic"):
        Following(f"127.0.0.1:{free_port()}", "nowhere", give_up_after_s=0.2)


def test_a_topic_that_is_not_there_is_said_and_not_made(broker: Broker, namespace: str) -> None:
    for _ in range(2):
        with pytest.raises(ConfigError, match=rf"There is no topic '{namespace}' of 'clicks' .*; create it"):
            Following(broker.brokers, namespace)
