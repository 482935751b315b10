"""What a flow says while it runs: every interesting thing once, nothing that is secret, and only if asked."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.infra.valkey import Valkey
from tests.streaming.world import WAIT_S, World, await_that, end, lines, orders

SECRET = "hunter2"


def events(errors: str) -> list[dict[str, Any]]:
    """The lines, each a JSON object with what every line has."""
    found = [json.loads(line) for line in errors.splitlines()]
    assert all({"event", "level", "at"} <= one.keys() for one in found)
    return found


def named(found: list[dict[str, Any]], event: str) -> list[dict[str, Any]]:
    return [one for one in found if one["event"] == event]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_happens_is_said_in_lines_of_json(home: Path, online_url: str, namespace: str, workers: int) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", [*lines(1, 300), f'{{"event_id": "{SECRET}", "ts": "{SECRET}"}}'.encode()])
    offered = len(world.log["a.ndjson"]) - len(world.valid()) + 1  # the secret one looks like an event
    arguments = ("--log-format", "json", "--workers", str(workers))
    with world.flow(*arguments) as first:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), first)
        fences = world.fences()
        with world.flow(*arguments) as second:
            await_that(lambda: not set(world.fences()) & set(fences), second)
            world.append("a.ndjson", lines(2, 300, first=300))  # a writer finds out when it writes
            errors = first.communicate(timeout=60)[1]
            await_that(lambda: world.archived() == len(world.log["a.ndjson"]), second)
            said = events(errors)
            assert first.returncode == 2
            assert end(second, signal.SIGTERM)[0] == 0
    (began,), (stopped,) = named(said, "begin"), named(said, "stop")
    assert (began["flow"], began["workers"], began["positions"]) == (1, workers, {})
    dead = {k: v for one in named(said, "dead_letters") for k, v in one.items() if isinstance(v, int) and k != "worker"}
    assert sum(dead.values()) == offered
    assert {day for one in named(said, "late") for day in one["marked"]} <= {day for _, day, _ in world.repairs()}
    assert sum(one["events"] for one in named(said, "late")) > 0
    assert stopped["level"] == "error"
    assert "took over" in stopped["why"]
    assert SECRET not in errors


def test_a_takeover_a_loss_and_a_signal_are_said(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 300))
    with world.flow() as first:
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), first)
        for key in world.online.scan_iter(f"{namespace}:*:progress:*", 1000):
            world.online.delete(key)
        with world.flow("--log-format", "json") as second:
            await_that(lambda: world.applied() == len(world.log["a.ndjson"]), second)
            code, _, errors = end(second)
    said = events(errors)
    assert code == 0
    assert named(said, "takeover")[0]["taken_over"] == 1
    assert {one["view"] for one in named(said, "loss")} == {"user_orders@1", "merchant_orders@1"}
    assert named(said, "begin")[0]["positions"]["orders/a.ndjson"]["archived"] == len(world.log["a.ndjson"])
    assert named(said, "stop")[0]["why"] == "signal"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_store_that_is_away_is_said_without_its_password(home: Path, namespace: str, workers: str) -> None:
    with Valkey("--requirepass", SECRET) as server:
        world = World.make(home, server.url.replace("redis://", f"redis://:{SECRET}@"), namespace)
        world.append("a.ndjson", lines(1, 100))
        with world.flow("--log-format", "json", "--give-up-after", "0.5", "--workers", workers) as process:
            await_that(lambda: world.applied() > 0, process)
            server.kill()
            world.append("a.ndjson", lines(2, 100, first=100))
            errors = process.communicate(timeout=60)[1]
    said = events(errors)
    assert named(said, "retry")
    assert all("cannot be reached" in one["why"] for one in named(said, "retry"))
    assert (process.returncode, named(said, "stop")[0]["level"]) == (2, "error")
    assert SECRET not in errors


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_flow_that_is_to_wait_for_no_store_tries_none_again(home: Path, namespace: str, workers: str) -> None:
    with Valkey() as server:
        world = World.make(home, server.url, namespace)
        world.append("a.ndjson", lines(1, 100))
        with world.flow("--log-format", "json", "--give-up-after", "0", "--workers", workers) as process:
            await_that(lambda: world.applied() > 0, process)
            server.kill()
            world.append("a.ndjson", lines(2, 100, first=100))
            errors = process.communicate(timeout=WAIT_S)[1]
    said = events(errors)
    assert named(said, "retry") == []
    assert (process.returncode, named(said, "stop")[0]["level"]) == (2, "error")


def test_text_is_for_people(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 50))
    with world.flow("--until-end", "--log-format", "text") as process:
        errors = process.communicate(timeout=60)[1]
    assert " begin " in errors.splitlines()[0]
    assert " stop " in errors.splitlines()[-1]
    assert orders.name in errors
