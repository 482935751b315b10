"""A small shop: the declarations that the tests of backfill, assets and serving share (as FOREBAY_DEFINITIONS, too)."""

from __future__ import annotations

from typing import Any

import numpy as np

from forebay import (
    Bool,
    Count,
    Decimal,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    Float64,
    Int64,
    Last,
    Mean,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
    batch_view,
    on_demand,
)

HISTORY_START = "2024-01-01"

user = Entity("user", keys={"user_id": String})
counter = Entity("counter", keys={"country": String, "shop": Int64}, description="A counter of a shop.")

sales = EventSource(
    "sales",
    schema={
        "event_id": String(max_bytes=16),
        "ts": Timestamp,
        "user_id": String,
        "country": String,
        "shop": Int64,
        "amount": Decimal(2),
        "weight": Float64,
    },
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/sales.ndjson"),
    lateness="10m",
    history_start=HISTORY_START,
    owner="shop@example.com",
    description="Somebody bought something.",
    tags={"domain": "shop"},
)

tiers = TableSource(
    "tiers",
    schema={"user_id": String, "since": Timestamp, "tier": Int64},
    effective="since",
    path="${FOREBAY_HOME}/tiers.csv",
    owner="the shop",
    description="Which tier a user has, from when on.",
)

user_sales = WindowedView(
    "user_sales",
    version=1,
    entity=user,
    source=sales,
    features=[
        Count("bought", windows=["1h", "24h", "7d", None], default=0),
        Sum("spent", of="amount", windows=["24h", "7d"], default=0),
        Mean("weight_mean", of="weight", windows=["24h"], default=0.0),
        Last("last_amount", of="amount", windows=[None], default=None),
    ],
    refresh="30 0 * * *",
    history="6h",
    owner="shop@example.com",
    description="What a user bought.",
    tags={"domain": "shop"},
)

counter_sales = WindowedView(
    "counter_sales",
    version=1,
    entity=counter,
    source=sales,
    where="amount > 0",
    features=[Count("sold", windows=["24h"], default=0), Sum("turnover", of="amount", windows=["24h"], default=0)],
    owner="nobody in particular",
    tags={"domain": "shop floor", "a tag": "with spaces"},
)


@batch_view(
    entity=user,
    version=1,
    sources=[tiers],
    partitions="hourly",
    refresh="0 * * * *",
    ttl="2d",
    history_start=HISTORY_START,
    features=[Feature("tier", Int64, default=0)],
)
def user_tier(context: Any, tiers: Any) -> Any:
    """The tier of each user."""
    return context.sql("SELECT user_id, arg_max(tier, since) AS tier, {end} AS event_timestamp FROM tiers GROUP BY ALL")


@batch_view(
    entity=user,
    version=1,
    sources=[sales, tiers],
    partitions="daily",
    refresh="0 * * * *",
    reach="3d",
    features=[Feature("spent_3d", Decimal(2), default=0), Feature("sales_seen", Int64, default=0)],
    tags={"domain": "shop"},
)
def user_spending(context: Any, sales: Any, tiers: Any) -> Any:
    """What each user spent within three days."""
    return context.sql("""
        SELECT user_id, sum(amount) AS spent_3d, count(*) AS sales_seen, {end} AS event_timestamp
        FROM sales GROUP BY user_id
    """)


@on_demand(
    version=1,
    inputs=[user_tier],
    request={"amount": Decimal(2), "is_gift": Bool},
    features=[Feature("tiered_amount", Float64, default=0.0)],
)
def tiered(tier: Any, amount: Any, is_gift: Any) -> Any:
    """What a payment would count for."""
    return np.where(is_gift, 0.0, amount * tier)


@on_demand(
    version=1, inputs=[user_tier, counter_sales["sold_24h"]], features=[Feature("tier_per_sale", Float64, default=0.0)]
)
def at_counter(tier: Any, sold_24h: Any) -> Any:
    """A user at a counter."""
    return tier / sold_24h


till = FeatureService("till", version=1, features=[tiered, at_counter], owner="shop@example.com")
shop = FeatureService("shop", version=1, features=[user_sales, user_tier, user_spending], owner="shop@example.com")
