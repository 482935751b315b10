"""A source grows: columns added, widened and renamed beside the old ones, and what is archived stays readable."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from forebay import Decimal, Derived, Float64, Int64, String, Sum, Timestamp, WindowedView
from forebay.backfill.tiles import fold_dates
from forebay.core.layout import Layout
from forebay.core.ranges import answer_events
from forebay.ingest.arrow import conform
from forebay.ingest.select import Selector
from forebay.language.aggregations import Last
from forebay.language.source import EventSource
from forebay.offline.archive import event_order
from forebay.offline.tables import OfflineStore
from forebay.offline.upkeep import keep_up
from tests.backfill.shop import user
from tests.backfill.world import NOW, day, plain

FIRST = EventSource(
    "shop",
    schema={
        "event_id": String(max_bytes=16),
        "user_id": String,
        "kind": String(max_bytes=8),
        "amount": Decimal(2),
        "items": Int64,
        "ts": Timestamp,
    },
    timestamp="ts",
    event_id="event_id",
    history_start="2024-01-01",
)
SECOND = msgspec.structs.replace(
    FIRST,
    schema={**FIRST.schema, "category": String(max_bytes=32), "amount_2": Decimal(4), "weight": Float64},
)
FEATURES = [
    Sum("spent", of="paid", windows=["30d"], default=0),
    Sum("weighed", of="mass", windows=["30d"], default=0.0),
    Last("last_category", of="what", windows=["30d"], default="none"),
]
DERIVED = {
    "paid": Derived("coalesce(amount_2, amount)", Decimal(4)),
    "mass": Derived("coalesce(weight, items)", Float64),
    "what": Derived("coalesce(category, kind)", String(max_bytes=32)),
}
BOTH = WindowedView("spending", 2, user, SECOND, features=FEATURES, derived=DERIVED)
BEFORE = WindowedView("spending", 1, user, FIRST, features=[Sum("spent", of="amount", windows=["30d"], default=0)])


def rows(first: int, count: int, columns: dict[str, list[Any]]) -> pa.Table:
    return pa.table(
        {
            "event_id": [f"e{number}" for number in range(first, first + count)],
            "user_id": ["u1"] * count,
            "ts": pa.array([day(number, 1) for number in range(first, first + count)], pa.timestamp("us", "UTC")),
            **columns,
        }
    )


def append(store: OfflineStore, source: EventSource, partition: str, table: pa.Table) -> None:
    batch, dead = conform(source, partition, 0, table, NOW)
    assert not dead
    store.archive(source).append([batch], NOW)


def answered(store: OfflineStore, view: WindowedView, at_us: int) -> dict[str, Any]:
    selector = Selector(view)
    events = selector.select(store.archive(view.source).scan(selector.columns))
    columns = answer_events(Layout.of(view), events, np.array([events.keys.to_pylist().index("u1")]), np.array([at_us]))
    return {name: values[0] for name, values, _ in plain(columns)}


def test_old_and_new_columns_are_read_as_one_and_views_of_the_old_ones_go_on(offline_url: str) -> None:
    """
    day      0    1    2    3
    amount   1.25 2.50                 Decimal(2), kind, items
    amount_2           0.0001 3.5      Decimal(4), category, weight
    """
    store = OfflineStore(offline_url)
    append(store, FIRST, "a", rows(0, 2, {"kind": ["book", "toy"], "amount": ["1.25", "2.50"], "items": [1, 2]}))
    new = {"category": ["a category of its own", "board games"], "amount_2": ["0.0001", "3.5"], "weight": [0.5, 0.25]}
    append(store, SECOND, "b", rows(2, 2, new))
    for _ in range(2):
        found = answered(store, BOTH, day(5))
        assert (str(found["spent_30d"]), found["weighed_30d"]) == ("7.2501", 3.75)
        assert found["last_category_30d"] == "board games"
        assert answered(store, BOTH, day(1, 2))["last_category_30d"] == "toy"
        assert str(answered(store, BEFORE, day(5))["spent_30d"]) == "3.75"
        assert keep_up(store.archive(SECOND).table, event_order(SECOND, ["user_id"])).busy == ()
    folded = fold_dates(store, BOTH, day(0), day(4))
    assert (folded.events, folded.dates) == (4, 4)
    _, tiles = store.tiles(BOTH).read()
    assert tiles.records["present_paid"][tiles.records["ring"] == 0].tolist() == [1, 1, 1, 1]


def test_a_writer_of_the_old_declaration_leaves_the_new_columns_alone(offline_url: str) -> None:
    """A stream that was not started again yet writes beside one that was."""
    store = OfflineStore(offline_url)
    append(store, SECOND, "b", rows(2, 1, {"category": ["games"], "amount_2": ["3.5"], "weight": [0.25]}))
    append(store, FIRST, "a", rows(0, 1, {"kind": ["book"], "amount": ["1.25"], "items": [1]}))
    assert str(answered(store, BOTH, day(5))["spent_30d"]) == "4.7500"
