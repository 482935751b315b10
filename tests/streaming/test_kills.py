"""Kills at random moments: whatever dies, both stores end as if nothing had happened."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.streaming.world import (
    World,
    await_that,
    check_archive,
    check_dead_letters,
    check_online,
    check_streamed,
    end,
    lines,
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
    check_archive(world)
    check_dead_letters(world)
    check_streamed(world)
    assert check_online(world) > 300
