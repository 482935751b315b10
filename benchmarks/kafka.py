"""The same stream from a Kafka topic: what an event costs beside a file, and how soon it can be read.

    broker ──▶ python -m streaming ──▶ both stores      beside: the same events from files; Bytewax' own Kafka source
                                                        before the per-event flow; consuming alone, the least there is

A broker, a flow and Redis share the machine here, so what is compared is the CPU time of the flow. The probes are those
of `freshness`: the clock starts before a message is produced, and the broker's acknowledgement is not waited for.
Costs are those with Tansu, since noida-db answers a fetch that has to wait at once, so that its clients never rest;
delays are those with noida-db, since Tansu takes some milliseconds for each of the small batches of a steady rate.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks.deployment import deployed
from benchmarks.flows import Flows
from benchmarks.freshness import Size as ProbesSize
from benchmarks.freshness import delays, probing
from benchmarks.logs import Topics, consumer_of
from benchmarks.report import MORE, OURS, Comparison, Report
from benchmarks.rounds import Contender, Measured, interleaved
from benchmarks.shop import LIVE, live_from
from forebay.language.source import KafkaTopic
from streaming.chunk import EVENTS_MAX
from tests.infra.kafka import Broker
from tests.infra.noida import Noida
from tests.infra.tansu import Tansu

FILES, PER_EVENT, CONSUME = "from files", "per-event Bytewax flow (Redis only)", "consume alone"
TOPIC, PROBED = "purchases", "probed"


@dataclass(frozen=True)
class Size:
    """Events a round, and seconds of probes at each rate."""

    users: int = 200_000
    history: int = 300_000
    timed: int = 300_000
    timed_per_event: int = 40_000
    seconds: float = 5.0
    rounds: int = 3


TINY = Size(users=50, history=0, timed=2_000, timed_per_event=2_000, seconds=0.3, rounds=1)


def run(size: Size) -> Report:
    """Measure the flow from a topic, then how fresh it is."""
    with Tansu() as broker:
        comparisons = _costs(broker, size)
    with Noida() as broker:
        comparisons += _delays(broker, size)
    setting = (
        f"2 views × 3 windows × 6 aggregates, {size.users:,} users, {size.history:,} events before, {size.timed:,} "
        f"timed; {size.seconds:g} s of probes at each rate"
    )
    return Report("kafka", setting, size.rounds, comparisons)


def _costs(broker: Broker, size: Size) -> list[Comparison]:
    stream = KafkaTopic(TOPIC, brokers=broker.brokers)
    with deployed(live_from(stream)) as from_topic, deployed(LIVE) as from_files:
        topics = Topics(broker, TOPIC)
        ours, files = Flows(from_topic, size.users), Flows(from_files, size.users)
        ours.logs = topics
        for flows in (ours, files):
            if size.history:
                flows.fill(size.history)
        contenders: dict[str, Contender] = {
            OURS: lambda: ours.ours(size.timed),
            FILES: lambda: files.ours(size.timed),
            PER_EVENT: lambda: ours.per_event(size.timed_per_event),
            CONSUME: lambda: _consumed(topics.name, size.timed),
        }
        samples = interleaved(contenders, size.rounds, warm_up=False)
    return [
        Comparison.of("from a topic, worker CPU", samples, PER_EVENT, "cpu_us", "µs/event"),
        Comparison.of("from a topic, worker CPU", samples, FILES, "cpu_us", "µs/event"),
        Comparison.of("from a topic, worker CPU", samples, CONSUME, "cpu_us", "µs/event"),
        Comparison.of("from a topic, one worker", samples, PER_EVENT, "per_s", "events/s", better=MORE),
        Comparison.of("from a topic, one worker", samples, FILES, "per_s", "events/s", better=MORE),
    ]


def _delays(broker: Broker, size: Size) -> list[Comparison]:
    probes_size = ProbesSize(seconds=size.seconds, rounds=size.rounds)
    with deployed(live_from(KafkaTopic(PROBED, brokers=broker.brokers))) as deployment:
        log = Topics(broker, PROBED).name
        with probing(deployment, probes_size, log) as probes:
            return delays(probes, size.rounds)


def _consumed(name: str, count: int) -> Measured:
    """Taking messages over from Kafka's client, and their values, in this process."""
    consumer, taken, began_s = consumer_of(name), 0, time.process_time()
    while taken < count:
        taken += len([message.value() for message in consumer.consume(EVENTS_MAX, 0.1)])
    cpu_s = time.process_time() - began_s
    consumer.close()
    return {"cpu_us": cpu_s / taken * 1e6}
