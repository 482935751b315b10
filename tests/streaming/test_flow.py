"""The flow over both stores: what a log holds is in each of them once, and readable."""

from __future__ import annotations

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as but

from forebay import Count, EventSource, FileStream, RedisStream, WindowedView
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.deploy.registry import Registry
from forebay.errors import ConfigError, StoreUnavailableError, UnknownNameError
from forebay.ingest.select import Selector
from forebay.instants import HOUR_US, MINUTE_US, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.online.connection import connect_online
from forebay.online.publish import publish_tiles
from forebay.settings import Settings
from streaming import delta_writer, file_log, offline
from streaming.offline import Offline
from streaming.positions import read_positions
from streaming.run import parse, run
from streaming.stop import Stop
from streaming.summary import Summary
from tests.infra.valkey import Valkey
from tests.streaming.world import (
    START_US,
    VIEWS,
    World,
    await_that,
    check,
    check_archive,
    check_online,
    check_streamed,
    end,
    lines,
    merchant,
    orders,
    user,
)

MERCHANTS = [f"m{n}" for n in range(20)]
LATER = WindowedView(
    "later", version=1, entity=merchant, source=orders, features=[Count("n", windows=[None], default=0)]
)


def test_a_log_is_in_both_stores_once(home: Path, online_url: str, namespace: str, offline_url: str) -> None:
    world = World.make(home, online_url, namespace, offline_url)
    for seed, partition in enumerate(("a.ndjson", "b.jsonl", "c.ndjson")):
        world.append(partition, lines(seed, 900))
    said = world.run("--workers", "3")
    check(world)
    assert said["events"] == len(world.valid())
    assert sum(said["dead"].values()) == sum(map(len, world.log.values())) - said["events"]
    assert said["late"] > 0
    assert set(said["commits"]) == {view.key for view in VIEWS}
    again = world.run("--workers", "2")
    assert (again["events"], again["late"], again["dead"]) == (0, 0, {})
    check(world)


def test_a_growing_log_is_continued_by_another_number_of_workers(world: World) -> None:
    for turn, workers in enumerate((1, 2, 8, 1)):
        world.append("a.ndjson", lines(turn, 200, first=turn * 200))
        world.append(f"{turn}.ndjson", lines(turn + 10, 50))
        world.run("--workers", str(workers))
    check(world)


def test_half_a_line_is_reported_and_read_when_it_is_whole(world: World) -> None:
    world.append("a.ndjson", [*lines(1, 40)])
    whole = b'{"event_id":"last","user":"u1","merchant":"m1","amount":1,"kind":"paid","ts":"2024-03-01T23:00:00Z"}'
    with (world.home / "orders" / "a.ndjson").open("ab") as file:
        file.write(whole[:30])
    assert world.run()["unfinished"] == ["a.ndjson"]
    with (world.home / "orders" / "a.ndjson").open("ab") as file:
        file.write(whole[30:])
    world.log["a.ndjson"].append(whole)
    said = world.run()
    assert (said["events"], said["unfinished"]) == (1, [])
    check_archive(world)
    check_streamed(world)


def test_a_running_flow_picks_up_new_files_and_drains_on_sigterm(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    with world.flow("--workers", "2") as process:
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        world.append("b.ndjson", lines(2, 300))
        await_that(lambda: world.applied() == sum(map(len, world.log.values())), process)
        code, said, errors = end(process, signal.SIGTERM)
    assert (code, errors) == (0, "")
    assert json.loads(said)["events"] == len(world.valid())
    check(world)


def test_a_second_flow_takes_over_and_the_first_stops_in_one_line(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    with world.flow() as first:
        await_that(lambda: world.applied() > 0, first)
        fences = world.fences()
        with world.flow() as second:
            await_that(lambda: not set(world.fences()) & set(fences), second)
            world.append("a.ndjson", lines(2, 300, first=300))
            code, errors = first.wait(30), first.communicate()[1]
            assert code == 2
            assert errors.count("\n") == 1
            assert "took over" in errors
            await_that(lambda: world.applied() == len(world.log["a.ndjson"]), second)
            assert end(second)[0] == 0
    check(world)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_to_which_no_event_comes_stops_as_well_where_another_takes_over(world: World, workers: str) -> None:
    with world.flow("--workers", workers) as first:
        await_that(lambda: any(world.fences()), first)
        with world.flow() as second:
            code, errors = first.wait(60), first.communicate()[1]
            assert (code, errors.count("\n")) == (2, 1)
            assert re.match(r"error: Another (flow took over orders\.|writer took over \d+ slots of orders )", errors)
            assert end(second)[0] == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_that_is_told_to_end_before_it_took_over_leaves_the_other_alone(world: World, workers: str) -> None:
    with world.flow() as first:
        await_that(lambda: any(world.fences()), first)
        fences, stop = world.fences(), Stop()
        stop.request()
        run(world.settings, parse(["--workers", workers]), stop, Summary())
        assert (stop.error, world.fences()) == (None, fences)
        world.append("a.ndjson", lines(1, 100))
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), first)
        assert end(first)[0] == 0
    check(world, 50)


def test_redis_away_for_a_moment_is_waited_for(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    world.append("a.ndjson", lines(1, 300))
    with world.flow() as process:
        await_that(lambda: world.applied() > 0, process)
        own_valkey.kill()
        world.append("a.ndjson", lines(2, 300, first=300))
        own_valkey.restart()
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        assert end(process)[0] == 0
    check(world)


def test_redis_away_for_good_ends_the_flow_in_one_line(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    world.append("a.ndjson", lines(1, 300))
    with world.flow("--give-up-after", "0.5") as process:
        await_that(lambda: world.applied() > 0, process)
        own_valkey.kill()
        world.append("a.ndjson", lines(2, 300, first=300))
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 2
    assert errors.count("\n") == 1
    assert "cannot be reached" in errors
    own_valkey.restart()
    world.run()
    check(world)


def test_a_redis_that_lost_everything_is_filled_again_from_the_log(world: World) -> None:
    world.append("a.ndjson", lines(1, 500))
    world.run()
    for key in world.online.scan_iter(f"{world.settings.namespace}:*", 1000):
        world.online.delete(key)
    said = world.run()
    assert said["events"] == 0
    check(world)


def test_a_view_that_is_added_later_gets_the_whole_log(world: World) -> None:
    world.append("a.ndjson", lines(1, 500))
    world.run()
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, LATER))
    world.append("a.ndjson", lines(2, 100, first=500))
    world.run()
    check(world)
    assert sum(world.read(LATER, MERCHANTS)) == len(world.valid())


def test_late_events_count_at_once_and_mark_their_dates(world: World) -> None:
    def line(n: int, ts_us: int) -> bytes:
        event = {"event_id": f"x{n}", "user": "u1", "merchant": "m1", "amount": 1, "kind": "paid"}
        return json.dumps(event | {"ts": instant_text(ts_us)}).encode()

    minutes = [0, 180, 171, 169, 180 - 300]
    world.append("a.ndjson", [line(n, START_US + m * MINUTE_US) for n, m in enumerate(minutes)])
    assert world.run()["late"] == 2
    check_archive(world)
    check_streamed(world)
    check_online(world)
    assert world.repairs() == {("orders", "2024-03-01", "late"), ("orders", "2024-03-02", "late")}
    world.append("a.ndjson", [line(9, START_US - 100 * HOUR_US)])
    assert world.run()["late"] == 1
    assert ("orders", "2024-02-26", "late") in world.repairs()


@pytest.mark.parametrize("is_long_ago", [False, True])
def test_a_date_that_gets_late_events_all_the_time_is_marked_once_an_hour(
    world: World, monkeypatch: pytest.MonkeyPatch, is_long_ago: bool
) -> None:
    monkeypatch.setattr(delta_writer, "FLUSH_EVENTS", 1)
    monkeypatch.setattr(file_log, "EVENTS_MAX", 100)
    if is_long_ago:
        monkeypatch.setattr(offline, "MARKED_AGAIN_US", 0)
    world.append("a.ndjson", lines(1, 3000))
    world.run()
    marks = world.offline.repairs().scan("orders").num_rows
    assert (marks == len(world.repairs())) == (not is_long_ago)
    check(world)


def publish(world: World, view: WindowedView, cut_us: int) -> None:
    """What a backfill and a publication leave: the archive's tiles before the cut."""
    selector, layout = Selector(view), Layout.of(view)
    events = selector.select(world.offline.archive(orders).scan(selector.columns, None, cut_us))
    tiles = roll_up(layout, fold(layout, events))
    publish_tiles(world.online, world.settings.namespace, view, events.keys.to_pylist(), tiles, cut_us)


def test_a_view_that_was_published_first_starts_at_its_cut_and_loses_nothing_at_the_seam(world: World) -> None:
    world.append("a.ndjson", lines(1, 600, rate=0.05))
    world.append("b.ndjson", lines(2, 20))
    world.run()
    cut_us = START_US + 2 * HOUR_US
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, LATER))
    publish(world, LATER, cut_us)
    namespace, offline = world.settings.namespace, Offline(world.offline, lambda source: cut_us)
    positions = read_positions(world.online, namespace, offline, [orders], [*VIEWS, LATER])
    events = world.valid()
    first = min(n for (name, n), e in events.items() if name == "a.ndjson" and instant_us(e["ts"]) >= cut_us)
    assert 300 < first == positions.resume(orders, "a.ndjson")
    assert positions.resume(orders, "b.ndjson") == len(world.log["b.ndjson"])
    world.append("a.ndjson", lines(3, 200, first=600, rate=0.05))
    assert world.run()["events"] == len(world.valid()) - len(events)
    check(world)
    assert world.read(LATER, MERCHANTS) == [
        sum(event["merchant"] == name for event in world.valid().values()) for name in MERCHANTS
    ]


def test_an_event_before_a_published_cut_marks_its_date(world: World) -> None:
    publish(world, VIEWS[1], START_US + 2 * HOUR_US)
    world.append("a.ndjson", lines(1, 500, rate=0.05))
    world.run()
    marks = {mark for mark in world.repairs() if mark[2] == "before the cut"}
    assert marks == {("orders", "2024-03-01", "before the cut")}
    check_archive(world)
    count = len(world.repairs())
    for key in world.online.scan_iter(f"{world.settings.namespace}:*progress*", 1000):
        world.online.delete(key)
    world.run()
    assert len(world.repairs()) == count, "a replay marks nothing again"


def test_redis_streams_are_a_log_too(home: Path, valkey: Valkey, namespace: str) -> None:
    settings = Settings(home, valkey.url, str(home / "offline"), namespace=namespace)
    source = EventSource(
        "orders",
        schema=orders.schema,
        timestamp="ts",
        event_id="event_id",
        stream=RedisStream(f"{namespace}-orders", partitions=2),
        history_start="2024-03-01",
    )
    view = WindowedView(
        "streamed", version=1, entity=merchant, source=source, features=[Count("n", windows=[None], default=0)]
    )
    online = connect_online(settings)
    Registry.open(settings, online).apply(Definitions.of(view))
    world = World(home, settings, online)
    expected = 0
    for turn in range(2):
        for n, line in enumerate(lines(turn, 200)):
            online.xadd(f"{namespace}-orders:{n % 2}", {"event": line})
            expected += line.startswith(b'{"event_id"')
        world.run("--workers", str(turn + 1))
        assert sum(world.read(view, MERCHANTS)) == expected


def test_a_source_that_is_named_twice_is_read_once(world: World) -> None:
    world.append("a.ndjson", lines(1, 300))
    world.append("b.ndjson", lines(2, 300))
    assert world.run("--source", "orders", "--source", "orders")["events"] == len(world.valid())
    check(world)


def test_a_loss_is_accepted_of_what_is_streamed_alone(world: World) -> None:
    others = but(orders, name="others", stream=FileStream(str(world.home)))
    view = WindowedView("of_others", 1, user, others, features=[Count("n", windows=["1h"], default=0)])
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, view))
    with pytest.raises(UnknownNameError, match=r"There is no source 'oders'\. Did you mean 'orders'"):
        world.run("--accept-loss", "oders")
    with pytest.raises(ConfigError, match="--accept-loss others: this flow does not stream it"):
        world.run("--source", "orders", "--accept-loss", "others")
    world.run("--accept-loss", "others", "--accept-loss", "orders")


def test_what_cannot_be_streamed_is_refused_in_one_line(world: World, online_url: str) -> None:
    empty = replace(world.settings, namespace="nowhere", offline_url=str(world.home / "nowhere"))
    with pytest.raises(ConfigError, match=r"Nothing is deployed in namespace 'nowhere'; run `forebay apply`"):
        replace(world, settings=empty).run()
    away = replace(world, settings=replace(world.settings, online_url="redis://127.0.0.1:1/0"))
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        away.run("--give-up-after", "0.1")
    os.rmdir(world.home / "orders")
    with pytest.raises(ConfigError, match="there is no file or folder"):
        world.run()


def test_an_offline_store_that_cannot_be_written_ends_the_flow_in_one_line(world: World) -> None:
    world.append("a.ndjson", lines(1, 100))
    blocked = world.home / "offline" / "events"
    blocked.write_text("a file where a folder should be")
    with world.flow("--until-end", "--give-up-after", "0.2") as process:
        errors = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert [line.partition(":")[0] for line in errors] == ["warning", "error"]
    assert all("The offline store" in line for line in errors)
    blocked.unlink()
    world.run()
    check_archive(world)
    check_streamed(world)
    check_online(world)
