"""`--status` says what is true: of the logs, of both stores, and of whoever reads or does not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from forebay import RedisStream
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, HOUR_US, SECOND_US, day_us, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.online.keys import Keys
from forebay.online.progress import PartitionProgress, Progress
from forebay.online.signs import Sign, Signs
from forebay.settings import Settings
from streaming.alive import alive
from streaming.begun import Begun
from streaming.board import Board
from streaming.entries import offset_of
from streaming.log_ends import COUNTED_MAX, LogEnd, LogEnds
from streaming.status import QUIET, SILENT_AFTER_US, Status, state_of, to_dict
from streaming.stop import Stop
from tests.infra.valkey import Valkey
from tests.streaming.test_filling import VISITS
from tests.streaming.test_flow import publish
from tests.streaming.test_watermarks import NOON_US, Driven
from tests.streaming.world import CHECKOUT, START_US, VIEWS, World, await_that, end, lines, orders

NOW_US = day_us("2024-03-02")


def status(world: World, *arguments: str) -> dict[str, Any]:
    """The one source of `--status --json`."""
    command = [sys.executable, "-m", "streaming", "--status", "--json", *arguments]
    said = subprocess.run(command, cwd=CHECKOUT, env=world.environment(), capture_output=True, text=True, check=True)
    (found,) = json.loads(said.stdout)["sources"]
    assert said.stderr == ""
    return dict(found)


def offsets(found: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    names = ("log_end", "archived", "applied", "lag_events")
    return {one["partition"]: tuple(one[name] for name in names) for one in found["partitions"]}


def test_before_any_flow_all_of_the_log_waits_and_nobody_reads_it(world: World) -> None:
    world.append("a.ndjson", lines(1, 100))
    found = status(world)
    count = len(world.log["a.ndjson"])
    assert (found["state"], found["flow"]) == ("dead", [])
    assert offsets(found) == {"a.ndjson": (count, 0, None, count)}
    assert [view["commit"] for view in found["views"]] == [0, 0]


def test_a_running_flow_is_quiet_then_it_is_killed_and_the_log_grows(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    count = len(world.log["a.ndjson"])
    with world.flow() as process:
        await_that(lambda: world.archived() == count, process)
        found = status(world)
        assert (found["state"], offsets(found)) == ("quiet", {"a.ndjson": (count, count, count, 0)})
        (sign,) = found["flow"]
        assert (sign["ended"], sign["workers"], sign["views"]) == (None, 1, sorted(view.key for view in VIEWS))
        assert sign["last_heartbeat"] >= sign["began"]
        assert sum(found["dead_letters"].values()) == count - len(world.offered())
        process.send_signal(signal.SIGKILL)
        process.wait()
    world.append("a.ndjson", lines(2, 50, first=300))
    more = len(world.log["a.ndjson"])
    found = status(world)
    assert offsets(found) == {"a.ndjson": (more, count, count, more - count)}
    assert found["partitions"][0]["watermark"] is not None
    with world.flow() as process:
        await_that(lambda: world.archived() == more, process)
        assert end(process)[0] == 0
    found = status(world, "--source", "orders")
    assert (found["state"], found["flow"][0]["why"]) == ("stopped", "")
    assert found["flow"][0]["ended"] is not None
    assert {view["view"] for view in found["views"] if view["commit"] > 0} == {view.key for view in VIEWS}


def test_a_failed_flow_is_dead_and_says_why(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    world.append("a.ndjson", lines(1, 50))
    world.run()
    world.append("a.ndjson", lines(2, 50, first=50))
    blocked = world.home / "orders" / "a.ndjson"
    blocked.write_bytes(b"")
    with pytest.raises(Exception, match="only ever grow"):
        world.run()
    found = status(world)
    assert found["state"] == "dead"
    assert "only ever grow" in found["flow"][0]["why"]


def test_losses_and_dates_to_repair_are_found(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    world.run()
    publish(world, VIEWS[1], START_US + 24 * HOUR_US)
    world.append("a.ndjson", lines(2, 50, first=300))
    world.run()
    for key in world.online.scan_iter(f"{world.settings.namespace}:*:progress:{VIEWS[0].key}", 1000):
        world.online.delete(key)
    views = {view["view"]: view for view in status(world)["views"]}
    assert views[VIEWS[1].key]["repair"] == ["2024-03-01"]
    assert views[VIEWS[1].key]["losses"] == []
    assert "lost everything" in views[VIEWS[0].key]["losses"][0]
    assert views[VIEWS[1].key]["cut"] == instant_text(START_US + 24 * HOUR_US)


def test_what_sessions_were_repaired_of_is_named_no_longer(world: World) -> None:
    history_us, first_us, second_us, end_us = map(day_us, ("2024-02-01", "2024-03-01", "2024-03-02", "2024-03-03"))
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, VISITS))
    world.append("a.ndjson", lines(1, 1500, rate=0.1))
    world.run()

    def materialize(start_us: int, end_us: int) -> list[str]:
        fold_dates(world.offline, VISITS, start_us, end_us)
        publish_view(world.online, world.settings.namespace, world.offline, VISITS)
        (found,) = [view for view in status(world)["views"] if view["view"] == VISITS.key]
        return [*found["repair"]]

    assert materialize(history_us, end_us) == []
    late = {"event_id": "late", "merchant": "m1", "user": "u1", "amount": 1, "ts": "2024-03-01T23:59:00Z"}
    world.append("a.ndjson", [json.dumps(late).encode()])
    world.run()
    assert materialize(first_us, second_us) == ["2024-03-02"], "its sessions may reach into the second day"
    assert materialize(second_us, end_us) == []


def test_a_cut_that_is_longer_ago_than_retention_is_overdue(world: World) -> None:
    world.append("a.ndjson", lines(1, 100))
    world.run()
    view = msgspec.structs.replace(VIEWS[1], retention="2d")
    look = Status(
        world.online, world.settings.namespace, OfflineStore(world.settings), LogEnds(world.settings, lambda: None)
    )

    def overdue(now_us: int) -> bool:
        (one,) = look(Definitions.of(view), [view.source], now_us)
        assert to_dict(one)["views"][0]["overdue"] is one.views[0].overdue
        return one.views[0].overdue

    assert not overdue(START_US + 90 * DAY_US), "never published"
    publish(world, view, START_US + DAY_US)
    assert not overdue(START_US + 3 * DAY_US)
    assert overdue(START_US + 3 * DAY_US + 1)


@pytest.mark.parametrize("days", [0, 2, 900])
def test_what_waits_is_as_late_as_the_wall_clock_says(world: World, days: int) -> None:
    """However old: a stream that is a week behind is not one whose log is of last week."""
    world.append("a.ndjson", lines(1, 100))
    world.run()
    newest_us = max(instant_us(event["ts"]) for event in world.valid().values())
    look = Status(world.online, world.settings.namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    definitions = Definitions.of(*VIEWS)

    def lag() -> tuple[int | None, float | None]:
        (one,) = look.partitions(orders, definitions.windowed_views(orders), newest_us + days * DAY_US + SECOND_US)[0]
        return one.lag_events, one.lag_s

    assert lag() == (0, 0)
    world.append("a.ndjson", [b"one more"])
    assert lag() == (1, days * 86_400 + 1)
    (world.home / "orders" / "a.ndjson").unlink()
    assert lag() == (0, 0), "nothing of it waits"


def test_the_sign_of_a_flow_that_was_replaced_does_not_hide_its_successors(world: World) -> None:
    signs = Signs(world.online, world.settings.namespace)
    signs.write("orders", Sign(1, NOW_US, NOW_US))
    signs.write("orders", Sign(2, NOW_US, NOW_US))
    signs.write("orders", Sign(1, NOW_US, NOW_US, ended_us=NOW_US, why="Another writer took over"))
    assert state_of(signs.read("orders"), NOW_US) == QUIET
    signs.forget_before("orders", 3)
    assert signs.read("orders") == []


def test_a_worker_that_was_never_at_work_is_the_slowest() -> None:
    board = Board(2)
    board.polled(0, 5)
    assert board.polled_us() is None
    board.polled(1, 3)
    assert board.polled_us() == 3


def test_a_flow_was_at_work_when_its_slowest_reader_polled_last(home: Path, online_url: str, namespace: str) -> None:
    """
    reader   poll ……… an hour, stuck
    sign     seen ↑              ↑ written all the time
    """
    driven = Driven(Settings(home, online_url, str(home / "offline"), namespace=namespace))
    driven.write("a", "ann", NOON_US)
    driven.start()
    driven.step()
    parts, signs = driven.parts, Signs(driven.online, namespace)
    driven.now_us += HOUR_US
    signs.write("clicks", Sign(parts.number - 1, NOW_US, NOW_US))
    with alive(Begun(parts.task, parts.number, parts.board, parts.found, lambda: None), driven.online, Stop(), []):
        assert len(driven.online.hkeys(Keys(namespace).alive("clicks"))) == 1, "its forerunner's sign is gone"
        (sign,) = signs.read("clicks")
        assert sign.flow == parts.number
        assert (sign.began_us, sign.seen_us, sign.ended_us) == (NOON_US + HOUR_US, NOON_US, None)
        assert state_of([sign], driven.now_us) == "dead"


def test_a_partition_is_as_far_as_the_slot_that_is_furthest_behind(world: World) -> None:
    """
    slots    0 ──────────────▶ │ log end
             7 ────▶ 40, an hour before
             9 ──────────────▶ │
    """
    world.append("a.ndjson", lines(1, 100))
    world.run()
    slow, other = VIEWS
    count, newest_us = len(world.log["a.ndjson"]), max(instant_us(event["ts"]) for event in world.valid().values())
    (name,) = Keys(world.settings.namespace).progress(slow.key, [7])
    behind_us = newest_us - HOUR_US
    world.online.set(name, Progress(1, {"a.ndjson": PartitionProgress(40, behind_us)}).encode())
    look = Status(world.online, world.settings.namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    (found,) = look(Definitions.of(*VIEWS), [orders], newest_us + SECOND_US)
    (one,) = found.partitions
    assert (one.log_end, one.applied, one.lag_events) == (count, 40, count - 40)
    assert (one.watermark_us, one.lag_s) == (behind_us, 3601)
    assert {view.view: view.watermark_us for view in found.views} == {slow.key: behind_us, other.key: newest_us}
    world.online.delete(name)
    (found,) = look(Definitions.of(*VIEWS), [orders], newest_us + SECOND_US)
    (one,) = found.partitions
    assert (one.applied, one.lag_events, one.watermark_us, one.lag_s) == (0, count, None, None)


def test_without_json_it_is_tables(world: World) -> None:
    world.append("a.ndjson", lines(1, 30))
    world.run()
    command = [sys.executable, "-m", "forebay.cli", "stream", "--status"]
    said = subprocess.run(command, cwd=CHECKOUT, env=world.environment(), capture_output=True, text=True, check=True)
    assert "orders: flow 1 ended" in said.stdout
    assert "user_orders@1" in said.stdout


def test_what_a_flow_is_follows_from_its_signs() -> None:
    """
    sign     began ● ● ●        ↑ 15 s of silence: dead
    """
    sign = Sign(1, NOW_US, NOW_US)
    assert state_of([], NOW_US) == "dead"
    assert state_of([sign], NOW_US + SILENT_AFTER_US) == "quiet"
    assert state_of([sign], NOW_US + SILENT_AFTER_US + 1) == "dead"
    ended = Sign(1, NOW_US, NOW_US, ended_us=NOW_US)
    assert state_of([ended], NOW_US + HOUR_US) == "stopped"
    assert state_of([Sign(1, NOW_US, NOW_US, ended_us=NOW_US, why="no")], NOW_US) == "dead"
    both = [Sign(2, NOW_US, NOW_US, process=n, processes=2) for n in range(2)]
    assert (state_of(both, NOW_US), state_of(both[:1], NOW_US)) == ("quiet", "dead")
    late = Sign(2, NOW_US, NOW_US - 20 * SECOND_US, process=1, processes=2)
    assert state_of([both[0], late], NOW_US) == "dead"


def test_the_entries_of_a_redis_stream_that_wait_are_counted(
    home: Path, valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = redis.Redis.from_url(valkey.url)
    source = type(orders)(
        "orders", schema=orders.schema, timestamp="ts", event_id="event_id", stream=RedisStream(namespace, partitions=2)
    )
    ids = [client.xadd(f"{namespace}:0", {"event": "{}"}) for _ in range(25)]
    ends = LogEnds(Settings(home, valkey.url, str(home)), lambda: client)
    monkeypatch.setattr("streaming.log_ends.PAGE", 10)
    last = offset_of(ids[-1])
    assert ends(source, {}) == {f"{namespace}:0": LogEnd(last + 1, 25)}
    assert ends(source, {f"{namespace}:0": offset_of(ids[4]) + 1}) == {f"{namespace}:0": LogEnd(last + 1, 20)}
    assert ends(source, {f"{namespace}:0": last + 1}) == {f"{namespace}:0": LogEnd(last + 1, 0)}
    monkeypatch.setattr("streaming.log_ends.COUNTED_MAX", 9)
    assert ends(source, {}) == {f"{namespace}:0": LogEnd(last + 1, None)}
    assert COUNTED_MAX > 1000
