"""Kills at random moments: whatever dies, both stores end as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from forebay.deploy.registry import Registry
from forebay.language.definitions import Definitions
from forebay.online.connection import REPLY_TIMEOUT_S, connect_online
from forebay.settings import Settings
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.server import free_port
from tests.infra.valkey import Valkey
from tests.streaming.scraped import scrape
from tests.streaming.world import (
    WAIT_S,
    World,
    await_that,
    check_archive,
    check_dead_letters,
    check_online,
    check_streamed,
    end,
    lines,
    orders,
)

WORKERS = (1, 2, 1, 2, 1, 1)
FEED = 700
"""Lines of each turn and partition."""


@pytest.mark.parametrize("seed", [1])
def test_kill_9_at_random_moments_loses_nothing_and_counts_nothing_twice(
    home: Path, online_url: str, namespace: str, seed: int
) -> None:
    world = World.make(home, online_url, namespace)
    rng = random.Random(seed)
    for turn, workers in enumerate(WORKERS):
        with world.flow("--workers", str(workers)) as process:
            before = world.applied(), world.archived()
            for n in range(6):
                for partition in ("a.ndjson", "b.ndjson", "c.ndjson"):
                    first = (turn * 6 + n) * FEED // 6
                    world.append(partition, lines(rng.randrange(10**9), FEED // 6, first=first))
            place = rng.choice(["online", "online", "archive", "both"])
            fed = sum(map(len, world.log.values()))
            goal = rng.randrange(before[0] + 1, fed)
            if place in ("online", "both"):
                await_that(lambda goal=goal: world.applied() >= goal, process)
            if place in ("archive", "both"):
                await_that(lambda before=before: world.archived() > before[1], process)
            code, _, _ = end(process, signal.SIGKILL)
            assert code == -signal.SIGKILL, f"seed {seed}, turn {turn}"
    said = world.run("--workers", "2")
    assert said["unfinished"] == []
    check_everything(world)


VICTIMS = ((1, 0), (2, 1), (2, 2), (4, 3), (2, 0))
"""Workers of each turn, and who is killed: the flow itself (0) or one of its workers."""


def test_kill_9_of_each_process_of_a_flow_loses_nothing_and_counts_nothing_twice(
    home: Path, online_url: str, namespace: str
) -> None:
    """The others end with it, in one line that says why; the next flow has more workers, or fewer."""
    world = World.make(home, online_url, namespace)
    for turn, (workers, victim) in enumerate(VICTIMS):
        with world.flow("--workers", str(workers)) as process:
            before = world.applied(), world.archived()
            for n, partition in enumerate(("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")):
                world.append(partition, lines(turn * 10 + n, FEED, first=turn * FEED))
            await_that(lambda before=before: world.applied() > before[0] and world.archived() > before[1], process)
            ids = [process.pid, *workers_of(process)]
            assert len(ids) == (1 if workers == 1 else 1 + workers)
            os.kill(ids[victim], signal.SIGKILL)
            _, errors = process.communicate(timeout=WAIT_S)
            if victim == 0:
                assert process.returncode == -signal.SIGKILL
            else:
                assert process.returncode == 2
                who = f"Worker {victim} of {workers} (process {ids[victim]}) was killed by signal 9"
                assert who in errors
                assert errors.count("\n") == 1
        await_that(lambda ids=ids: not any(is_running(pid) for pid in ids))
    assert world.run("--workers", "2")["unfinished"] == []
    check_everything(world)


def test_a_signal_drains_all_processes_and_their_counts_add_up(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    with world.flow("--workers", "2") as process:
        for n, partition in enumerate(("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")):
            world.append(partition, lines(n, FEED))
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), process)
        code, said, errors = end(process)
    assert (code, errors) == (0, "")
    summary = json.loads(said)
    assert summary["events"] == len(world.valid())
    assert sum(summary["dead"].values()) == sum(map(len, world.log.values())) - len(world.valid())
    assert set(summary["commits"]) == {"user_orders@1", "merchant_orders@1"}
    check_everything(world)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_while_workers_start_drains_them(
    home: Path, online_url: str, namespace: str, how: signal.Signals
) -> None:
    """As a terminal sends it, and systemd: to those too that Python still loads."""
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 2 * FEED))
    with world.flow("--workers", "2") as process:
        await_that(lambda: len(workers_of(process)) == 2, process)
        for pid in (process.pid, *workers_of(process)):
            os.kill(pid, how)
        said, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, "")
    assert json.loads(said)["unfinished"] == []
    world.run()
    check_everything(world)


def test_an_interrupt_while_python_loads_ends_the_process_without_a_stack(
    home: Path, online_url: str, namespace: str
) -> None:
    """It has read nothing yet, so there is nothing to drain; where it was quicker, it drains that."""
    world = World.make(home, online_url, namespace)
    with world.flow() as process:
        await_that(lambda: "pyarrow" in Path(f"/proc/{process.pid}/maps").read_text(), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert process.returncode in (-signal.SIGINT, 0)
    assert errors == ""


@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_of_the_workers_drains_all(home: Path, online_url: str, namespace: str, victim: int) -> None:
    world = World.make(home, online_url, namespace)
    with world.flow("--workers", "2") as process:
        for n, partition in enumerate(("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")):
            world.append(partition, lines(n, FEED))
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), process)
        os.kill(workers_of(process)[victim], signal.SIGTERM)
        errors = process.communicate(timeout=WAIT_S)[1]
    assert (process.returncode, errors) == (0, "")
    check_everything(world)


def test_workers_that_only_archive_are_fenced_by_those_of_the_next_flow(
    home: Path, online_url: str, namespace: str
) -> None:
    """Nothing of this source is in Redis, so it is the archive that tells them."""
    settings = Settings(home, online_url, str(home / "offline"), namespace=namespace)
    world = World(home, settings, connect_online(settings))
    Registry.open(settings, world.online).apply(Definitions.of(orders))
    (home / "orders").mkdir()
    names = ("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")
    for n, name in enumerate(names):
        world.append(name, lines(n, FEED))
    with world.flow("--workers", "2") as first:
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), first)
        number = world.offline.archive(orders).flow()
        with world.flow("--workers", "2") as second:
            await_that(lambda: world.offline.archive(orders).flow() > number, second)
            for n, name in enumerate(names):
                world.append(name, lines(10 + n, FEED, first=FEED))
            errors = first.communicate(timeout=WAIT_S)[1]
            assert (first.returncode, "Another flow took over" in errors) == (2, True), errors
            await_that(lambda: world.archived() == sum(map(len, world.log.values())), second)
            assert end(second)[0] == 0
    check_archive(world)
    check_dead_letters(world)


@pytest.mark.parametrize("paused", [1, 2])
def test_a_paused_worker_that_wakes_up_after_it_was_replaced_writes_nothing(
    home: Path, online_url: str, namespace: str, paused: int
) -> None:
    """
    first     worker 1 ────┤ SIGSTOP                      SIGCONT ├ fenced     the other one is fenced meanwhile
    second                     takes over, two workers ───────────────────▶

    Which of the two stores refuses the first is a race.
    """
    world, names = World.make(home, online_url, namespace), ("a.ndjson", "b.ndjson", "c.ndjson", "d.ndjson")

    def feed(turn: int) -> None:
        for n, name in enumerate(names):
            world.append(name, lines(10 * turn + n, FEED, first=turn * FEED))

    feed(0)
    with world.flow("--workers", "2") as first:
        await_that(lambda: world.applied() > 0, first)
        worker = workers_of(first)[paused - 1]
        os.kill(worker, signal.SIGSTOP)
        feed(1)
        with world.flow("--workers", "2") as second:
            await_that(lambda: world.archived() == sum(map(len, world.log.values())), second)
            feed(2)
            os.kill(worker, signal.SIGCONT)
            errors = first.communicate(timeout=WAIT_S)[1]
            assert (first.returncode, "took over" in errors) == (2, True), errors
            await_that(lambda: world.archived() == sum(map(len, world.log.values())), second)
            assert end(second)[0] == 0
    check_everything(world)


def test_an_s3_that_is_away_for_longer_than_that_ends_the_flow_and_the_next_one_archives_the_rest(
    home: Path, online_url: str, namespace: str, own_s3: SeaweedFs
) -> None:
    world = World.make(home, online_url, namespace, f"{own_s3.url}/{namespace}")
    world.append("a.ndjson", lines(1, FEED))
    with world.flow("--give-up-after", "5") as process:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), process)
        own_s3.kill()
        world.append("a.ndjson", lines(2, FEED, first=FEED))
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        errors = process.communicate(timeout=WAIT_S)[1]
    assert (process.returncode, errors.count("\n")) == (2, 1), errors
    own_s3.restart()
    assert world.run()["events"] > 0
    check_everything(world)


def test_an_s3_that_refuses_for_a_while_is_waited_for(
    home: Path, online_url: str, namespace: str, own_s3: SeaweedFs
) -> None:
    """Values are fresh meanwhile; what is not archived yet is archived when S3 is there again."""
    world, port = World.make(home, online_url, namespace, f"{own_s3.url}/{namespace}"), free_port()
    world.append("a.ndjson", lines(1, FEED))
    with world.flow("--log-format", "json", "--metrics-port", str(port)) as process:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), process)
        own_s3.kill()
        before = world.applied()
        world.append("a.ndjson", lines(2, FEED, first=FEED))
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]) > before, process)
        time.sleep(5)
        own_s3.restart()
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), process)
        assert scrape(port)["retries_total",] >= 1
        code, _, errors = end(process)
    assert code == 0
    ours = [line for line in errors.splitlines() if line.startswith("{")]  # deltalake's writer prints its own panics
    assert "retry" in {json.loads(line)["event"] for line in ours}
    check_everything(world)


@pytest.mark.parametrize(("workers", "how"), [("1", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_second_signal_does_not_wait_for_a_store_that_hangs(
    home: Path, own_valkey: Valkey, namespace: str, workers: str, how: signal.Signals
) -> None:
    world = World.make(home, own_valkey.url, namespace)
    world.append("a.ndjson", lines(1, FEED))
    pid = own_valkey.connect().info("server")["process_id"]
    with world.flow("--workers", workers) as process:
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        others = workers_of(process)
        os.kill(pid, signal.SIGSTOP)
        world.append("a.ndjson", lines(2, FEED, first=FEED))
        process.send_signal(how)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1.0)
        process.send_signal(how)
        assert process.wait(timeout=REPLY_TIMEOUT_S) == -how
        await_that(lambda: not any(map(is_running, others)))
        os.kill(pid, signal.SIGCONT)
    world.run()
    check_everything(world)


def check_everything(world: World) -> None:
    """Both stores are as if nothing had happened."""
    check_archive(world)
    check_dead_letters(world)
    check_streamed(world)
    assert check_online(world) > 300


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a flow's workers, in their order."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    named = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children}
    return sorted(int(pid) for pid, command in named.items() if "spawn_main" in command)


def is_running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
