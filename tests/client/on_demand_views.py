"""On-demand views over the small world of the laws: arguments and results of every type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay import (
    Bool,
    Decimal,
    Feature,
    FeatureService,
    Float64,
    Int64,
    List,
    String,
    Timestamp,
    Vector,
    on_demand,
)
from forebay.client.feature_store import FeatureStore, Instant
from forebay.instants import MINUTE_US, instant_us
from forebay.language.definitions import Definitions
from tests.client.deployed_world import World, profile
from tests.laws.world import COLUMNS, MIDNIGHT_US, VIEW, Event

Array = npt.NDArray[Any]
REQUEST = {
    "number": Int64,
    "share": Float64,
    "price": Decimal(2),
    "agreed": Bool,
    "said": String,
    "since": Timestamp,
}


@on_demand(
    version=1,
    inputs=[VIEW, profile["city"]],
    request=REQUEST,
    features=[
        Feature("ratio", Float64, default=-1.0),
        Feature("curve", Float64, default=None),
        Feature("total", Decimal(2), default=0),
        Feature("difference", Int64, default=-1),
        Feature("is_same", Bool, default=False),
        Feature("later", Timestamp, default="1970-01-01T00:00:00Z"),
        Feature("sentence", String, default="nothing"),
        Feature("lengths", List(Int64), default=[]),
        Feature("point", Vector(2), default=None),
        Feature("hour", Int64, default=-1),
    ],
)
def mixed(
    Sum_whole_1h: Array,
    Sum_money_24h: Array,
    Max_real_lifetime: Array,
    Last_flag_lifetime: Array,
    Last_moment_lifetime: Array,
    Last_word_lifetime: Array,
    LastK_whole_lifetime: Array,
    city: Array,
    number: Array,
    share: Array,
    price: Array,
    agreed: Array,
    said: Array,
    since: Array,
    event_timestamp: Array,
) -> dict[str, Array]:
    """A feature of each type, of features and columns of each type."""
    share *= 1.0  # the arrays are the function's own
    return {
        "ratio": Sum_money_24h / price,
        "curve": np.log1p(np.abs(Max_real_lifetime)) * np.power(np.abs(share) + 1.0, 0.3) + np.exp(-np.abs(share)),
        "total": Sum_money_24h + price,
        "difference": number - Sum_whole_1h,
        "is_same": Last_flag_lifetime == agreed,
        "later": np.maximum(Last_moment_lifetime, since),
        "sentence": Last_word_lifetime + " " + said + " " + city,
        "lengths": [[len(listed), len(word)] for listed, word in zip(LastK_whole_lifetime, said, strict=True)],
        "point": np.stack([share, price], axis=1),
        "hour": event_timestamp.astype("datetime64[h]").astype(np.int64) % 24,
    }


@on_demand(
    version=1,
    inputs=[profile["age"], VIEW["Count_all_1h"]],
    features=[Feature("aged", Float64, default=None), Feature("share_of_age", Float64, default=0.5)],
)
def of_age(age: Array, Count_all_1h: Array) -> dict[str, Array]:
    """Of features alone, one of which may be null."""
    return {"aged": np.sqrt(age), "share_of_age": Count_all_1h / age}


@on_demand(
    version=1, inputs=[VIEW["Count_all_1h"]], request={"number": Int64}, features=[Feature("f", Int64, default=7)]
)
def fails_at_odd(Count_all_1h: Array, number: Array) -> Array:
    """Raises where a number is odd."""
    if (number % 2).any():
        raise ValueError("an odd number")
    return number * 2 + 0 * Count_all_1h


service = FeatureService("computed", version=1, features=[mixed, of_age, VIEW["Count_all_1h"]])
DEFINITIONS = Definitions.of(service, fails_at_odd)

NOON_US = MIDNIGHT_US + 720 * MINUTE_US


def event(user: str, minute: int, whole: int) -> Event:
    return Event(user, MIDNIGHT_US + minute * MINUTE_US, f"{minute}", dict.fromkeys(COLUMNS) | {"whole": whole})


class Computed(World):
    """The world with its on-demand views."""

    def __init__(self, online_url: str, home: Path, namespace: str) -> None:
        super().__init__(online_url, home, namespace)
        self.store = FeatureStore(self.settings, DEFINITIONS)


def spine_of(rows: list[dict[str, Any]], at: Instant) -> pa.Table:
    """Rows of a training set: what was asked online, in Arrow."""
    kinds = {"number": pa.int64(), "share": pa.float64(), "price": pa.decimal128(10, 2), "agreed": pa.bool_()}
    kinds |= {"said": pa.string(), "since": pa.timestamp("us", "UTC"), "user": pa.string()}
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name, kind in kinds.items() if name in rows[0]}
    return pa.table(columns | {"event_timestamp": pa.array([instant_us(at)] * len(rows), pa.timestamp("us", "UTC"))})


def answers(response: Any, names: list[str]) -> dict[str, list[Any]]:
    """Values and statuses of an online response."""
    return {name: [*zip(response.to_dict()[name], response.statuses[name], strict=True)] for name in names}
