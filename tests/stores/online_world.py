"""A small world for the online store: a view with two rings, one with a lifetime, and plain events to throw at both.

Values that are read are compared with the oracle, never with the core.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import redis

from forebay import Count, Decimal, Entity, EventSource, FileStream, Last, Sum, Timestamp, WindowedView
from forebay import String as Text
from forebay.core.events import Column, Events
from forebay.core.identity import SLOTS
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, roll_up
from forebay.core.values import Status
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.online.lane import Lane, Stretch
from forebay.online.publish import Published, publish_tiles
from forebay.online.read import OnlineRead, OnlineReader
from tests.oracle import oracle
from tests.stores.conftest import Killed, Steps

MIDNIGHT_US = 1_387_065_600_000_000  # 2013-12-15
ALL_SLOTS = range(SLOTS)

shop = EventSource(
    "shop",
    schema={"event_id": Text(max_bytes=12), "user": Text, "amount": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("shop.ndjson"),
    history_start="2013-12-01",
)
user = Entity("user", keys={"user": Text})
WINDOWS_US = {"1h": (HOUR_US, MINUTE_US), "24h": (DAY_US, 15 * MINUTE_US), None: (None, DAY_US)}


def purchases(name: str, windows: Sequence[str | None], **options: Any) -> WindowedView:
    """A view of counts, sums and lasts over some windows."""
    features = [
        Count("orders", windows=windows, default=0),
        Sum("spend", of="amount", windows=windows, default=0),
        Last("last", of="amount", windows=windows, default=-1),
    ]
    return WindowedView(name, version=1, entity=user, source=shop, features=features, **options)


recent = purchases("recent", ["1h", "24h"], freshness="1m")
ever = purchases("ever", ["24h", None])
VIEWS = {view.key: view for view in (recent, ever)}


@dataclass(frozen=True)
class Order:
    """One event: `amount` in cents, `offset` in the partition."""

    entity: str
    ts: int
    offset: int
    amount: int | None = 100
    partition: str = "0"

    @property
    def event_id(self) -> str:
        return f"{self.partition}-{self.offset}"


def as_events(orders: Sequence[Order]) -> Events:
    """The core's columns of orders."""
    keys = list(dict.fromkeys(order.entity for order in orders))
    amounts = Column(
        np.array([order.amount or 0 for order in orders], np.int64),
        np.array([order.amount is not None for order in orders], np.bool_),
    )
    return Events(
        pa.array(keys, pa.string()),
        np.array([keys.index(order.entity) for order in orders], np.int64),
        np.array([order.ts for order in orders], np.int64),
        np.array([order.event_id.encode() for order in orders], "S12"),
        np.array([order.offset for order in orders], np.int64),
        {"amount": amounts},
    )


def stretch(orders: Sequence[Order], *, next_offset: int | None = None, partition: str = "0") -> Stretch:
    """Orders of one partition as a stretch for both views."""
    end = max((order.offset for order in orders), default=-1) + 1 if next_offset is None else next_offset
    newest = max((order.ts for order in orders), default=None)
    events = as_events(orders)
    return Stretch(partition, end, newest, dict.fromkeys(VIEWS, events))


def commit_each(lane: Lane, parts: Sequence[Sequence[Order]]) -> None:
    """A commit of each part."""
    for part in parts:
        lane.commit([stretch(part)])


def killed_and_repeated(
    client: redis.Redis, namespace: str, steps: Steps, parts: Sequence[Sequence[Order]], step: int, *, arrived: bool
) -> None:
    """A lane commits the first part, dies at a step of the others, and another one commits all of them: the law."""
    lane = lane_of(client, namespace)
    commit_each(lane, parts[:1])
    steps.kill(step, arrived=arrived)
    with pytest.raises(Killed):
        commit_each(lane, parts[1:])
    steps.clear()
    lane.close()
    heir = lane_of(client, namespace)
    commit_each(heir, parts)
    assert_law(client, namespace, [order for part in parts for order in part])
    heir.close()


def lane_of(client: redis.Redis, namespace: str, slots: Sequence[int] = ALL_SLOTS) -> Lane:
    """A lane that has taken over."""
    lane = Lane(client, namespace, list(VIEWS.values()), slots)
    lane.take_over()
    return lane


def batch_tiles(view: WindowedView, orders: Iterable[Order], cut_us: int) -> tuple[list[str], Tiles]:
    """What a backfill publishes: every ring's tiles of the orders before the cut."""
    events = as_events([order for order in orders if order.ts < cut_us])
    layout = Layout.of(view)
    return events.keys.to_pylist(), roll_up(layout, fold(layout, events))


def publish(
    client: redis.Redis, namespace: str, orders: Iterable[Order], cut_us: int, view: WindowedView = recent
) -> Published:
    """Publish the orders before a cut."""
    keys, tiles = batch_tiles(view, list(orders), cut_us)
    return publish_tiles(client, namespace, view, keys, tiles, cut_us)


def read(client: redis.Redis, namespace: str, entities: Sequence[str | None], at_us: int | None = None) -> OnlineRead:
    """Both views of some entities; without `at_us` at the newest event (the wall clock says 1970)."""
    keys = {key: list(entities) for key in VIEWS}
    return OnlineReader(client, namespace).read(list(VIEWS.values()), keys, at_us, 0)


def values(found: OnlineRead, view: WindowedView) -> list[dict[str, tuple[Any, str]]]:
    """Per row, each feature's stored value and status; STALE is a present value here."""
    columns = found.views[view.key].columns
    return [
        {
            column.feature.name: (
                column.values[row].item() if column.valid[row] else None,
                "PRESENT" if column.status[row] == Status.STALE else Status(column.status[row]).name,
            )
            for column in columns
        }
        for row in range(len(columns[0]))
    ]


def expected(orders: Iterable[Order], view: WindowedView, entity: str, at_us: int) -> dict[str, tuple[Any, str]]:
    """What the oracle says of an entity."""
    events = [(order.entity, order.ts, order.event_id, order.amount) for order in orders]
    return {
        feature.feature_name(window): oracle(
            type(feature).__name__,
            events,
            entity,
            at_us,
            *WINDOWS_US[window],
            of=feature.of,
            scale=0,
            ttl_us=view.ttl_us,
            default=_default(feature),
        )
        for feature in view.features
        for window in feature.windows
    }


def _default(feature: Any) -> Any:
    """In stored units: cents of an amount."""
    return feature.default if feature.of is None else feature.default * 100


def assert_law(client: redis.Redis, namespace: str, orders: Sequence[Order], at_us: int | None = None) -> int:
    """Every feature of everybody equals the oracle over `orders`; the instant of the read."""
    entities = sorted({order.entity for order in orders} | {"dan", "nobody"})
    found = read(client, namespace, entities, at_us)
    for view in VIEWS.values():
        for entity, row in zip(entities, values(found, view), strict=True):
            want = expected(orders, view, entity, found.instant_us)
            assert row == want, f"{view.key} of {entity} at {found.instant_us}"
    return found.instant_us
