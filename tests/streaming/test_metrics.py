"""What Prometheus sees of a real flow is what the log holds; nobody else sees it, and nothing else changes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from forebay.errors import ConfigError, StoreUnavailableError
from forebay.instants import SECOND_US
from forebay.language.definitions import Definitions
from streaming import alive
from streaming.backlog import EVENTS_MAX
from streaming.board import STORES
from streaming.metrics import AGES_S, Ages, Metrics
from streaming.parts import Task
from streaming.status import PartitionStatus
from streaming.turns import taken_every
from tests.docs.pages import ROOT, table
from tests.infra.server import free_port, listens
from tests.infra.valkey import Valkey
from tests.streaming.scraped import samples, scrape
from tests.streaming.world import VIEWS, World, await_that, end, lines, orders


def test_a_flow_is_scraped(home: Path, online_url: str, namespace: str) -> None:
    world, port = World.make(home, online_url, namespace, dedupe="10m"), free_port()
    out = lines(1, 400)
    world.append("a.ndjson", [*out, *out[-20:]])
    count, events = len(world.log["a.ndjson"]), len(world.valid())
    with world.flow("--metrics-port", str(port)) as process:
        await_that(lambda: world.archived() == count, process)
        await_that(lambda: scrape(port).get(("lag_events", "a.ndjson", "orders")) == 0, process)
        await_that(lambda: scrape(port)["backlog_events", "streamed"] == 0, process)
        found = scrape(port)
        assert {address.partition(":")[0] for address in listening(process.pid)} <= {"0100007F"}
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[0]
    dead = Counter({key[1]: value for key, value in found.items() if key[0] == "dead_letters_total"})
    assert found["events_total", "orders"] == events
    assert found["duplicates_total", "orders"] == len(world.offered()) - events > 0
    assert sum(dead.values()) == count - len(world.offered()) > 0
    assert f'"late": {int(found["late_events_total", "orders"])}' in said
    assert found["lag_seconds", "a.ndjson", "orders"] == 0
    assert found["watermark_timestamp_seconds", "a.ndjson", "orders"] > 1_700_000_000
    assert [found["backlog_events", store] for store in STORES] == [0, 0, 0]
    assert found["backlog_limit_events",] == EVENTS_MAX
    assert all(found["write_seconds_count", store] >= 1 for store in ("online", "archive", "streamed"))
    assert found["freshness_seconds_count", VIEWS[1].key] == events
    assert found["freshness_seconds_bucket", "3600.0", VIEWS[1].key] == 0, "a log of years ago is not fresh"
    assert found["heartbeats_total", "orders"] >= 1
    assert found["retries_total",] == 0
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_what_is_read_again_is_no_fresher_for_it(home: Path, online_url: str, namespace: str) -> None:
    world, port = World.make(home, online_url, namespace), free_port()
    world.append("a.ndjson", lines(1, 400))
    world.run()
    shutil.rmtree(home / "offline" / "streamed")
    before = len(world.valid())
    world.append("a.ndjson", lines(2, 50, first=400))
    new = len(world.valid()) - before
    with world.flow("--metrics-port", str(port)) as process:
        await_that(lambda: sum(world.offline.streamed(VIEWS[1]).positions().values()) > 0, process)
        await_that(lambda: scrape(port)["events_total", "orders"] == new, process)
        found = scrape(port)
        end(process)
    assert found["freshness_seconds_count", VIEWS[1].key] == new > 20


def test_what_waits_is_told_and_each_worker_tells_its_own(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world, port = World.make(home, own_valkey.url, namespace), ports_in_a_row(3)
    names = ("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")
    for n, name in enumerate(names):
        world.append(name, lines(n, 100, first=100 * n))
    with world.flow("--metrics-port", str(port), "--workers", "2") as flow:
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        own_valkey.connect().execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        for n, name in enumerate(names):
            world.append(name, lines(n, 100, first=1000 + 100 * n))
        await_that(lambda: scrape(port).get(("lag_seconds", "a.ndjson", "orders"), 0) > 0, flow)
        found = scrape(port)
        assert not any(key[0] == "backlog_events" for key in scrape(port + 1)), "once, so that all may be added up"
        assert {name: found["lag_events", name, "orders"] for name in names} == {
            name: len(some) - len(lines(n, 100)) for n, (name, some) in enumerate(world.log.items())
        }
        assert found["lag_seconds", "a.ndjson", "orders"] > 86_400, "the events are of a year ago"
        assert 0 < found["backlog_events", "online"] <= found["backlog_limit_events",] == 2 * EVENTS_MAX
        own_valkey.connect().execute_command("CLIENT", "UNPAUSE")
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        await_that(lambda: sum(_events(port, 2)) == len(world.valid()), flow)
        events = _events(port, 2)
        await_that(lambda: scrape(port)["lag_seconds", "a.ndjson", "orders"] == 0, flow)
        assert scrape(port)["lag_events", "a.ndjson", "orders"] == scrape(port)["backlog_events", "online"] == 0
        assert end(flow)[0] == 0
    assert min(events) > 0


def _events(port: int, workers: int) -> list[float]:
    """What each worker has counted, which it does when it is durable."""
    return [scrape(port + 1 + worker).get(("events_total", "orders"), 0) for worker in range(workers)]


def test_without_the_option_nothing_listens_and_a_taken_port_is_refused(
    home: Path, online_url: str, namespace: str
) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 20))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        flow = world.start("--metrics-port", str(taken.getsockname()[1]))
        errors = flow.communicate(timeout=60)[1]
    assert (flow.returncode, errors.count("\n")) == (2, 1)
    assert "choose a free one" in errors
    with world.flow() as flow:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), flow)
        assert not listening(flow.pid)
        assert end(flow)[0] == 0


def listening(pid: int) -> list[str]:
    """The TCP sockets on which a process listens, as Linux tells; elsewhere nobody knows."""
    folder = Path(f"/proc/{pid}")
    if not folder.exists():
        return []
    links = []
    for link in (folder / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(link))
    mine = {name for link in links for name in re.findall(r"socket:.(\d+)", link)}
    rows = [line.split() for name in ("tcp", "tcp6") for line in (folder / "net" / name).read_text().splitlines()[1:]]
    return [row[1] for row in rows if row[3] == "0A" and row[9] in mine]


def ports_in_a_row(count: int) -> int:
    """The first of some ports on which nobody listens."""
    while True:
        first = free_port()
        if not any(listens(first + n) for n in range(count)):
            return first


def test_what_is_not_known_any_more_is_not_told() -> None:
    metrics = Metrics()
    known = PartitionStatus("a", 9, 5, 5, 4, 60.0, 10 * SECOND_US, "behind")
    metrics.lagging("s", [known, replace(known, partition="b")])
    metrics.lagging("t", [known])
    metrics.lagging("s", [replace(known, lag_events=None, lag_s=None)])
    found = samples(generate_latest(metrics.registry).decode())
    told = {key: value for key, value in found.items() if len(key) == 3 and key[1] in ("a", "b")}
    watermark = "watermark_timestamp_seconds"
    assert told == {
        (watermark, "a", "s"): 10,
        **{(name, "a", "t"): value for name, value in (("lag_events", 4), ("lag_seconds", 60), (watermark, 10))},
    }


def test_what_cannot_be_measured_is_not_told(
    home: Path, own_valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alive, "LAG_INTERVAL_S", 0.05)
    world, metrics = World.make(home, own_valkey.url, namespace), Metrics()
    world.append("a.ndjson", lines(1, 100))
    world.run()

    def told() -> set[str]:
        found = samples(generate_latest(metrics.registry).decode())
        return {key[0] for key in found if key[1:] == ("a.ndjson", "orders")}

    task = Task(world.settings, Definitions.of(*VIEWS), [orders])
    with alive.lag_measured(task, own_valkey.connect(), metrics):
        for _ in range(2):
            await_that(lambda: told() == {"lag_events", "lag_seconds", "watermark_timestamp_seconds"})
            own_valkey.kill()
            await_that(lambda: told() == set())
            own_valkey.restart()


def test_a_turn_that_fails_is_not_the_last() -> None:
    done: list[int] = []

    def step() -> None:
        done.append(len(done))
        raise [StoreUnavailableError("away"), ValueError("odd")][len(done) % 2]

    with capture_logs() as said, taken_every(0.001, "odd jobs", step):
        await_that(lambda: len(done) > 4)
    assert {(one["event"], one["step"], one["why"]) for one in said} == {("step_failed", "odd jobs", "ValueError: odd")}


def test_ages_are_counted_a_column_at_a_time() -> None:
    registry = CollectorRegistry()
    ages = Ages(registry)
    ages.observe("v", np.array([0.002, 0.0021, 1, 4000, -5]) * SECOND_US)
    ages.observe("v", np.array([0.5]) * SECOND_US)
    found = samples(generate_latest(registry).decode())
    counts = [found["freshness_seconds_bucket", str(float(edge)), "v"] for edge in AGES_S]
    assert counts[:3] == [2, 3, 3], "an edge is within its bucket, an event ahead of the clock is of no age"
    assert (counts[-1], found["freshness_seconds_bucket", "+Inf", "v"]) == (5, 6)
    assert found["freshness_seconds_sum", "v"] == pytest.approx(0.0041 + 1 + 4000 + 0.5)


def test_a_write_is_timed_from_its_begin_to_its_end_each_time_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics, now_s = Metrics(), 0.0

    def write() -> str:
        nonlocal now_s
        now_s += 2.0
        return "written"

    monkeypatch.setattr("prometheus_client.context_managers.default_timer", lambda: now_s)
    run = metrics.timed("online", write)
    assert [run(), run()] == ["written", "written"]
    found = samples(generate_latest(metrics.registry).decode())
    assert (found["write_seconds_count", "online"], found["write_seconds_sum", "online"]) == (2, 4.0)


def test_a_port_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="--metrics-port 70000"), Metrics().served(70000):
        pass


def test_the_page_lists_every_metric() -> None:
    rows = table(ROOT / "docs/operations.md", "Metrics", "metric")
    names = {family.name for family in Metrics().registry.collect()}
    documented = {row[0].strip("`").partition("{")[0].removesuffix("_total") for row in rows}
    assert documented == {name.removeprefix("forebay_stream_") for name in names}
