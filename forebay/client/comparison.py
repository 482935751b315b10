"""Two views beside each other on the entities that are live: the shadow run of a new version.

    live entities   ── some of either view, as the online store has them
    one instant     ── one round trip reads both views, so no event lies between them
    a feature       ── of the same name in both: how many values are equal, how far the others are apart, and examples

May live here: what is compared and how it is summed up. Invariants: entities that only one view holds are counted and
shown, and are in no feature's figures; doubles are equal within FLOAT_TOLERANCE, as the law has their sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import numpy as np
import redis

from forebay.core.identity import parse_entity_key
from forebay.core.values import FeatureColumn
from forebay.errors import RequestError
from forebay.instants import moment
from forebay.language.view import AnyView
from forebay.online.read import OnlineReader
from forebay.online.scan import held, some_entities

SAMPLE_MAX = 10_000
"""Entities of one comparison: all are read in one reply, so that there is one instant."""
STEPS_MAX = 10_000
"""Steps of the search for entities: five million keys, some seconds of scanning."""
EXAMPLES = 5
FLOAT_TOLERANCE = 1e-9
QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True)
class Example:
    """One entity, and what a feature is of it in either view."""

    entity: dict[str, Any]
    before: Any
    after: Any


@dataclass(frozen=True)
class FeatureDifference:
    """One feature of both views: over `entities`, how many values are `equal`; of the others the `largest` absolute
    difference and its `quantiles` (None where values are no numbers or instants; instants differ by seconds).

    `statuses` counts equal values whose status is another, such as a computed 0 and a default 0.
    """

    name: str
    types: tuple[str, str]
    entities: int
    equal: int
    statuses: int
    largest: float | None
    quantiles: dict[str, float] | None
    examples: tuple[Example, ...]

    @property
    def share_equal(self) -> float:
        """The share of equal values; 1 where nothing was compared."""
        return self.equal / self.entities if self.entities else 1.0


@dataclass(frozen=True)
class Comparison:
    """What two views say of the same live entities at one instant."""

    before: str
    after: str
    instant: datetime
    entities: int
    only_before: int
    only_after: int
    lacking: tuple[dict[str, Any], ...]
    """Some entities that the first view has and the second has not."""
    features: tuple[FeatureDifference, ...]
    dropped: tuple[str, ...]
    added: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        features = [
            {
                "name": one.name,
                "types": list(one.types),
                "entities": one.entities,
                "equal": one.equal,
                "share_equal": one.share_equal,
                "other_status": one.statuses,
                "largest_difference": one.largest,
                "quantiles": one.quantiles,
                "examples": [vars(example) for example in one.examples],
            }
            for one in self.features
        ]
        return {**vars(self), "features": features}


def compare_views(
    client: redis.Redis, namespace: str, before: AnyView, after: AnyView, *, sample: int, now_us: int
) -> Comparison:
    """Compare two views of one entity on at most `sample` live entities.

    Raises `RequestError` where they are about different entities, or the sample is out of bounds.
    """
    _check(before, after, sample)
    keys = _live(client, namespace, before, after, sample)
    here, there = (held(client, namespace, view.key, keys) for view in (before, after))
    both = [key for key, was, now in zip(keys, here, there, strict=True) if was and now]
    lacking = [key for key, was, now in zip(keys, here, there, strict=True) if was and not now]
    read = OnlineReader(client, namespace).read([before, after], {before.key: both, after.key: both}, None, now_us)
    olds, news = ({column.feature.name: column for column in read.views[v.key].columns} for v in (before, after))
    entities = [parse_entity_key(before.entity, key) for key in both]
    return Comparison(
        before.key,
        after.key,
        moment(read.instant_us),
        len(both),
        len(lacking),
        sum(now and not was for was, now in zip(here, there, strict=True)),
        tuple(parse_entity_key(before.entity, key) for key in lacking[:EXAMPLES]),
        tuple(_compare(olds[name], news[name], entities) for name in olds if name in news),
        tuple(name for name in olds if name not in news),
        tuple(name for name in news if name not in olds),
    )


def _check(before: AnyView, after: AnyView, sample: int) -> None:
    if before.key == after.key:
        raise RequestError(f"View {before.key!r} is compared with itself; name two views")
    if before.entity != after.entity:
        raise RequestError(
            f"View {before.key!r} is about {before.entity.name!r} and {after.key!r} about {after.entity.name!r}; "
            "expected two views of one entity"
        )
    if not 2 <= sample <= SAMPLE_MAX:
        raise RequestError(f"sample={sample}; expected 2 to {SAMPLE_MAX:,} entities")


def _live(client: redis.Redis, namespace: str, before: AnyView, after: AnyView, sample: int) -> list[str]:
    """Entities of either view: half of the sample from each, more of one where the other has fewer."""
    found = [some_entities(client, namespace, view.key, sample, STEPS_MAX) for view in (before, after)]
    half = sample // 2
    first = found[0][: max(half, sample - len(found[1]))]
    return list(dict.fromkeys([*first, *found[1]]))[:sample]


def _compare(old: FeatureColumn, new: FeatureColumn, entities: Sequence[dict[str, Any]]) -> FeatureDifference:
    pairs = list(zip(old.to_python(), new.to_python(), strict=True))
    differ = [row for row, (was, now) in enumerate(pairs) if not _equal(was, now)]
    statuses = (old.status != new.status).nonzero()[0].tolist()
    apart = np.array(list(_apart(pairs[row] for row in differ)), np.float64)
    return FeatureDifference(
        old.feature.name,
        (str(old.feature.type), str(new.feature.type)),
        len(pairs),
        len(pairs) - len(differ),
        len({*statuses} - {*differ}),
        float(apart.max()) if len(apart) else None,
        {name: float(np.quantile(apart, q)) for name, q in QUANTILES.items()} if len(apart) else None,
        tuple(Example(entities[row], *pairs[row]) for row in differ[:EXAMPLES]),
    )


def _equal(was: Any, now: Any) -> bool:
    if isinstance(was, float) or isinstance(now, float):
        numbers = _is_number(was) and _is_number(now)
        return numbers and math.isclose(was, now, rel_tol=FLOAT_TOLERANCE)
    return bool(was == now)


def _apart(pairs: Iterator[tuple[Any, Any]]) -> Iterator[float]:
    """How far numbers and instants are apart; pairs of others are passed over."""
    for was, now in pairs:
        if _is_number(was) and _is_number(now):
            yield abs(float(now) - float(was))
        elif isinstance(was, datetime) and isinstance(now, datetime):
            yield abs((now - was).total_seconds())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)
