"""The aggregations that a windowed view can declare.

What an aggregation is, `forebay.language.aggregation` says. A class that is exported in `AGGREGATIONS` is enrolled in
every law by that.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from forebay.algebra import int128
from forebay.errors import DefinitionError
from forebay.language.aggregation import Aggregation, Array, Finished, Merged, Numeric, Rows, scale_of
from forebay.language.decays import DecayedCount, DecayedSum
from forebay.language.estimates import CountDistinct, Quantile
from forebay.language.listings import FirstK, Histogram, LastK, TopK
from forebay.language.types import AnyType, BoolType, FeatureType, Float64, Float64Type, Int64, StringType

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "Count",
    "CountDistinct",
    "DecayedCount",
    "DecayedSum",
    "Finished",
    "First",
    "FirstK",
    "Histogram",
    "Last",
    "LastK",
    "Max",
    "Mean",
    "Merged",
    "Min",
    "Quantile",
    "SecondsSince",
    "StdDev",
    "Sum",
    "TopK",
    "Variance",
    "explain_refusal",
]


class _Selecting(Aggregation, frozen=True):
    """One of the values themselves."""

    kind: ClassVar[str] = ""

    def output(self, column: AnyType | None) -> FeatureType:
        """The type of the column."""
        assert column is not None
        return column

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present, and the value that is chosen."""
        return ("present", self.kind)

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The value that was chosen."""
        return merged.fields[f"{self.kind}_{self.of}"][rows], False


class Count(Aggregation, frozen=True, tag="Count"):
    """How many events, or with `of` how many values that are not null. Int64."""

    of_required: ClassVar[bool] = False

    def output(self, column: AnyType | None) -> FeatureType:
        """Int64."""
        return Int64

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The count."""
        return merged.present(self.of)[rows], False


class Sum(Numeric, frozen=True, tag="Sum"):
    """The sum, exact for Int64 and Decimal: beyond int64 it is an error, never a wrong value. Type of the column."""

    def output(self, column: AnyType | None) -> FeatureType:
        """The type of the column."""
        assert column is not None
        return column

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present and total."""
        return ("present", "total")

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The total, where it fits 64 bits."""
        total = merged.fields[f"total_{self.of}"][rows]
        if isinstance(column, Float64Type):
            return total, ~np.isfinite(total)
        values, fits = int128.narrow(total)
        return values, ~fits


class Mean(Numeric, frozen=True, tag="Mean"):
    """The mean, from exact integers rounded once for Int64 and Decimal. Float64."""

    def output(self, column: AnyType | None) -> FeatureType:
        """Float64."""
        return Float64

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present and total."""
        return ("present", "total")

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """Total over count."""
        total, count = merged.fields[f"total_{self.of}"][rows], merged.present(self.of)[rows]
        if isinstance(column, Float64Type):
            mean = total / count
            return mean, ~np.isfinite(mean)
        return int128.quotients(total, count, scale_of(column)), False


class Variance(Numeric, frozen=True, tag="Variance"):
    """The population variance, from exact integers rounded once for Int64 and Decimal. Float64."""

    def output(self, column: AnyType | None) -> FeatureType:
        """Float64."""
        return Float64

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Sums for exact columns, moments for floats."""
        return ("present", "moments") if isinstance(column, Float64Type) else ("present", "total", "squares")

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """Mean of the squared deviations from the mean."""
        count = merged.present(self.of)[rows]
        if isinstance(column, Float64Type):
            variance = merged.fields[f"moments_{self.of}__m2"][rows] / count
            return variance, ~np.isfinite(variance)
        total, square = merged.fields[f"total_{self.of}"][rows], merged.fields[f"squares_{self.of}"][rows]
        return int128.variances(count, total, square, scale_of(column)), False


class StdDev(Variance, frozen=True, tag="StdDev"):
    """The population standard deviation: the square root of `Variance`. Float64."""

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """Square root of the variance."""
        variance, failed = Variance.compute(self, merged, rows, column)
        return np.sqrt(variance), failed


class Min(_Selecting, frozen=True, tag="Min"):
    """The smallest value. Type of the column."""

    kind: ClassVar[str] = "lowest"

    def accepts(self, column: AnyType) -> bool:
        """Numbers and instants."""
        return column.ordered


class Max(_Selecting, frozen=True, tag="Max"):
    """The largest value. Type of the column."""

    kind: ClassVar[str] = "highest"

    def accepts(self, column: AnyType) -> bool:
        """Numbers and instants."""
        return column.ordered


class First(_Selecting, frozen=True, tag="First"):
    """The value of the earliest event that has one; ties by event_id. Type of the column."""

    kind: ClassVar[str] = "earliest"
    keeps_text: ClassVar[bool] = True


class Last(_Selecting, frozen=True, tag="Last"):
    """The value of the latest event that has one; ties by event_id. Type of the column."""

    kind: ClassVar[str] = "latest"
    keeps_text: ClassVar[bool] = True


class SecondsSince(Aggregation, frozen=True, tag="SecondsSince"):
    """Seconds from the newest event to the instant of the answer. Float64, in seconds."""

    of_required: ClassVar[bool] = False

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        if self.of is not None:
            raise DefinitionError(
                f"SecondsSince {self.name!r} looks at events, not at a column; leave out of={self.of!r}"
            )

    def output(self, column: AnyType | None) -> FeatureType:
        """Float64."""
        return Float64

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """Whole microseconds over a million: one rounding."""
        return (merged.instant[rows] - merged.newest[rows]) / 1e6, False


AGGREGATIONS: tuple[type[Aggregation], ...] = (
    Count,
    Sum,
    Mean,
    Min,
    Max,
    Variance,
    StdDev,
    First,
    Last,
    FirstK,
    LastK,
    CountDistinct,
    Quantile,
    TopK,
    Histogram,
    SecondsSince,
    DecayedCount,
    DecayedSum,
)


def explain_refusal(aggregation: Aggregation, column: AnyType) -> str:
    """Why an aggregation cannot be taken of a column of a type, and what to do."""
    what = type(aggregation).__name__
    if isinstance(column, StringType) and aggregation.keeps_text:
        return f"{what} keeps the text in every tile, so it must be bounded: declare the column as String(max_bytes=32)"
    if isinstance(column, BoolType) and isinstance(aggregation, Numeric | DecayedSum):
        return f'{what} needs numbers: derive one, e.g. Derived("CASE WHEN {aggregation.of} THEN 1 ELSE 0 END", Int64)'
    needed = "numbers" if isinstance(aggregation, Numeric | DecayedSum) else "numbers or instants"
    return f"{what} cannot be taken of {column}; it needs {needed}"
