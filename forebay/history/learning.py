"""Learning the statistical defaults of a view: from what its features were, of entities, within a period.

    instants   the midnights (UTC) of the last `over` days, up to the last one
    values     those that were computed (`PRESENT`) of each entity at each of them: a default teaches nothing
    entities   all, or where they are many those that a hash of their keys chooses: always the same

May live here: which values a statistic is taken of. Nothing here deploys: what is learned becomes the default with a
manifest (`Registry.learn`). Invariant: the same history and the same day give the same value.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.calls.keyed import Keyed
from forebay.core.values import Status
from forebay.errors import RequestError
from forebay.history.finished import entities_of
from forebay.history.historical import answers
from forebay.instants import DAY_US, floor_us
from forebay.language.learned import statistics_of
from forebay.language.statistics import Statistic
from forebay.language.types import FeatureType
from forebay.language.view import AnyView
from forebay.offline.tables import OfflineStore

Ints = npt.NDArray[np.int64]
VALUES_MAX = 5_000_000
"""Values of one feature that a statistic is taken of: some 40 MB; more would not move it."""
ROWS_AT_ONCE = 500_000


@dataclass(frozen=True)
class Learned:
    """What a feature's default is by the history of now; `value` is its `otherwise` where there were no values."""

    feature: str
    statistic: str
    value: Any
    values: int


def learn(store: OfflineStore, view: AnyView, *, now_us: int) -> list[Learned]:
    """The statistical defaults of a view, of the days before now. Raises `RequestError` where it declares none."""
    statistics = statistics_of(view)
    if not statistics:
        raise RequestError(
            f"View {view.key!r} declares no statistical default; write e.g. default=Median(over='30d', otherwise=0)"
        )
    by_days: dict[int, list[str]] = {}
    for name, statistic in statistics.items():
        by_days.setdefault(statistic.over_days, []).append(name)
    found: dict[str, npt.NDArray[Any]] = {}
    for days, names in by_days.items():
        found |= _values(store, view, names, floor_us(now_us, DAY_US), days)
    outputs = view.outputs()
    return [_learned(name, statistic, outputs[name].type, found[name]) for name, statistic in statistics.items()]


def values_of(found: list[Learned]) -> dict[str, Any]:
    """What is to be deployed of it: of a feature without values its `otherwise` stays the default."""
    return {one.feature: one.value for one in found if one.values}


def _learned(name: str, statistic: Statistic, kind: FeatureType, values: npt.NDArray[Any]) -> Learned:
    value = statistic.of(values, kind) if len(values) else statistic.otherwise
    return Learned(name, str(statistic), value, len(values))


def _values(
    store: OfflineStore, view: AnyView, names: list[str], end_us: int, days: int
) -> dict[str, npt.NDArray[Any]]:
    """The computed values of some features at the midnights up to an instant, in stored form."""
    instants = end_us - DAY_US * np.arange(days - 1, -1, -1, dtype=np.int64)
    keys = sampled(entities_of(store, view, int(instants[0]) - DAY_US, end_us), max(1, VALUES_MAX // days))
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    for group in _groups(keys, days):
        code, us = np.repeat(np.arange(len(group)), days), np.tile(instants, len(group))
        for column in answers(store, view, Keyed(group, code), us, names, known=False):
            parts[column.feature.name].append(column.values[(column.status == Status.PRESENT) & column.valid])
    return {name: np.concatenate(found) if found else np.empty(0) for name, found in parts.items()}


def sampled(keys: list[str], most: int) -> list[str]:
    """At most so many keys, chosen by their hash, in order.

    >>> sampled(["ann", "bob", "eve"], 2) == sampled(["bob", "eve", "ann"], 2)
    True
    """
    return sorted(sorted(keys, key=lambda key: (zlib.crc32(key.encode()), key))[:most])


def _groups(keys: list[str], days: int) -> Iterator[list[str]]:
    size = max(1, ROWS_AT_ONCE // days)
    for first in range(0, len(keys), size):
        yield keys[first : first + size]
