"""An older copy of Redis that lacks a publication or a mark: found, said, and published or marked again."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from forebay.backfill.losses import LostPublication, losses_of
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.identity import entity_key
from forebay.ingest.arrow import conform
from forebay.instants import DAY_US, HOUR_US, day_us, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.online.read import OnlineReader
from forebay.online.slot_state import read_cuts
from streaming.begun import begin
from streaming.parts import Task
from streaming.retry import GivenUpError, Patience
from streaming.stop import Stop
from streaming.summary import Summary
from tests.infra.valkey import Valkey
from tests.streaming.test_losses import wipe
from tests.streaming.world import DAY, START_US, VIEWS, World, await_that, check, lines, merchant_orders, orders

NEXT_US = day_us(DAY) + DAY_US


@pytest.fixture
def own(home: Path, own_valkey: Valkey, namespace: str) -> World:
    """A world whose Redis may be replaced by a copy of it."""
    return World.make(home, own_valkey.url, namespace)


@pytest.fixture(params=["idle", "busy"])
def after_copy(request: pytest.FixtureRequest) -> Sequence[bytes]:
    """What comes by the stream after the copy."""
    return lines(9, 60, first=900, rate=0.02) if request.param == "busy" else []


def publish(world: World) -> None:
    for view in VIEWS:
        fold_dates(world.offline, view, orders.history_start_us, NEXT_US)
        publish_view(world.online, world.settings.namespace, world.offline, view)


def copied(world: World) -> dict[bytes, Any]:
    names: Any = list(world.online.scan_iter(f"{world.settings.namespace}:*", 1000))
    return {name: world.online.dump(name) for name in names}


def restore(world: World, copy: dict[bytes, Any]) -> None:
    wipe(world)
    for name, body in copy.items():
        world.online.restore(name, 0, body)


def lost(world: World) -> list[str]:
    losses = [losses_of(world.online, world.settings.namespace, world.offline, view) for view in VIEWS]
    return [str(loss) for some in losses for loss in some if isinstance(loss, LostPublication)]


def statuses(world: World) -> Iterator[int]:
    """Those of a feature of all merchants, after all events."""
    keys = {merchant_orders.key: [entity_key(merchant_orders.entity, {"merchant": f"m{n}"}) for n in range(20)]}
    at_us = START_US + 6 * HOUR_US
    found = OnlineReader(world.online, world.settings.namespace).read([merchant_orders], keys, at_us, at_us)
    yield from (int(status) for status in found.views[merchant_orders.key].columns[0].status)


def test_a_copy_from_before_a_repair_is_published_again(world: World, after_copy: Sequence[bytes]) -> None:
    """
    published    1        2 (a late event repaired)
    copy         |◂───────────────────────────┤      everything before the cut is as publication 1 left it
    """
    world.append("a.ndjson", lines(1, 900, rate=0.02))
    world.run()
    publish(world)
    copy = copied(world)
    late = {"event_id": "late", "user": "u1", "merchant": "m1", "amount": 500, "kind": "paid"}
    world.append("a.ndjson", [json.dumps(late | {"ts": instant_text(NEXT_US - HOUR_US)}).encode()])
    world.run()
    publish(world)
    world.append("a.ndjson", after_copy)
    world.run()
    check(world)
    assert lost(world) == []
    restore(world, copy)
    told = "lost its publication number 2: the slot that is furthest behind has number 1"
    assert lost(world) == [f"{view.key} {told}" for view in VIEWS]
    with pytest.raises(AssertionError):
        check(world)
    said = world.run()
    assert [loss for loss in said["losses"] if "publication" in loss] == [
        {"view": view.key, "publication": 2, "found": 1} for view in sorted(VIEWS, key=lambda view: view.key)
    ]
    check(world)
    assert lost(world) == []
    assert {cut.publication for cut in read_cuts(world.online, world.settings.namespace, VIEWS[0])} == {3}
    assert world.run()["losses"] == []


def test_a_copy_from_before_anything_was_published_is_published_again(world: World) -> None:
    world.append("a.ndjson", lines(1, 300, rate=0.02))
    world.run()
    copy = copied(world)
    publish(world)
    restore(world, copy)
    assert [text.rpartition(": ")[2] for text in lost(world)] == ["the slot that is furthest behind has none"] * 2
    said = world.run()
    assert {loss["publication"] for loss in said["losses"]} == {1}
    assert lost(world) == []
    check(world, 50)


def test_a_flow_that_is_told_to_end_while_it_publishes_again_ends_and_the_next_one_does_it(world: World) -> None:
    world.append("a.ndjson", lines(1, 900, rate=0.02))
    world.run()
    publish(world)
    wipe(world)
    fences = world.fences()

    def told_to_end() -> bool:
        """Once it has taken over."""
        return world.fences() != fences

    task = Task(world.settings, Definitions.of(*VIEWS), [orders], patience=Patience(enough=told_to_end))
    with pytest.raises(GivenUpError):
        begin(task, world.online, Stop(), Summary())
    assert lost(world) != []
    world.run()
    assert lost(world) == []
    check(world)


def test_a_copy_from_before_events_were_loaded_is_marked_again(world: World) -> None:
    world.append("a.ndjson", lines(1, 300, rate=0.02))
    world.run()
    copy = copied(world)
    assert set(statuses(world)) == {0}
    event = {"event_id": "x", "user": "u1", "merchant": "m1", "amount": None, "kind": "paid"}
    ts = instant_us(instant_text(START_US + 5 * HOUR_US))
    rows = pa.table({name: [value] for name, value in (event | {"ts": ts}).items()})
    rows = rows.set_column(rows.schema.get_field_index("ts"), "ts", rows["ts"].cast(pa.timestamp("us", "UTC")))
    batch, dead = conform(orders, f"load:{0:016x}", 0, rows, NEXT_US + DAY_US)
    assert not dead
    world.offline.archive(orders).append([batch], NEXT_US + DAY_US)
    world.run()
    marked = set(statuses(world))
    assert marked != {0}
    restore(world, copy)
    assert set(statuses(world)) == {0}, "nobody has looked yet"
    world.run()
    assert set(statuses(world)) == marked


@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_idle_flow_ends_where_redis_forgets_a_publication(own: World, own_valkey: Valkey, workers: str) -> None:
    own.append("a.ndjson", lines(1, 300, rate=0.02))
    with own.flow("--workers", workers) as process:
        await_that(lambda: own.applied() == own.archived() == len(own.log["a.ndjson"]), process)
        copy = own_valkey.copy()
        publish(own)
        await_look(own, process)
        own_valkey.kill()
        own_valkey.replace(copy)
        own_valkey.restart()
        errors = process.communicate(timeout=60)[1]
    assert (process.returncode, errors.count("\n")) == (2, 1)
    assert "lost publication number 1 of view" in errors
    assert "Start the stream again" in errors
    said = own.run()
    assert {loss["view"] for loss in said["losses"] if "publication" in loss} == {view.key for view in VIEWS}
    check(own, 50)


def await_look(world: World, process: subprocess.Popen[str]) -> None:
    """Return when an idle flow has looked at what is published: it asks with an MGET for each view."""

    def asked() -> int:
        return int(world.online.info("commandstats")["cmdstat_mget"]["calls"])

    before = asked()
    await_that(lambda: asked() >= before + 2 * len(VIEWS), process)
