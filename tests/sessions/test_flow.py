"""Sessions through the real flow: a log of files, restarts, a new view at its cut, a Redis that lost everything."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

import pytest

from forebay import FileStream, WindowedView
from forebay.backfill.losses import LostEvents, LostPublication
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, instant_text
from forebay.language.definitions import Definitions
from streaming.run import parse, run
from streaming.stop import Stop
from streaming.summary import Summary
from tests.language.shop import but
from tests.sessions import world as site
from tests.sessions.test_online import arrived
from tests.sessions.world import START, Visit, World, at, visit

SOURCE = but(site.visits, stream=FileStream("${FOREBAY_HOME}/visits"))
VIEWS = [but(view, source=but(view.sessions, source=SOURCE)) for view in site.VIEWS]


@pytest.fixture
def flow(world: World) -> World:
    """A site whose log is a folder, with all views but the last deployed."""
    (world.settings.home / "visits").mkdir()
    deploy(world, VIEWS[:2])
    return world


def deploy(world: World, views: Sequence[WindowedView]) -> None:
    Registry.open(world.settings, world.redis).apply(Definitions.of(*views))


def append(world: World, part: int, more: list[Visit]) -> None:
    with (world.settings.home / "visits" / f"p{part}.ndjson").open("a") as file:
        file.writelines(json.dumps({**one, "ts": instant_text(one["ts"])}) + "\n" for one in more)
    world.archived += more


def stream(world: World, *arguments: str) -> Summary:
    """Run a flow to the end of its log."""
    stop, summary = Stop(), Summary()
    run(world.settings, parse(["--until-end", *arguments]), stop, summary)
    if stop.error is not None:
        raise stop.error
    return summary


def fold_and_publish(world: World, views: Sequence[WindowedView], days: int) -> list[int | None]:
    for view in views:
        fold_dates(world.store, view, at(0), at(days))
    return [publish_view(world.redis, world.settings.namespace, world.store, view).cut_us for view in views]


def check(world: World, views: Sequence[WindowedView]) -> None:
    newest_us = max(one["ts"] for one in world.archived)
    for at_us in (newest_us + 1, newest_us + DAY_US):
        world.check_online(world.archived, at_us, views)


def test_restarts_a_new_view_and_a_lost_store_leave_sessions_as_the_oracle_has_them(flow: World) -> None:
    """
    log        ├──── first ────┼──── second ────┼─ third ─┤
    flows      1 worker        2 workers        1, after Redis lost everything
    views      two of them     and a third one, published before it is streamed
    """
    logs = arrived(random.Random(11), 4, 240)
    thirds = [[log[:60], log[60:100], log[100:]] for log in logs]
    for part in range(2):
        append(flow, part, thirds[part][0])
    stream(flow)
    check(flow, VIEWS[:2])
    newest = min(max(one["ts"] for one in thirds[part][0]) for part in range(2))
    days = (newest - site.LATENESS_US - START) // DAY_US
    assert days > 0
    deploy(flow, VIEWS)
    assert fold_and_publish(flow, VIEWS, days) == [at(days)] * 3
    for part in range(2):
        append(flow, part, thirds[part][1])
    assert stream(flow, "--workers", "2").losses == []
    check(flow, VIEWS)
    for name in flow.redis.scan_iter(f"{flow.settings.namespace}:*", 1000):
        flow.redis.delete(name)
    for part in range(2):
        append(flow, part, thirds[part][2])
    losses = stream(flow).losses
    assert {loss.everything for loss in losses if isinstance(loss, LostEvents)} == {True}
    assert any(isinstance(loss, LostPublication) for loss in losses)
    check(flow, VIEWS)


def test_a_view_that_starts_at_its_cut_reads_back_to_where_the_chain_across_it_begins(flow: World) -> None:
    """
    day    0                          1 = cut       2
           ·······································           one visit every 20 minutes, cut every two hours
    """
    append(flow, 0, [visit(number, at(0, 0, 7 + 20 * number)) for number in range(5 * 36)])
    stream(flow)
    deploy(flow, VIEWS)
    assert fold_and_publish(flow, VIEWS[2:], 2) == [at(2)]
    flow.redis.delete(*flow.redis.keys(f"{flow.settings.namespace}:*by_visitor*"))
    assert fold_and_publish(flow, VIEWS[:1], 2) == [at(2)]
    append(flow, 0, [visit(1000 + number, at(2, 12, 7 + 20 * number)) for number in range(10)])
    stream(flow)
    check(flow, VIEWS)
