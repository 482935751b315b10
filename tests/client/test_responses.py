"""The shapes of an answer: the same values in Python, pandas, Arrow and NumPy."""

from __future__ import annotations

import decimal
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forebay import Bool, Decimal, Feature, Float64, Int64, String, Timestamp
from forebay.calls.responses import OnlineResponse, TrainingSet
from forebay.core.values import NO_INSTANT, FeatureColumn, Status

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
NOON_US = 1_370_088_000_000_000


def column(name: str, kind: Any, values: list[Any]) -> FeatureColumn:
    """A column whose second row is null."""
    valid = np.array([value is not None for value in values])
    stored = np.zeros(len(values), kind.storage)
    stored[valid] = [kind.units(value) for value in values if value is not None]
    status = np.where(valid, Status.PRESENT, Status.DEFAULT_MISSING).astype(np.uint8)
    event_us = np.where(valid, NOON_US - 1_500_000, NO_INSTANT)
    return FeatureColumn(Feature(name, kind, default=None), stored, valid, status, event_us)


@pytest.fixture
def response() -> OnlineResponse:
    """Two rows of each type of feature."""
    columns = [
        column("legs", Int64, [3, None]),
        column("delay", Float64, [1.5, None]),
        column("spend", Decimal(2), ["12.30", None]),
        column("late", Bool, [True, None]),
        column("carrier", String, ["UA", None]),
        column("seen", Timestamp, [NOON, None]),
        column("whole", Int64, [3, 4]),
    ]
    features = {c.feature.name: c for c in columns}
    return OnlineResponse({"flight": [7, None]}, {"flight": Int64}, features, NOON_US, {})


def test_python_values_keep_their_types(response: OnlineResponse) -> None:
    values = response.to_dict()
    assert list(values) == ["flight", "legs", "delay", "spend", "late", "carrier", "seen", "whole"]
    assert values["flight"] == [7, None]
    assert values["spend"] == [decimal.Decimal("12.30"), None]
    assert str(values["spend"][0]) == "12.30"
    assert values["seen"] == [NOON, None]
    assert values["late"] == [True, None]
    assert type(values["legs"][0]) is int


def test_arrow_types_are_exact(response: OnlineResponse) -> None:
    table = response.to_arrow()
    assert table.to_pydict() == response.to_dict()
    assert table.schema.types == [
        pa.int64(),
        pa.int64(),
        pa.float64(),
        pa.decimal128(38, 2),
        pa.bool_(),
        pa.string(),
        pa.timestamp("us", "UTC"),
        pa.int64(),
    ]


def test_a_frame_keeps_whole_numbers_whole(response: OnlineResponse) -> None:
    frame = response.to_df()
    kinds = {name: str(kind) for name, kind in frame.dtypes.items()}
    assert kinds["legs"] == "Int64"
    assert kinds["whole"] == "int64"
    assert kinds["late"] == "boolean"
    assert kinds["seen"] == "datetime64[us, UTC]"
    assert frame["spend"][0] == decimal.Decimal("12.30")
    assert frame["legs"][1] is pd.NA
    assert frame["flight"].tolist() == [7, pd.NA]


def test_numpy_is_what_models_read(response: OnlineResponse) -> None:
    arrays = response.to_numpy()
    assert arrays["spend"].dtype == np.float64
    assert arrays["spend"][0] == 12.3
    assert np.isnan(arrays["legs"][1])
    assert arrays["whole"].dtype == np.int64
    assert arrays["flight"].tolist() == [7, None]
    assert np.column_stack([arrays["whole"], arrays["delay"]]).shape == (2, 2)


def test_statuses_event_timestamps_and_ages_have_the_shape_of_the_values(response: OnlineResponse) -> None:
    assert response.statuses.keys() == response.event_timestamps.keys() == response.to_dict().keys()
    assert response.statuses["legs"] == ["PRESENT", "DEFAULT_MISSING"]
    assert response.event_timestamps["legs"] == [datetime(2013, 6, 1, 11, 59, 58, 500_000, tzinfo=UTC), None]
    assert response.ages["legs"] == [1.5, None]
    assert response.statuses["flight"] == ["PRESENT", "PRESENT"]
    assert response.event_timestamps["flight"] == [None, None]
    assert response.instant == response.metadata["instant"] == NOON
    assert len(response) == 2


def test_a_training_set_keeps_categories_and_whole_numbers() -> None:
    table = pa.table(
        {"k": pa.array(["a", "b"]).dictionary_encode(), "n": pa.array([1, None]), "u": pa.array([1, None], pa.uint8())}
    )
    frame = TrainingSet(table, ()).to_df()
    assert [str(kind) for kind in frame.dtypes] == ["category", "Int64", "UInt8"]
    assert len(TrainingSet(table, ())) == 2
