"""A small shop: the declarations that the tests of the language vary."""

from __future__ import annotations

from typing import Any

import msgspec

from forebay import (
    BatchView,
    Count,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    Float64,
    Int64,
    Last,
    Mean,
    OnDemandView,
    Sessionize,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
)

USER = Entity("user", keys={"user_id": String}, description="Who buys.")
SCHEMA = {
    "event_id": String,
    "user_id": String,
    "kind": String,
    "amount": Decimal(2),
    "pieces": Int64,
    "note": String,
    "ts": Timestamp,
}
SHOP = EventSource(
    "shop",
    schema=SCHEMA,
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/shop.ndjson"),
    history_start="2024-01-01",
    owner="data@example.com",
)
SPEND = WindowedView(
    "spend",
    version=1,
    entity=USER,
    source=SHOP,
    where="kind = 'purchase'",
    derived={"net": Derived("amount * 0.8", Decimal(4))},
    features=[
        Count("purchases", windows=["1h", "24h", None], default=0),
        Sum("paid", of="amount", windows=["24h"], default="0.50"),
        Mean("net_mean", of="net", windows=["7d"], default=0),
        Last("last_pieces", of="pieces", windows=["7d"], default=None, hop="1h"),
    ],
    ttl="30d",
    freshness="1s",
    owner="growth@example.com",
    description="What a user bought.",
    tags={"domain": "shop"},
)
VISITS = WindowedView(
    "visits",
    version=1,
    entity=USER,
    source=Sessionize(SHOP, gap="30m", longest="12h"),
    where="events > 1",
    derived={"minutes": Derived("duration / 60", Decimal(2))},
    features=[
        Count("visits", windows=["24h"], default=0),
        Mean("visit_duration", of="duration", windows=["7d"], default=0),
        Sum("visit_minutes", of="minutes", windows=["7d"], default=0),
    ],
)
PEOPLE = TableSource(
    "people", schema={"user_id": String, "at": Timestamp, "age": Int64}, effective="at", path="people.parquet"
)
SCORE = BatchView(
    "score",
    version=1,
    entity=USER,
    sources=[PEOPLE, SHOP],
    features=[Feature("score", Float64, default=0.5), Feature("since", Timestamp, default="2024-01-01T00:00:00Z")],
    partitions="daily",
    refresh="0 1 * * *",
    ttl="2d",
    reach="7d",
    code="0123456789abcdef",
)
RATIO = OnDemandView(
    "ratio",
    1,
    inputs=[SPEND["paid_24h"], SCORE["score"]],
    request={"amount": Float64},
    features=[Feature("ratio", Float64, default=1.0)],
    code="0123456789abcdef",
    owner="risk@example.com",
)
FRAUD = FeatureService(
    "fraud", version=1, features=[SPEND["paid_24h", "purchases_1h"], SCORE], owner="risk@example.com"
)


def but(value: Any, **fields: Any) -> Any:
    """The same definition with other fields."""
    return msgspec.structs.replace(value, **fields)
