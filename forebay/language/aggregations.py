"""The aggregations that a windowed view can declare.

Each class is a declaration and the last step of an algebra: it says which partials of a column a tile must remember
(`partials`) and how the merged partials of a window become a value (`finish`). Fold, merge and roll-up are the
partials' own (`forebay.algebra.partials`), the same for every path. A class that is exported in `AGGREGATIONS` is
enrolled in every law by that.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from forebay.algebra import int128
from forebay.algebra.partials import Partial
from forebay.errors import DefinitionError
from forebay.language.arguments import check_labels, checked_list
from forebay.language.names import check_name
from forebay.language.types import AnyType, BoolType, DecimalType, Float64, Float64Type, Int64, StringType
from forebay.language.windows import Window

Array = npt.NDArray[Any]
WINDOWS_MAX = 16
"""Windows of one aggregation."""


@dataclass(frozen=True)
class Merged:
    """The merged partials of some windows: one row per window.

    `events` counts them, `newest` is the ts of the newest, `instant` the instant of the answer; rows without a present
    value are never looked at.
    """

    fields: Mapping[str, Array]
    events: npt.NDArray[np.int64]
    newest: npt.NDArray[np.int64]
    instant: npt.NDArray[np.int64]

    def present(self, column: str | None) -> npt.NDArray[np.int64]:
        """How many values of a column there are; of no column: how many events."""
        return self.events if column is None else self.fields[f"present_{column}"]


@dataclass(frozen=True)
class Finished:
    """Values of one feature, the rows that have one, and the rows whose value does not fit its type."""

    values: Array
    present: npt.NDArray[np.bool_]
    failed: npt.NDArray[np.bool_]


class Aggregation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="aggregation"):
    """One aggregate over one or more windows, yielding one feature per window: `<name>_<window>`.

    `of` is a column of the source or a derived one; `windows` are durations, `None` for the lifetime; `default` is the
    value where nothing is in the window (`None` says null on purpose); `hop` overrides the grain of the windows' old
    edge.
    """

    name: str
    of: str | None = None
    windows: Sequence[str | None] = ()
    default: int | float | bool | str | decimal.Decimal | msgspec.UnsetType | None = msgspec.UNSET
    hop: str | None = None
    description: str = ""

    needs: ClassVar[tuple[str, ...]] = ("present",)
    of_required: ClassVar[bool] = True

    def __post_init__(self) -> None:
        where = f"{type(self).__name__} {self.name!r}"
        check_name(type(self).__name__, self.name)
        check_labels(where, self)
        windows = checked_list(where, "windows", self.windows, "['1h', '7d']")
        msgspec.structs.force_setattr(self, "windows", windows)
        if not 1 <= len(self.windows) <= WINDOWS_MAX:
            raise DefinitionError(
                f"{where} has {len(self.windows)} windows; expected 1 to {WINDOWS_MAX}, "
                "e.g. windows=['1h', '7d'], or windows=[None] for the lifetime"
            )
        if len(set(self.windows)) != len(self.windows):
            raise DefinitionError(f"{where} names a window twice; each yields one feature")
        for window in self.windows:
            self.window(window)
        if self.default is msgspec.UNSET:
            raise DefinitionError(
                f"{where} names no default; say what an entity without events gets, e.g. default=0 (or None for null)"
            )
        if self.of is None and self.of_required:
            raise DefinitionError(f"{where} does not say of what; write of='<column>'")

    def feature_name(self, window: str | None) -> str:
        """The name of the feature over one window."""
        return f"{self.name}_{window or 'lifetime'}"

    def window(self, window: str | None) -> Window:
        """One of its windows, with its hop."""
        return Window.of(f"{type(self).__name__} {self.name!r}", window, self.hop)

    def accepts(self, column: AnyType) -> bool:
        """Whether it can be taken of a column of this type."""
        return True

    def output(self, column: AnyType | None) -> AnyType:
        """The type of its features."""
        raise NotImplementedError

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """The kinds of partials that it needs of its column."""
        return self.needs

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """The partials that a tile must remember for it."""
        return () if self.of is None else tuple(Partial(kind, self.of) for kind in self.kinds(column))

    def finish(self, merged: Merged, column: AnyType | None) -> Finished:
        """The values of merged windows."""
        present = merged.present(self.of) > 0
        output = self.output(column)
        values = np.zeros(len(present), output.storage)
        failed = np.zeros(len(present), np.bool_)
        rows = np.flatnonzero(present)
        if len(rows):
            values[rows], failed[rows] = self.compute(merged, rows, column)
        return Finished(values, present, failed)

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """Values of the rows that have one, and which of them do not fit."""
        raise NotImplementedError


class _Numeric(Aggregation, frozen=True):
    def accepts(self, column: AnyType) -> bool:
        """Numbers only."""
        return column.summable


class _Selecting(Aggregation, frozen=True):
    """One of the values themselves."""

    kind: ClassVar[str] = ""

    def output(self, column: AnyType | None) -> AnyType:
        """The type of the column."""
        assert column is not None
        return column

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present, and the value that is chosen."""
        return ("present", self.kind)

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """The value that was chosen."""
        return merged.fields[f"{self.kind}_{self.of}"][rows], False


class Count(Aggregation, frozen=True, tag="Count"):
    """How many events, or with `of` how many values that are not null. Int64."""

    of_required: ClassVar[bool] = False

    def output(self, column: AnyType | None) -> AnyType:
        """Int64."""
        return Int64

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """The count."""
        return merged.present(self.of)[rows], False


class Sum(_Numeric, frozen=True, tag="Sum"):
    """The sum, exact for Int64 and Decimal: beyond int64 it is an error, never a wrong value. Type of the column."""

    def output(self, column: AnyType | None) -> AnyType:
        """The type of the column."""
        assert column is not None
        return column

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present and total."""
        return ("present", "total")

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """The total, where it fits 64 bits."""
        total = merged.fields[f"total_{self.of}"][rows]
        if isinstance(column, Float64Type):
            return total, ~np.isfinite(total)
        values, fits = int128.narrow(total)
        return values, ~fits


class Mean(_Numeric, frozen=True, tag="Mean"):
    """The mean, from exact integers rounded once for Int64 and Decimal. Float64."""

    def output(self, column: AnyType | None) -> AnyType:
        """Float64."""
        return Float64

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Present and total."""
        return ("present", "total")

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """Total over count."""
        total, count = merged.fields[f"total_{self.of}"][rows], merged.present(self.of)[rows]
        if isinstance(column, Float64Type):
            mean = total / count
            return mean, ~np.isfinite(mean)
        return int128.quotients(total, count, _scale(column)), False


class Variance(_Numeric, frozen=True, tag="Variance"):
    """The population variance, from exact integers rounded once for Int64 and Decimal. Float64."""

    def output(self, column: AnyType | None) -> AnyType:
        """Float64."""
        return Float64

    def kinds(self, column: AnyType | None) -> tuple[str, ...]:
        """Sums for exact columns, moments for floats."""
        return ("present", "moments") if isinstance(column, Float64Type) else ("present", "total", "squares")

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """Mean of the squared deviations from the mean."""
        count = merged.present(self.of)[rows]
        if isinstance(column, Float64Type):
            variance = merged.fields[f"moments_{self.of}__m2"][rows] / count
            return variance, ~np.isfinite(variance)
        total, square = merged.fields[f"total_{self.of}"][rows], merged.fields[f"squares_{self.of}"][rows]
        return int128.variances(count, total, square, _scale(column)), False


class StdDev(Variance, frozen=True, tag="StdDev"):
    """The population standard deviation: the square root of `Variance`. Float64."""

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
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

    def accepts(self, column: AnyType) -> bool:
        """Every type; strings must be bounded."""
        return not isinstance(column, StringType) or column.max_bytes is not None


class Last(_Selecting, frozen=True, tag="Last"):
    """The value of the latest event that has one; ties by event_id. Type of the column."""

    kind: ClassVar[str] = "latest"

    def accepts(self, column: AnyType) -> bool:
        """Every type; strings must be bounded."""
        return not isinstance(column, StringType) or column.max_bytes is not None


class SecondsSince(Aggregation, frozen=True, tag="SecondsSince"):
    """Seconds from the newest event to the instant of the answer. Float64, in seconds."""

    of_required: ClassVar[bool] = False

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        if self.of is not None:
            raise DefinitionError(
                f"SecondsSince {self.name!r} looks at events, not at a column; leave out of={self.of!r}"
            )

    def output(self, column: AnyType | None) -> AnyType:
        """Float64."""
        return Float64

    def compute(self, merged: Merged, rows: npt.NDArray[np.intp], column: AnyType | None) -> tuple[Array, Any]:
        """Whole microseconds over a million: one rounding."""
        return (merged.instant[rows] - merged.newest[rows]) / 1e6, False


AGGREGATIONS: tuple[type[Aggregation], ...] = (Count, Sum, Mean, Min, Max, Variance, StdDev, First, Last, SecondsSince)
AnyAggregation = Count | Sum | Mean | Min | Max | Variance | StdDev | First | Last | SecondsSince


def _scale(column: AnyType | None) -> int:
    return column.scale if isinstance(column, DecimalType) else 0


def explain_refusal(aggregation: Aggregation, column: AnyType) -> str:
    """Why an aggregation cannot be taken of a column of a type, and what to do."""
    what = type(aggregation).__name__
    if isinstance(column, StringType) and isinstance(aggregation, First | Last):
        return f"{what} keeps the text in every tile, so it must be bounded: declare the column as String(max_bytes=32)"
    if isinstance(column, BoolType) and isinstance(aggregation, _Numeric):
        return f'{what} needs numbers: derive one, e.g. Derived("CASE WHEN {aggregation.of} THEN 1 ELSE 0 END", Int64)'
    needed = "numbers" if isinstance(aggregation, _Numeric) else "numbers or instants"
    return f"{what} cannot be taken of {column}; it needs {needed}"
