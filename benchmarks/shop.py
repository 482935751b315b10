"""What the benchmarks declare: a shop's purchases, as features of users and of merchants.

Declarations only. The streamed views are those of the issue on the stream: 2 views × 3 windows × 6 aggregates. The
training view has the nine that cumulative sums can compute by hand, and `all_spend` the two more that they can't.
"""

from __future__ import annotations

import msgspec

from forebay import (
    BatchView,
    Count,
    Decimal,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    First,
    Float64,
    Int64,
    Last,
    Max,
    Mean,
    Min,
    StdDev,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
)
from forebay.language.aggregations import Aggregation
from forebay.language.definitions import Definitions
from forebay.language.source import AnyStream

HISTORY_START = "2026-01-01"
WINDOWS = ["1h", "24h", "7d"]
TRAINING_WINDOWS = ["1h", "24h", "7d", "30d"]

user = Entity("user", keys={"user_id": String})
merchant = Entity("merchant", keys={"merchant_id": String})

purchases = EventSource(
    "purchases",
    schema={
        "event_id": String(max_bytes=16),
        "ts": Timestamp,
        "user_id": String,
        "merchant_id": String,
        "amount": Decimal(2),
        "items": Int64,
    },
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("${FOREBAY_HOME}/stream"),
    lateness="10m",
    history_start=HISTORY_START,
)


def six(prefix: str) -> list[Aggregation]:
    """Six aggregates of the amount over three windows."""
    return [
        Count(f"{prefix}_count", windows=WINDOWS, default=0),
        Sum(f"{prefix}_sum", of="amount", windows=WINDOWS, default=0),
        StdDev(f"{prefix}_stddev", of="amount", windows=WINDOWS, default=0.0),
        Min(f"{prefix}_min", of="amount", windows=WINDOWS, default=0),
        Max(f"{prefix}_max", of="amount", windows=WINDOWS, default=0),
        Last(f"{prefix}_last", of="amount", windows=WINDOWS, default=0),
    ]


user_spend = WindowedView("user_spend", version=1, entity=user, source=purchases, features=six("user"))
merchant_sales = WindowedView("merchant_sales", version=1, entity=merchant, source=purchases, features=six("merchant"))
spend = FeatureService("spend", version=1, features=[user_spend])
checkout = FeatureService("checkout", version=1, features=[user_spend, merchant_sales])

past_spend = WindowedView(
    "past_spend",
    version=1,
    entity=user,
    source=purchases,
    features=[
        Count("n", windows=TRAINING_WINDOWS, default=0),
        Sum("total", of="amount", windows=TRAINING_WINDOWS, default=0),
        Mean("mean", of="amount", windows=TRAINING_WINDOWS, default=0.0),
        StdDev("stddev", of="amount", windows=TRAINING_WINDOWS, default=0.0),
        Sum("items_total", of="items", windows=TRAINING_WINDOWS, default=0),
        Mean("items_mean", of="items", windows=TRAINING_WINDOWS, default=0.0),
        StdDev("items_stddev", of="items", windows=TRAINING_WINDOWS, default=0.0),
        First("first", of="amount", windows=TRAINING_WINDOWS, default=0),
        Last("last", of="amount", windows=TRAINING_WINDOWS, default=0),
    ],
)
all_spend = WindowedView(
    "all_spend",
    version=1,
    entity=user,
    source=purchases,
    features=[
        *past_spend.features,
        Min("least", of="amount", windows=TRAINING_WINDOWS, default=0),
        Max("most", of="amount", windows=TRAINING_WINDOWS, default=0),
    ],
)
past = FeatureService("past", version=1, features=[past_spend])
everything = FeatureService("everything", version=1, features=[all_spend])

people = TableSource("people", schema={"user_id": String, "at": Timestamp}, effective="at", path="people.csv")


def profile_of(name: str, floats: int, integers: int) -> BatchView:
    """A batch view of so many features."""
    return BatchView(
        name=name,
        version=1,
        entity=user,
        sources=[people],
        partitions="none",
        ttl="30d",
        features=[
            *(Feature(f"score_{i}", Float64, default=0.0) for i in range(floats)),
            *(Feature(f"count_{i}", Int64, default=0) for i in range(integers)),
        ],
    )


profile = profile_of("profile", 5, 0)
profiles = (profile, profile_of("mixed_profile", 5, 5), profile_of("wide_profile", 10, 10))
"""Of growing width: the second is the one by which Feast was measured before (5 floats and 5 whole numbers)."""


def live_from(stream: AnyStream) -> Definitions:
    """The streamed views of the same purchases, from another stream."""
    source = msgspec.structs.replace(purchases, stream=stream)
    mine, theirs = (msgspec.structs.replace(view, source=source) for view in (user_spend, merchant_sales))
    return Definitions.of(
        FeatureService("spend", version=1, features=[mine]),
        FeatureService("checkout", version=1, features=[mine, theirs]),
    )


LIVE = Definitions.of(spend, checkout)
PAST = Definitions.of(past, everything)
PUBLISHED = Definitions.of(user_spend, *profiles)
