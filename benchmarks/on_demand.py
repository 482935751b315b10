"""On-demand features beside the same function called by hand on what was read, which no client can do with less.

    online      get_online_features of features and what is computed of them   beside   the features, then the function
    training    the function over a million rows as a training set calls it    beside   one call of it

What is on top is the check of the request, the statuses, and the rows that are computed a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.deployment import deployed
from benchmarks.online import END_US, START_US, fill
from benchmarks.purchases import Purchases
from benchmarks.report import OURS, Comparison, Report
from benchmarks.rounds import Samples, interleaved, per_unit
from benchmarks.shop import LIVE, user_spend
from forebay import Decimal, Feature, FeatureService, Float64, on_demand
from forebay.calls.on_demand import compute
from forebay.client.feature_store import FeatureStore
from forebay.core.values import FeatureColumn
from forebay.language.definitions import Definitions

BY_HAND = "the function by hand"
Floats = npt.NDArray[np.float64]


def deviations(mean: Floats, stddev: Floats, amount: Floats) -> Floats:
    """How far an amount is from the mean."""
    with np.errstate(all="ignore"):
        deviation: Floats = (amount - mean) / stddev
    return deviation


@on_demand(
    version=1,
    inputs=[user_spend["user_sum_7d", "user_stddev_7d"]],
    request={"amount": Decimal(2)},
    features=[Feature("deviation", Float64, default=0.0)],
)
def unusual(user_sum_7d: Floats, user_stddev_7d: Floats, amount: Floats) -> Floats:
    """How unusual an amount is."""
    return deviations(user_sum_7d, user_stddev_7d, amount)


read = FeatureService("read", version=1, features=[user_spend])
computed = FeatureService("computed", version=1, features=[user_spend, unusual])


@dataclass(frozen=True)
class Size:
    """How much is stored, how often each request is made in a round, and rows of a training set."""

    users: int = 2_000
    events: int = 300_000
    requests: int = 20
    reads_of_1: int = 600
    reads_of_100: int = 60
    rows: int = 1_000_000
    rounds: int = 5


TINY = Size(users=200, events=4_000, requests=3, reads_of_1=6, reads_of_100=3, rows=1_000, rounds=1)


def run(size: Size) -> Report:
    """Measure reads of 1 and of 100 entities, and a training set's rows."""
    comparisons: list[Comparison] = []
    with deployed(LIVE) as deployment:
        fill(deployment, Purchases.drawn(size.events, size.users, START_US, END_US, zipf=0.0))
        with FeatureStore(deployment.settings, Definitions.of(read, computed)) as store:
            for rows, reads in ((1, size.reads_of_1), (100, size.reads_of_100)):
                samples = _online(store, rows, reads, size)
                what = f"read {rows} × 18 features and one on demand"
                comparisons.append(Comparison.of(f"{what}, wall", samples, BY_HAND, "wall_us", "µs"))
    samples = _training(size)
    comparisons.append(Comparison.of(f"{size.rows:,} rows of one on demand", samples, BY_HAND, "wall_us", "µs/row"))
    return Report("on_demand", f"{size.users:,} users", size.rounds, comparisons)


def _online(store: FeatureStore, rows: int, reads: int, size: Size) -> Samples:
    rng = np.random.default_rng(rows)
    requests = [
        [{"user_id": f"u{user}", "amount": float(amount)} for user, amount in zip(users, amounts, strict=True)]
        for users, amounts in (
            (rng.choice(size.users, rows, replace=False), rng.integers(1, 9_999, rows) / 100)
            for _ in range(size.requests)
        )
    ]

    def ours(asked: list[dict[str, Any]]) -> Mapping[str, Any]:
        return store.get_online_features("computed@1", entity_rows=asked, at=END_US).to_numpy()

    def by_hand(asked: list[dict[str, Any]]) -> Mapping[str, Any]:
        found = store.get_online_features("read@1", entity_rows=asked, at=END_US).to_numpy()
        amounts = np.array([row["amount"] for row in asked])
        return found | {"deviation": deviations(found["user_sum_7d"], found["user_stddev_7d"], amounts)}

    for asked in requests:
        one, other = ours(asked)["deviation"], by_hand(asked)["deviation"]
        assert np.array_equal(one, np.where(np.isfinite(other), other, 0.0)), "deviation differs"
    return interleaved({OURS: _each(ours, requests, reads), BY_HAND: _each(by_hand, requests, reads)}, size.rounds)


def _training(size: Size) -> Samples:
    rng = np.random.default_rng(1)
    inputs = user_spend.outputs()
    arguments = {
        "user_sum_7d": _column(inputs["user_sum_7d"], rng.integers(0, 10**6, size.rows)),
        "user_stddev_7d": _column(inputs["user_stddev_7d"], rng.random(size.rows) + 1.0),
        "amount": _column(Feature("amount", Decimal(2), default=None), rng.integers(1, 10**6, size.rows)),
    }
    instants_us = np.zeros(size.rows, np.int64)

    def ours() -> int:
        return len(compute(unusual, arguments, instants_us)[0])

    def by_hand() -> int:
        arrays = {name: column.to_numpy() for name, column in arguments.items()}
        return len(deviations(arrays["user_sum_7d"], arrays["user_stddev_7d"], arrays["amount"]))

    return interleaved({OURS: per_unit(ours), BY_HAND: per_unit(by_hand)}, size.rounds)


def _column(feature: Feature, values: npt.NDArray[Any]) -> FeatureColumn:
    whole = FeatureColumn.of_defaults(feature, len(values))
    return FeatureColumn(feature, values, np.ones(len(values), np.bool_), whole.status, whole.event_us)


def _each(work: Callable[[list[dict[str, Any]]], object], requests: list[list[dict[str, Any]]], reads: int) -> Any:
    def times() -> int:
        for n in range(reads):
            work(requests[n % len(requests)])
        return reads

    return per_unit(times)
