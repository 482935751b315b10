"""Who writes the topic, and what is in it: late, early, tied, repeated and broken lines, without a pause.

Lives here: a thread that produces, and the reading of the whole log by a client of its own at the end. What was
produced is what the broker then has: all that it acknowledged, and maybe more (a message whose acknowledgement was
lost is there, and may be there twice).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from forebay.ingest.batch import TOMBSTONE
from tests.simulation.shop import Customers, Line, Log
from tests.torture.ground import FETCH_WAIT_MS, PARTITIONS, TOPIC, Ground

BUYERS, SHOPS = tuple(f"b{n}" for n in range(40)), tuple(f"s|{n}" for n in range(9))
RATE = 50
"""Lines a second: enough that a flow always has work, little enough that nested loops can check them."""
TURN_S = 0.02
LINGER_MS = 700
"""Tansu keeps each batch as an object and looks through them at each fetch: of many small ones it gives nothing."""
FLUSH_S, GIVEN_S = 120.0, 30.0
QUIET_S = 3.0
"""A log that gives nothing for so long, and has all that was acknowledged, is at its end."""
TOMBSTONES = 0.002


class Production(threading.Thread):
    """Produces until it is told to stop."""

    def __init__(self, ground: Ground, seed: int) -> None:
        super().__init__(name="producer", daemon=True)
        self._ground, self._chance = ground, random.Random(seed)
        self._customers = Customers(self._chance, BUYERS, SHOPS)
        self._enough = threading.Event()
        self._producer = Producer(ground.broker.client | {"linger.ms": LINGER_MS, "acks": "all"})
        self.lines: dict[bytes, Line] = {}
        self._partitions = ground.partitions[ground.sales.source.name]
        self.acknowledged: dict[str, int] = dict.fromkeys(self._partitions, 0)
        """By partition, the offset behind the newest message that the broker has."""
        self.made = 0
        self.refused = 0
        """Messages that the broker did not acknowledge; they may be there all the same."""

    def run(self) -> None:
        """Some lines each turn."""
        while not self._enough.wait(TURN_S):
            for _ in range(round(RATE * TURN_S)):
                self._produce(self._line())
            self._producer.poll(0)

    def stop(self) -> None:
        """Produce no more; returns when the broker has answered for everything."""
        self._enough.set()
        self.join()
        left = self._producer.flush(FLUSH_S)
        assert not left, f"of {left} messages the broker said nothing"

    def _line(self) -> Line:
        now_us = time.time_ns() // 1000
        if self._chance.random() < TOMBSTONES:
            return Line(b"", None, now_us, TOMBSTONE)
        return self._customers.line(now_us)

    def _produce(self, line: Line) -> None:
        self.lines.setdefault(line.raw, line)
        self.made += 1
        self._producer.produce(TOPIC, line.raw or None, b"key", self._chance.randrange(PARTITIONS), self._delivered)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.refused += 1
            return
        name, offset = f"{TOPIC}:{message.partition()}", message.offset()
        assert offset is not None
        self.acknowledged[name] = max(offset + 1, self.acknowledged[name])

    def log(self) -> Log:
        """All that the broker has, read from the beginning."""
        log = Log(self._ground.sales.source.dedupe is not None, {name: {} for name in self._partitions})
        read_s = time.monotonic()
        with self._reader() as consumer:
            while time.monotonic() - read_s < QUIET_S or not self._has_all(log):
                for name, offset, value in _messages(consumer):
                    log.lines[name][offset] = self.lines[value]
                    read_s = time.monotonic()
                assert time.monotonic() - read_s < FLUSH_S, "the broker does not give what it acknowledged"
        return log

    def given(self) -> dict[str, int]:
        """How far a client of its own is given each partition, within a while."""
        ends, began_s = dict.fromkeys(self.acknowledged, 0), time.monotonic()
        with self._reader() as consumer:
            while time.monotonic() - began_s < GIVEN_S and ends != self.acknowledged:
                ends |= {name: offset + 1 for name, offset, _ in _messages(consumer)}
        return ends

    @contextmanager
    def _reader(self) -> Iterator[Consumer]:
        settings: dict[str, Any] = {
            "group.id": "reckoning",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": FETCH_WAIT_MS,
        }
        consumer = Consumer(self._ground.broker.client | settings)
        consumer.assign([TopicPartition(TOPIC, n, 0) for n in range(PARTITIONS)])
        yield consumer
        consumer.close()

    def _has_all(self, log: Log) -> bool:
        return all(next(reversed(log.lines[name]), -1) + 1 >= end for name, end in self.acknowledged.items())


def _messages(consumer: Consumer) -> Iterator[tuple[str, int, bytes]]:
    for message in consumer.consume(1000, timeout=0.2):
        offset = message.offset()
        if message.error() is None and offset is not None:
            yield f"{TOPIC}:{message.partition()}", offset, message.value() or b""
