"""A view that was added to a stream never answers as if nothing had come: it is UNAVAILABLE until it is filled.

apply   ├─ UNAVAILABLE ─────────────┤ right
stream           restarted ├─ fills ┤
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forebay.cli.app import app
from forebay.deploy.filled import unfilled
from forebay.deploy.registry import Registry
from forebay.deploy.unstreamed import mark_unstreamed, unknown_views
from forebay.errors import StoreUnavailableError
from forebay.instants import DAY_US, MINUTE_US, floor_us
from forebay.language.definitions import Definitions
from forebay.language.view import WindowedView
from forebay.online.lane import wall_clock_us
from forebay.online.progress import PartitionProgress, Progress
from streaming.log_ends import LogEnds
from streaming.parts import Task, take_over
from streaming.status import Status as Look
from streaming.status import ViewStatus
from streaming.stop import Stop
from streaming.summary import Summary
from tests.streaming.test_filling import SECOND, apply, check, newest_us, read
from tests.streaming.test_flow import publish
from tests.streaming.world import VIEWS, World, await_that, end, lines, orders


@pytest.fixture
def world(home: Path, online_url: str, namespace: str) -> World:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 600, rate=0.1))
    world.append("b.ndjson", lines(2, 200, rate=0.05))
    return world


def deploy(world: World, *views: WindowedView) -> list[str]:
    """As `forebay apply` does; the views that have to wait."""
    apply(world, *views)
    return mark_unstreamed(world.online, world.settings.namespace, world.offline, views)


def statuses(world: World, view: WindowedView, at_us: int) -> set[str]:
    return {status for column in read(world, view, at_us) for _, status in column}


def status(world: World, view: WindowedView) -> ViewStatus:
    look = Look(world.online, world.settings.namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    (found,) = look(Definitions.of(*VIEWS, SECOND), [orders], wall_clock_us())
    return next(one for one in found.views if one.view == view.key)


def source_state(world: World) -> str:
    look = Look(world.online, world.settings.namespace, world.offline, LogEnds(world.settings, lambda: world.online))
    return look(Definitions.of(*VIEWS, SECOND), [orders], wall_clock_us())[0].state


def test_an_apply_that_dies_before_the_view_is_deployed_marks_it_when_it_is_run_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run("--source", orders.name)
    for name, value in world.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Definitions, "load", lambda module: Definitions.of(*VIEWS, SECOND))
    with monkeypatch.context() as dying:
        dying.setattr(Registry, "_take", lambda *given: (_ for _ in ()).throw(StoreUnavailableError("S3 is away")))
        assert CliRunner().invoke(app, ["apply"]).exit_code != 0
    found = CliRunner().invoke(app, ["apply", "--json"])
    assert found.exit_code == 0
    assert json.loads(found.stdout)["unavailable"] == [SECOND.key]
    assert statuses(world, SECOND, newest_us(world) + 1) == {"UNAVAILABLE"}
    world.run()
    check(world, SECOND, [newest_us(world) + 1])


def test_a_view_that_the_running_flow_does_not_know_says_so_until_it_is_restarted(world: World) -> None:
    with world.flow() as flow:
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        assert deploy(world, SECOND) == [SECOND.key]
        after_us = newest_us(world) + 1
        assert statuses(world, SECOND, after_us) == {"UNAVAILABLE"}
        views = [*VIEWS, SECOND]
        await_that(lambda: status(world, VIEWS[0]).streamed is True, flow)
        assert unknown_views(world.online, world.settings.namespace, views, wall_clock_us()) == [SECOND.key]
        assert (status(world, SECOND).streamed, status(world, SECOND).filling) == (False, True)
        assert unfilled(world.online, world.settings.namespace, views) == [SECOND.key], "a flip must not send models"
        assert end(flow)[0] == 0
    assert status(world, SECOND).streamed is None
    world.run("--workers", "2")
    check(world, SECOND, [after_us])
    assert unfilled(world.online, world.settings.namespace, [SECOND]) == []


def test_nothing_waits_where_nothing_is_archived_or_somebody_has_streamed_it(world: World) -> None:
    assert deploy(world, SECOND) == []
    world.run()
    before = read(world, SECOND, newest_us(world) + 1)
    assert mark_unstreamed(world.online, world.settings.namespace, world.offline, [SECOND]) == []
    assert read(world, SECOND, newest_us(world) + 1) == before, "what a stream has written stays"


def test_before_anything_is_archived_it_waits_for_a_flow_that_knows_it(
    home: Path, online_url: str, namespace: str
) -> None:
    world = World.make(home, online_url, namespace)
    with world.flow() as flow:
        await_that(lambda: status(world, VIEWS[0]).streamed is True, flow)
        assert deploy(world, SECOND) == [SECOND.key]
        assert statuses(world, SECOND, wall_clock_us()) == {"UNAVAILABLE"}
        world.append("a.ndjson", lines(1, 600, rate=0.1))
        await_that(lambda: world.archived() == len(world.log["a.ndjson"]), flow)
        after_us = newest_us(world) + 1
        assert statuses(world, SECOND, after_us) == {"UNAVAILABLE"}
        await_that(lambda: source_state(world) == "quiet", flow)
        assert end(flow)[0] == 0
    world.run()
    check(world, SECOND, [after_us])


def test_it_waits_no_more_where_a_flow_that_knows_it_finds_nothing(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    with world.flow() as flow:
        await_that(lambda: status(world, VIEWS[0]).streamed is True, flow)
        assert deploy(world, SECOND) == [SECOND.key]
        assert end(flow)[0] == 0
    world.run()
    assert statuses(world, SECOND, wall_clock_us()) == {"DEFAULT_MISSING"}


def test_a_view_that_was_removed_and_comes_back_waits_for_what_came_meanwhile(world: World) -> None:
    deploy(world, SECOND)
    world.run()
    apply(world)
    world.append("a.ndjson", lines(3, 100, first=600, rate=0.1))
    world.run()
    assert deploy(world, SECOND) == [SECOND.key]
    after_us = newest_us(world) + 1
    assert statuses(world, SECOND, after_us) == {"UNAVAILABLE"}
    world.run()
    check(world, SECOND, [after_us])
    with world.flow() as flow:
        await_that(lambda: status(world, SECOND).streamed is True, flow)
        apply(world)
        world.append("a.ndjson", lines(4, 100, first=700, rate=0.1))
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        assert deploy(world, SECOND) == [], "the flow began with it and went on with it"
        assert end(flow)[0] == 0
    check(world, SECOND, [newest_us(world) + 1])


def test_a_flow_that_begins_with_a_new_view_lets_it_wait_for_what_is_archived(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    apply(world, SECOND)
    after_us = newest_us(world) + 1
    monkeypatch.setattr("forebay.offline.replay.ROWS_MAX", 50)
    monkeypatch.setattr("streaming.archive_log.CHUNKS_MAX", 1)
    task = Task(world.settings, Definitions.of(*VIEWS, SECOND), [orders], until_end=True)
    parts = take_over(task, world.online, Stop(), Summary())
    assert statuses(world, SECOND, after_us) == {"UNAVAILABLE"}
    reader, writer = parts.reader(0), parts.writer(0)
    for _ in range(3):
        for item in reader.next_batch():
            writer.write(parts.split(parts.decode([item])))  # type: ignore[arg-type]  # chunks alone come so early
    assert statuses(world, SECOND, after_us) == {"UNAVAILABLE"}, "some of it is no answer"
    writer.close()
    reader.close()
    monkeypatch.undo()
    world.run()
    check(world, SECOND, [after_us])


def test_a_publication_that_has_all_that_is_archived_ends_the_waiting(world: World) -> None:
    world.run()
    deploy(world, SECOND)
    cut_us = floor_us(newest_us(world), DAY_US) + DAY_US
    publish(world, SECOND, cut_us)
    assert statuses(world, SECOND, cut_us) == {"UNAVAILABLE"}, "nobody knows what came since"
    world.run()
    check(world, SECOND, [cut_us, cut_us + MINUTE_US])


def test_a_slot_waits_for_no_more_than_it_lacks() -> None:
    known = {"a": PartitionProgress(3, 0)}
    assert Progress(0, {}, {"a": 1, "b": 2}).marked({"a": 7}) == Progress(0, {}, {"a": 7})
    assert Progress(0, {}, {"a": 1}).marked({}) == Progress()
    assert Progress(2, known, {"b": 5, "c": 6}).marked({"b": 9}) == Progress(2, known, {"b": 5})
    assert Progress(2, known).marked({"b": 9}) == Progress(2, known), "what was filled once goes on answering"
