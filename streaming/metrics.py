"""What a flow counts and times, for Prometheus.

Lives here: the names and what feeds them; one process has one `Metrics`. Counters count what is *durable*: an event is
counted when the archive has it, so a restart counts nothing twice. Invariants: nothing that is computed depends on a
metric; the endpoint listens on 127.0.0.1 alone, because names of sources and partitions are nobody else's business.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from forebay.errors import ConfigError
from forebay.instants import SECOND_US
from streaming.backlog import Backlog
from streaming.board import STORES
from streaming.status import PartitionStatus

ADDRESS = "127.0.0.1"
WRITE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
AGES_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 3600)
PREFIX = "forebay_stream_"

T = TypeVar("T")
Ints = npt.NDArray[np.int64]


class Ages(Collector):
    """A histogram of the ages of events, filled a column at a time: one call for thousands of them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._edges, self._lock = np.array(AGES_S), threading.Lock()
        self._counts: dict[str, Ints] = {}
        self._sums: Counts[str] = Counts()
        registry.register(self)

    def observe(self, view: str, ages_us: Ints) -> None:
        """Events of these ages were committed to a view."""
        ages_s = np.maximum(ages_us, 0) / SECOND_US
        counts = np.bincount(np.searchsorted(self._edges, ages_s), minlength=len(self._edges) + 1)
        with self._lock:
            self._counts[view] = self._counts.get(view, 0) + counts
            self._sums[view] += ages_s.sum()

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """As Prometheus asks for it."""
        what = "From an event's instant until it was committed online, in seconds"
        family = HistogramMetricFamily(f"{PREFIX}freshness_seconds", what, labels=["view"])
        with self._lock:
            for view, counts in self._counts.items():
                edges = [*(str(float(edge)) for edge in AGES_S), "+Inf"]
                buckets = list(zip(edges, np.cumsum(counts).tolist(), strict=True))
                family.add_metric([view], buckets, float(self._sums[view]))
        yield family


class Metrics:
    """The metrics of one process of a flow."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._events = self._counter("events", "Events that the archive got", ["source"])
        self._late = self._counter("late_events", "Of them, events later than their source's lateness", ["source"])
        self._duplicates = self._counter("duplicates", "Duplicates that were dropped", ["source"])
        self._dead = self._counter("dead_letters", "Events that were refused", ["source", "reason"])
        self._beats = self._counter("heartbeats", "Heartbeats that reached the online store", ["source"])
        self._rollups = self._counter("rollups", "Entities whose pending tiles were rolled up", [])
        self._retries = self._counter("retries", "Tries again of a store that could not be reached", [])
        self._lag_events = self._gauge("lag_events", "Events that wait in a partition's log", ["source", "partition"])
        self._lag_s = self._gauge(
            "lag_seconds",
            "How far the newest applied event is behind the wall clock, while any waits",
            ["source", "partition"],
        )
        self._watermark = self._gauge(
            "watermark_timestamp_seconds", "Up to where a partition is applied online", ["source", "partition"]
        )
        self._told: dict[str, set[str]] = {}
        """The partitions of each source of which something is told."""
        self._backlog = self._gauge("backlog_events", "Events that were read and wait for a store", ["store"])
        self._bound = self._gauge("backlog_limit_events", "From here on readers wait", [])
        self._writes = Histogram(
            f"{PREFIX}write_seconds",
            "One commit, each try",
            ["store"],
            registry=self.registry,
            buckets=WRITE_S,
        )
        self.ages = Ages(self.registry)

    def archived(self, source: str, events: int, late: int, duplicates: int, dead: Mapping[str, int]) -> None:
        """A flush of a source is durable."""
        for counter, count in ((self._events, events), (self._late, late), (self._duplicates, duplicates)):
            counter.labels(source).inc(count)
        for reason, count in dead.items():
            self._dead.labels(source, reason).inc(count)

    def beaten(self, source: str) -> None:
        """A heartbeat is online."""
        self._beats.labels(source).inc()

    def rolled_up(self, entities: int) -> None:
        """Pending tiles were rolled up."""
        self._rollups.inc(entities)

    def retried(self) -> None:
        """A store could not be reached, and is tried again."""
        self._retries.inc()

    def timed(self, store: str, write: Callable[[], T]) -> Callable[[], T]:
        """A write that is timed each time it is tried."""
        times = self._writes.labels(store)

        def run() -> T:
            with times.time():
                return write()

        return run

    def watch(self, backlog: Backlog) -> None:
        """Tell what waits in a backlog whenever somebody asks."""
        for store in STORES:
            self._backlog.labels(store).set_function(lambda store=store: backlog.waiting(store))
        self._bound.set(backlog.events_max)

    def lagging(self, source: str, partitions: Iterable[PartitionStatus]) -> None:
        """How far the partitions of a source are. What is not known any more is not told."""
        told = {one.partition: one for one in partitions}
        for name in self._told.get(source, set()) - told.keys():
            self._tell(source, name, None, None, None)
        self._told[source] = {*told}
        for name, one in told.items():
            watermark_s = None if one.watermark_us is None else one.watermark_us / SECOND_US
            self._tell(source, name, one.lag_events, one.lag_s, watermark_s)

    def _tell(self, source: str, partition: str, *values: float | None) -> None:
        for gauge, value in zip((self._lag_events, self._lag_s, self._watermark), values, strict=True):
            if value is None:
                gauge.remove(source, partition)
            else:
                gauge.labels(source, partition).set(value)

    @contextmanager
    def served(self, port: int) -> Iterator[None]:
        """Within the block the metrics are at http://127.0.0.1:<port>/metrics. Raises `ConfigError`."""
        with _listening(port):
            server, thread = start_http_server(port, ADDRESS, self.registry)
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _counter(self, name: str, what: str, labels: list[str]) -> Counter:
        return Counter(PREFIX + name, what, labels, registry=self.registry)

    def _gauge(self, name: str, what: str, labels: list[str]) -> Gauge:
        return Gauge(PREFIX + name, what, labels, registry=self.registry)


def port_of_worker(metrics_port: int, worker: int) -> int:
    """Where a worker that is a process of its own serves its metrics."""
    return metrics_port + 1 + worker


def check_port(port: int) -> None:
    """Raise `ConfigError` where metrics could not be served at a port now."""
    with _listening(port):
        socket.create_server((ADDRESS, port)).close()


@contextmanager
def _listening(port: int) -> Iterator[None]:
    try:
        yield
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--metrics-port {port} cannot be listened on ({error}); choose a free one") from None
