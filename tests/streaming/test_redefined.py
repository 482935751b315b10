"""Definitions that are applied while Redis is ahead of the archive: both go on to hold the same events.

log        0 … 9     10 … 14          ╳        the definitions change, a flow begins
online     ├────────────────┤  kill -9         must be what it was
archive    ├───────┤                           must be that, too
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from forebay import Int64, Variance, WindowedView
from forebay.deploy.registry import Registry
from forebay.ingest.batch import TOO_LARGE
from forebay.instants import SECOND_US, instant_text
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.online.read import OnlineReader
from tests.infra.valkey import Valkey
from tests.streaming.world import START_US, VIEWS, World, await_that, orders, user

SPREAD = WindowedView(
    "spread", 1, user, orders, features=[Variance("spread", of="amount", windows=["1h"], default=0.0)]
)
LARGE = {"amount": 2e12}
"""Beyond what a Variance can square."""


def line(n: int, **more: object) -> bytes:
    event = {"event_id": f"e{n}", "user": "u1", "merchant": "m1", "amount": 1, "kind": "paid"}
    return json.dumps({**event, "ts": instant_text(START_US + n * SECOND_US), **more}).encode()


def with_source(source: EventSource) -> list[WindowedView]:
    return [replace(view, source=source) for view in VIEWS]


@pytest.mark.parametrize(
    ("before", "odd", "after", "events"),
    [
        pytest.param(
            VIEWS,
            {"note": "abc"},
            lambda: with_source(replace(orders, schema={**orders.schema, "note": Int64})),
            15,
            id="a column is declared that they do not have as it is declared",
        ),
        pytest.param(VIEWS, LARGE, lambda: [*VIEWS, SPREAD], 15, id="a view bounds a column more than they do"),
        pytest.param([*VIEWS, SPREAD], LARGE, lambda: [*VIEWS], 10, id="a view that bounded a column goes"),
        pytest.param(
            VIEWS, {}, lambda: with_source(replace(orders, history_start="2024-03-02")), 15, id="history starts later"
        ),
    ],
)
def test_both_stores_keep_to_what_the_first_has_decided(
    home: Path,
    valkey: Valkey,
    namespace: str,
    before: Sequence[WindowedView],
    odd: dict[str, object],
    after: Callable[[], Sequence[WindowedView]],
    events: int,
) -> None:
    world = World.make(home, valkey.url, namespace)
    registry = Registry.open(world.settings, world.online)
    registry.apply(Definitions.of(*before))
    world.append("a.ndjson", [line(n) for n in range(10)])
    with world.flow() as flow:
        await_that(lambda: world.archived() == 10, flow)
        world.append("a.ndjson", [line(n, **odd) for n in range(10, 15)])
        await_that(lambda: world.applied() == 15, flow)
        flow.kill()
        flow.wait()
    assert world.archived() == 10
    views = after()
    registry.apply(Definitions.of(*views))
    said = world.run()
    assert said["dead"] == ({} if events == 15 else {TOO_LARGE: 5})
    source, at_us = views[0].source, START_US + 100 * SECOND_US
    assert world.offline.archive(source).scan(["event_id"]).num_rows == events
    assert world.offline.streamed(views[0]).read()[1].records["events"].sum() == events
    reader = OnlineReader(world.online, namespace)
    (count, *_) = reader.read([views[0]], {views[0].key: ["u1"]}, at_us, at_us).views[views[0].key].columns
    assert count.values.tolist() == [events]
    assert not world.run()["events"]
