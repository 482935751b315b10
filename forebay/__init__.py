"""Forebay: a real-time feature store in which four ways to a feature's value are one function.

Everything that a declaration or an inference service needs is importable from here; `FeatureStore` is loaded on first
use, so that `import forebay` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from forebay.errors import ForebayError
from forebay.language.aggregations import (
    Count,
    CountDistinct,
    DecayedCount,
    DecayedSum,
    First,
    FirstK,
    Histogram,
    Last,
    LastK,
    Max,
    Mean,
    Min,
    Quantile,
    SecondsSince,
    StdDev,
    Sum,
    TopK,
    Variance,
)
from forebay.language.batch_view import batch_view
from forebay.language.derived import Derived
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.on_demand import OnDemandView, on_demand
from forebay.language.service import FeatureService
from forebay.language.sessions import Sessionize
from forebay.language.source import EventSource, FileStream, KafkaTopic, RedisStream, TableSource, content_hash
from forebay.language.statistics import Average, Median, MostCommon, Percentile
from forebay.language.types import Bool, Decimal, Float64, Int64, List, String, Timestamp, Vector
from forebay.language.view import BatchView, WindowedView

if TYPE_CHECKING:
    from forebay.client.feature_store import FeatureStore

__version__ = "0.1.0"

__all__ = [
    "Average",
    "BatchView",
    "Bool",
    "Count",
    "CountDistinct",
    "DecayedCount",
    "DecayedSum",
    "Decimal",
    "Derived",
    "Entity",
    "EventSource",
    "Feature",
    "FeatureService",
    "FeatureStore",
    "FileStream",
    "First",
    "FirstK",
    "Float64",
    "ForebayError",
    "Histogram",
    "Int64",
    "KafkaTopic",
    "Last",
    "LastK",
    "List",
    "Max",
    "Mean",
    "Median",
    "Min",
    "MostCommon",
    "OnDemandView",
    "Percentile",
    "Quantile",
    "RedisStream",
    "SecondsSince",
    "Sessionize",
    "StdDev",
    "String",
    "Sum",
    "TableSource",
    "Timestamp",
    "TopK",
    "Variance",
    "Vector",
    "WindowedView",
    "batch_view",
    "content_hash",
    "on_demand",
]


def __getattr__(name: str) -> Any:
    if name == "FeatureStore":
        from forebay.client.feature_store import FeatureStore

        return FeatureStore
    raise AttributeError(f"module 'forebay' has no attribute {name!r}")
