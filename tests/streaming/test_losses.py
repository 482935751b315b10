"""A Redis that lost what it had acknowledged: found, said, and filled again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay import Count, EventSource, RedisStream, WindowedView
from forebay.backfill.losses import LostEvents, lost_events
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, day_us
from forebay.language.definitions import Definitions
from forebay.offline.tiles_table import app_id
from forebay.online.connection import connect_online
from forebay.online.progress import PartitionProgress, Progress
from forebay.settings import Settings
from streaming.parts import Task, take_over
from streaming.stop import Stop
from streaming.summary import Summary
from tests.infra.valkey import Valkey
from tests.streaming.world import DAY, VIEWS, World, await_that, check, check_archive, lines, merchant, orders

MERCHANTS = [f"m{n}" for n in range(20)]


def wipe(world: World) -> None:
    for key in world.online.scan_iter(f"{world.settings.namespace}:*", 1000):
        world.online.delete(key)


def test_a_slot_that_is_behind_its_streamed_tiles_has_lost_writes() -> None:
    """
    offsets      0 ──────── 40 ──────── 90 ────── 100
    slot 3       ├──────────┤                          lost 40..90
    others       ├────────────────────────────────┤    ahead, as they are after a crash
    streamed/    ├──────────────────────┤
    """
    streamed = {app_id(lane, "p"): 90 for lane in range(8)}
    progress = [Progress(1, {"p": PartitionProgress(40 if slot == 3 else 100, 0)}) for slot in range(64)]
    assert lost_events(VIEWS[0], streamed, progress) == [LostEvents("user_orders@1", "p", 40, 90, everything=False)]
    assert lost_events(VIEWS[0], {app_id(4, "p"): 90}, progress) == []
    assert lost_events(VIEWS[0], {}, [Progress()] * 64) == []
    assert lost_events(VIEWS[0], streamed, [Progress()] * 64) == [
        LostEvents("user_orders@1", "p", 0, 90, everything=True)
    ]


def test_an_older_copy_is_declared_and_filled(world: World) -> None:
    world.append("a.ndjson", lines(1, 400))
    assert world.run()["losses"] == []
    names: Any = list(world.online.scan_iter(f"{world.settings.namespace}:*", 1000))
    copy = {name: world.online.dump(name) for name in names}
    world.append("a.ndjson", lines(2, 400, first=400))
    world.append("b.ndjson", lines(3, 100, first=800))
    world.run("--workers", "2")
    wipe(world)
    for name, body in copy.items():
        world.online.restore(name, 0, body)
    said = world.run("--workers", "3")
    assert said["events"] == 0
    assert {(loss["view"], loss["partition"], loss["everything"]) for loss in said["losses"]} == {
        (view.key, partition, False) for view in VIEWS for partition in ("a.ndjson", "b.ndjson")
    }
    check(world)
    assert world.run()["losses"] == []


def test_everything_is_published_again_and_filled_though_the_log_is_gone(world: World) -> None:
    """
    archive    ├──────────────┬──────────────┤
    published  ├──────────────┤ cut          │
    log                                      ├── the file is empty: only what is archived is left
    """
    world.append("a.ndjson", lines(1, 900, rate=0.02))
    world.run()
    for view in VIEWS:
        fold_dates(world.offline, view, orders.history_start_us, day_us(DAY) + DAY_US)
        assert publish_view(world.online, world.settings.namespace, world.offline, view).cut_us is not None
    wipe(world)
    said = world.run("--workers", "2")
    found = [(loss["view"], loss.get("everything"), loss.get("publication")) for loss in said["losses"]]
    views = sorted(view.key for view in VIEWS)
    assert found == [*((view, True, None) for view in views), *((view, None, 1) for view in views)]
    assert Registry.open(world.settings, world.online)._read_online() is not None, "clients find the definitions again"
    check(world)
    assert sum(world.read(VIEWS[1], MERCHANTS)) <= len(world.valid())


def test_a_running_flow_stops_in_one_line_and_the_next_one_declares(
    home: Path, namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with Valkey() as forgetful:
        world = World.make(home, forgetful.url, namespace)
        world.append("a.ndjson", lines(1, 300))
        with world.flow() as process:
            await_that(lambda: world.applied() == world.archived() == len(world.log["a.ndjson"]), process)
            forgetful.kill()
            forgetful.restart()
            world.append("a.ndjson", lines(2, 50, first=300))
            errors = process.communicate(timeout=60)[1]
        assert (process.returncode, errors.count("\n")) == (2, 1)
        assert "lost its data" in errors
        with world.flow("--until-end") as process:
            errors = process.communicate(timeout=60)[1]
        assert errors.count("warning: the online store had lost writes: ") == len(VIEWS)
        check(world)


def test_a_stream_that_was_trimmed_behind_the_archive_is_enough(home: Path, valkey: Valkey, namespace: str) -> None:
    settings = Settings(home, valkey.url, str(home / "offline"), namespace=namespace)
    stream = RedisStream(f"{namespace}-orders", partitions=1)
    source = EventSource(
        "orders", schema=orders.schema, timestamp="ts", event_id="event_id", stream=stream, history_start=DAY
    )
    count = Count("n", windows=[None], default=0)
    view = WindowedView("v", version=1, entity=merchant, source=source, features=[count])
    online = connect_online(settings)
    Registry.open(settings, online).apply(Definitions.of(view))
    world = World(home, settings, online)
    expected = 0
    for turn in range(2):
        for line in lines(turn, 150):
            last: Any = online.xadd(f"{stream.key}:0", {"event": line})
            expected += line.startswith(b'{"event_id"')
        world.run()
        assert online.xtrim(f"{stream.key}:0", minid=last, approximate=False) > 140
        wipe(world)
    assert world.run()["events"] == 0
    assert sum(world.read(view, MERCHANTS)) == expected


def test_what_is_lost_before_the_offline_store_knew_is_filled_and_cannot_be_told(world: World) -> None:
    world.append("a.ndjson", lines(1, 100))
    task = Task(world.settings, Definitions.of(*VIEWS), [orders])
    parts = take_over(task, world.online, Stop(), Summary())
    assert parts.summary.losses == []
    for lane in parts.lanes.values():
        lane.close()
    wipe(world)
    assert world.run()["losses"] == []
    check_archive(world)
