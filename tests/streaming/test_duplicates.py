"""Duplicates are one event in every path, wherever the log was cut, read again or left off by a crash."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.streaming.world import World, await_that, check, check_archive, end, lines, with_repeats

PARTITIONS = ("a.ndjson", "b.ndjson")
DEDUPE = "10m"


def forget(world: World, pattern: str) -> None:
    """Lose keys of the online store."""
    for key in world.online.scan_iter(f"{world.settings.namespace}:{pattern}", 1000):
        world.online.delete(key)


@pytest.mark.parametrize("seed", range(3))
def test_the_stores_hold_distinct_events_whatever_is_run_again(
    home: Path, online_url: str, namespace: str, seed: int
) -> None:
    """Adjacent, across chunks, across restarts with other workers, reordered, and after the online store was lost."""
    world, rng = World.make(home, online_url, namespace, dedupe=DEDUPE), random.Random(seed)
    log = {name: with_repeats(seed * 10 + n, lines(seed * 10 + n, 2500, rate=1.5)) for n, name in enumerate(PARTITIONS)}
    dropped = archived = 0
    while any(log.values()):
        for name in PARTITIONS:
            count = rng.choice([1, 7, 300, 1500])
            world.append(name, log[name][:count])
            log[name] = log[name][count:]
        if rng.random() < 0.3:
            forget(world, "*")
        said = world.run("--workers", str(rng.choice([1, 2, 8])))
        dropped, archived = dropped + said["duplicates"], archived + said["events"]
        assert said["sources"].get("orders", {}).get("duplicates", 0) == said["duplicates"]
    check(world, 150)
    distinct, offered = len(world.valid()), len(world.offered())
    assert (archived, dropped) == (distinct, offered - distinct), f"seed {seed}"
    assert dropped > 300
    forget(world, "*")
    assert world.run()["duplicates"] == 0, "what the archive decided is not decided again"
    check(world, 150)


@pytest.mark.parametrize("seed", [7])
def test_kill_9_among_duplicates_lets_none_of_them_through(
    home: Path, online_url: str, namespace: str, seed: int
) -> None:
    world, rng = World.make(home, online_url, namespace, dedupe=DEDUPE), random.Random(seed)
    log = {name: with_repeats(seed * 10 + n, lines(seed * 10 + n, 2400, rate=1.5)) for n, name in enumerate(PARTITIONS)}
    for turn, workers in enumerate((1, 2, 1, 2)):
        with world.flow("--workers", str(workers)) as process:
            before = world.applied(), world.archived()
            for name in PARTITIONS:
                world.append(name, log[name][:600])
                log[name] = log[name][600:]
            goal = rng.randrange(before[0] + 1, sum(map(len, world.log.values())))
            if turn % 2:
                await_that(lambda goal=goal: world.applied() >= goal, process)
            else:
                await_that(lambda before=before: world.archived() > before[1], process)
            code, _, _ = end(process, signal.SIGKILL)
            assert code == -signal.SIGKILL, f"seed {seed}, turn {turn}"
    for name in PARTITIONS:
        world.append(name, log[name])
    world.run("--workers", "2")
    check(world, 150)
    assert len(world.offered()) - len(world.valid()) > 300


def test_without_dedupe_all_count(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", with_repeats(3, lines(3, 400)))
    said = world.run()
    assert said["duplicates"] == 0
    assert said["events"] == len(world.offered())
    check(world, 150)


def test_partitions_know_nothing_of_each_other(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace, dedupe=DEDUPE)
    for name in PARTITIONS:
        world.append(name, lines(5, 100))
    said = world.run()
    assert said["events"] == len(world.valid()) > 190
    check_archive(world)
