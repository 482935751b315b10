"""A small world for the laws: a view of every aggregation over every column type that it accepts, and events to throw
at it.

Enrolment is by existing: whatever `AGGREGATIONS` exports is in the view. Events are late, tied, null, at the edges of
hops, at midnight, before 1970 and far in the past; values are at the limits of their types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from forebay import Bool, Decimal, Entity, EventSource, Float64, Int64, String, Timestamp, WindowedView
from forebay.core.events import Column, Events
from forebay.core.values import FeatureColumn, Status
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from forebay.language.aggregations import (
    AGGREGATIONS,
    Aggregation,
    DecayedCount,
    DecayedSum,
    Histogram,
    StdDev,
    Variance,
)
from forebay.language.types import AnyType, DecimalType, ListType
from tests.laws.asked import asked
from tests.own_arguments import own_arguments

MIDNIGHT_US = 1_387_065_600_000_000
WINDOWS = ("30s", "1h", "24h", None)
TTL = "12h"

SCHEMA: dict[str, AnyType] = {
    "event_id": String,
    "user": String,
    "ts": Timestamp,
    "whole": Int64,
    "wide": Int64,
    "money": Decimal(2),
    "real": Float64,
    "flag": Bool,
    "moment": Timestamp,
    "word": String(max_bytes=8),
}
COLUMNS = ("whole", "wide", "money", "real", "flag", "moment", "word")
DEFAULTS: dict[str, Any] = {"flag": True, "word": "none", "moment": "2000-01-01T00:00:00Z"}
EDGES: dict[str, list[Any]] = {
    "whole": [-2, 0, 3],
    "wide": [-(2**62), 0, 2**62],
    "money": ["-1.00", 0, "0.01", 5],
    "real": [-1e6, 0.1, 0.2],
    "moment": ["1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"],
}

user = Entity("user", keys={"user": String})
events_source = EventSource("events", schema=SCHEMA, timestamp="ts", event_id="event_id", history_start="1900-01-01")


def enrolled() -> list[Aggregation]:
    """Every exported aggregation, over every column that accepts it, over every window."""
    features: list[Aggregation] = []
    for kind in AGGREGATIONS:
        arguments = own_arguments(kind)
        if not kind.of_required:
            features.append(kind(f"{kind.__name__}_all", windows=WINDOWS, default=-1, **arguments))
        if kind.__name__ == "SecondsSince":
            continue
        for column in COLUMNS:
            squared_beyond_limit = column == "wide" and issubclass(kind, Variance | StdDev)
            if kind is Histogram:
                arguments = {"edges": EDGES.get(column, [0])}
            probe = kind(f"{kind.__name__}_{column}", of=column, windows=WINDOWS, default=None, **arguments)
            if probe.accepts(SCHEMA[column]) and not squared_beyond_limit:
                features.append(msgspec.structs.replace(probe, default=_default(probe, column)))
    return features


def _default(probe: Aggregation, column: str) -> Any:
    output = probe.output(SCHEMA[column])
    if isinstance(output, ListType):
        return []
    return DEFAULTS.get(column, 7) if output == SCHEMA[column] else -1


VIEW = WindowedView("everything", version=1, entity=user, source=events_source, features=enrolled(), ttl=TTL)


@dataclass(frozen=True)
class Event:
    """One event, its values in stored units."""

    entity: str
    ts: int
    event_id: str
    values: dict[str, Any]


OFFSETS_US = st.one_of(
    st.sampled_from(
        [k * step + d for step in (SECOND_US, MINUTE_US, HOUR_US, DAY_US) for k in (-2, -1, 0, 1) for d in (-1, 0, 1)]
    ),
    st.integers(-3 * DAY_US, 3 * DAY_US),
    st.integers(-40 * MINUTE_US, 40 * MINUTE_US),
)
INSTANTS = st.one_of(
    OFFSETS_US.map(lambda offset: MIDNIGHT_US + offset),
    st.sampled_from([0, -1, -DAY_US, MIDNIGHT_US - 400 * DAY_US]),
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "whole": st.integers(-(2**47), 2**47) | st.integers(-3, 3),
    "wide": st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3),
    "money": st.integers(-(2**47), 2**47) | st.integers(-500, 500),
    "real": st.floats(-1e12, 1e12, allow_nan=False) | st.sampled_from([0.1, 0.2, 0.3, -0.0, 2.0**490, -(2.0**490)]),
    "flag": st.booleans(),
    "moment": st.integers(-(10**15), 2 * 10**15),
    "word": st.text("abé", max_size=4),
}
EVENTS = st.lists(
    st.builds(
        Event,
        entity=st.sampled_from(["ann", "bob", "eve"]),
        ts=INSTANTS,
        event_id=st.text("aZé0", min_size=1, max_size=3),
        values=st.fixed_dictionaries({name: st.none() | values for name, values in VALUES.items()}),
    ),
    max_size=25,
)


def as_events(events: list[Event]) -> Events:
    """The core's columns of events."""
    keys = sorted({event.entity for event in events})
    columns = {name: _column(SCHEMA[name], [event.values[name] for event in events]) for name in COLUMNS}
    return Events(
        pa.array(keys, pa.string()),
        np.array([keys.index(event.entity) for event in events], np.int64),
        np.array([event.ts for event in events], np.int64),
        np.array([event.event_id.encode() for event in events], f"S{events_source.event_id_bytes}"),
        np.arange(len(events), dtype=np.int64),
        columns,
    )


def _column(kind: AnyType, values: list[Any]) -> Column:
    stored = np.zeros(len(values), kind.storage)
    for i, value in enumerate(values):
        if value is not None:
            stored[i] = value.encode() if isinstance(value, str) else value
    return Column(stored, np.array([value is not None for value in values], np.bool_))


def check(columns: list[FeatureColumn], events: list[Event], rows: list[tuple[str, int]]) -> None:
    """Every value and status of rows (entity, instant) equals the oracle's."""
    check_all([columns], events, rows)


def check_all(answers: list[list[FeatureColumn]], events: list[Event], rows: list[tuple[str, int]]) -> None:
    """Of several answers for the same rows each equals the oracle's, which is what takes the time and is asked once."""
    named = [{column.feature.name: column for column in columns} for columns in answers]
    for feature in VIEW.features:
        triples = [(e.entity, e.ts, e.event_id, e.values[feature.of] if feature.of else None) for e in events]
        for text in feature.windows:
            columns = [columns[feature.feature_name(text)] for columns in named]
            for i, (entity, instant_us) in enumerate(rows):
                expected = asked(VIEW, feature, text, triples, entity, instant_us)
                values = [value for e, _, _, value in triples if e == entity and (value is not None or not feature.of)]
                for column in columns:
                    where = f"{column.feature.name} of {entity} at {instant_us}"
                    _check_one(feature, column, i, expected, values, where)


def _check_one(
    feature: Aggregation, column: FeatureColumn, i: int, answer: tuple[Any, str], values: list[Any], where: str
) -> None:
    """`values` are all that the entity has in the column."""
    expected, status = answer
    source = VIEW.column(feature.of)
    scale = source.scale if isinstance(source, DecimalType) else 0
    assert Status(int(column.status[i])).name == status, where
    got = column.values[i]
    got = got.item() if isinstance(got, np.generic) else got
    got = got.decode() if isinstance(got, bytes) else got
    if isinstance(feature, DecayedCount | DecayedSum) and status == "PRESENT":
        assert abs(got - expected) <= _decayed_tolerance(feature, values, 10**scale), where
    elif isinstance(expected, float) and feature.of == "real" and status == "PRESENT":
        assert abs(got - expected) <= _tolerance(type(feature).__name__, [*map(abs, values)]), where
    else:
        assert got == expected, f"{where}: {got!r} is not {expected!r}"


def _decayed_tolerance(feature: Aggregation, values: list[Any], unit: int) -> float:
    """1e-9 of what is added up, without the decay."""
    return 1e-9 * (len(values) if isinstance(feature, DecayedCount) else sum(map(abs, values)) / unit)


def _tolerance(kind: str, sizes: list[float]) -> float:
    """Float sums may differ by 1e-9·Σ|x|; second moments by the same of Σx², and their root accordingly."""
    if kind in ("Min", "Max", "First", "Last", "Quantile"):
        return 0.0
    if kind == "Variance":
        return 1e-9 * sum(x * x for x in sizes)
    return 1e-9 * sum(sizes) if kind != "StdDev" else (1e-9 * sum(x * x for x in sizes)) ** 0.5
