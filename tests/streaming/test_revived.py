"""Dead letters that are replayed after a fix are in both stores once, like any event, and nothing else changes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from forebay.deploy.outdated import outdated_sources
from forebay.deploy.registry import Registry
from forebay.ingest.batch import BEFORE_HISTORY, EVENT_BYTES_MAX
from forebay.instants import DAY_US, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.offline.archive import REVIVED
from forebay.offline.revived import Judge, Outcome
from forebay.online.lane import wall_clock_us
from forebay.online.signs import Signs
from tests.streaming.world import (
    START_US,
    VIEWS,
    World,
    await_that,
    check_archive,
    check_online,
    end,
    lines,
    orders,
)

MENDED = replace(orders, history_start="2023-01-01")


def ancient(n: int) -> bytes:
    """An event before history starts: a dead letter, until the definition is mended."""
    event = {"event_id": f"old{n}", "user": f"u{n % 5}", "merchant": "m1", "amount": n, "kind": "paid"}
    return json.dumps(event | {"ts": instant_text(START_US - 100 * DAY_US + n)}).encode()


@pytest.fixture
def world(home: Path, online_url: str, namespace: str) -> World:
    """A log whose file `old.ndjson` holds dead letters only."""
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 400))
    (home / "orders" / "old.ndjson").write_bytes(b"".join(ancient(n) + b"\n" for n in range(30)))
    return world


def mend(world: World) -> None:
    views = [replace(view, source=MENDED) for view in VIEWS]
    Registry.open(world.settings, world.online).apply(Definitions.of(*views))


def replay(world: World) -> Outcome:
    judge = Judge(MENDED, wall_clock_us())
    offline = world.offline
    return offline.revived().revive(judge, offline.dead_letters(), offline.archive(MENDED), BEFORE_HISTORY)


def check(world: World) -> None:
    world.log[REVIVED] = [ancient(n) for n in range(30)]
    found = world.offline.archive(orders).scan(["event_id"], None, START_US - 50 * DAY_US)
    assert sorted(found["event_id"].to_pylist()) == sorted(f"old{n}" for n in range(30))
    assert check_online(world) > 200
    streamed = world.offline.streamed(VIEWS[1]).read()[1]
    assert int(streamed.records["events"].sum()) == len(world.valid())
    del world.log[REVIVED]


def test_replayed_letters_count_once_in_both_stores_whatever_is_run_again(world: World) -> None:
    before = world.run()
    assert before["dead"][BEFORE_HISTORY] == 30
    assert replay(world).revived == 30, "judged by the definition that is asked"
    mend(world)
    said = world.run("--workers", "2")
    assert (said["events"], said["late"], said["dead"]) == (30, 30, {})
    check(world)
    assert replay(world) == Outcome(0, 0, {})
    assert world.run()["events"] == 0
    check(world)
    day = instant_text(START_US - 100 * DAY_US)[:10]
    assert ("orders", day, "late") in world.repairs()


def test_a_running_flow_takes_them_up_and_a_lost_online_store_gets_them_again(world: World) -> None:
    world.run()
    mend(world)
    with world.flow("--workers", "2") as process:
        await_that(lambda: world.applied() >= len(world.log["a.ndjson"]), process)
        replay(world)
        await_that(lambda: world.offline.archive(orders).next_offset(REVIVED) == 30, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
    for key in world.online.scan_iter(f"{world.settings.namespace}:*", 1000):
        world.online.delete(key)
    world.append("a.ndjson", lines(2, 100, first=400))
    world.run()
    check(world)


def test_a_flow_that_began_before_the_mend_is_known_to_judge_otherwise(world: World) -> None:
    where = (world.online, world.settings.namespace)
    with world.flow() as process:
        await_that(lambda: bool(Signs(*where).read("orders")), process)
        assert outdated_sources(*where, Definitions.of(*VIEWS), wall_clock_us()) == []
        mend(world)
        mended = Registry.open(world.settings, world.online).current()
        assert mended is not None
        assert outdated_sources(*where, mended, wall_clock_us()) == ["orders"]
        end(process)
    assert outdated_sources(*where, mended, wall_clock_us()) == []
    number = Signs(*where).read("orders")[0].flow
    with world.flow() as process:
        await_that(lambda: Signs(*where).read("orders")[0].flow > number, process)
        assert outdated_sources(*where, mended, wall_clock_us()) == []
        replay(world)
        await_that(lambda: world.offline.archive(orders).next_offset(REVIVED) == 30, process)
        end(process)
    check(world)


def test_they_hold_no_watermark_back(world: World) -> None:
    world.run()
    mend(world)
    before = world.offline.archive(orders).watermark_us()
    replay(world)
    with world.flow() as process:
        await_that(lambda: world.offline.archive(orders).next_offset(REVIVED) == 30, process)
        assert end(process)[0] == 0
    assert before is not None
    assert (world.offline.archive(orders).watermark_us() or 0) >= before
    assert max(instant_us(event["ts"]) for event in world.valid().values()) >= before


def test_what_is_none_when_the_flow_reads_it_is_a_letter_again(world: World) -> None:
    """The definition went back: the flow judges by what is deployed, and nothing is lost."""
    world.run()
    assert replay(world).revived == 30
    assert world.run()["dead"] == {BEFORE_HISTORY: 30}
    mend(world)
    assert replay(world).revived == 30
    assert world.run()["events"] == 30
    found = world.offline.archive(orders).scan(["event_id"], None, START_US - 50 * DAY_US)
    assert len(set(found["event_id"].to_pylist())) == len(found) == 30
    check_archive(world)
    check_streamed_of_the_log(world)


def test_a_letter_of_the_largest_size_is_an_event_again(world: World) -> None:
    """It is written anew, with its instant as text: longer than an event may be when it comes."""
    event = {"event_id": "large", "user": "u1", "merchant": "m1", "ts": START_US - 100 * DAY_US, "kind": ""}
    event["kind"] = "k" * (EVENT_BYTES_MAX - len(msgspec.json.encode(event)))
    (world.home / "orders" / "large.ndjson").write_bytes(msgspec.json.encode(event) + b"\n")
    assert world.run()["dead"][BEFORE_HISTORY] == 31
    mend(world)
    assert replay(world).revived == 31
    said = world.run()
    assert (said["events"], said["dead"]) == (31, {})


def check_streamed_of_the_log(world: World) -> None:
    """Every event of the log and every revived one is in `streamed/` once."""
    streamed = world.offline.streamed(VIEWS[1]).read()[1]
    assert int(streamed.records["events"].sum()) == len(world.valid()) + 30
