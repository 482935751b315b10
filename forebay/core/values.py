"""Answers: the values of one feature for many rows, with a status and an event timestamp each."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core import lists
from forebay.core.events import always, is_unused, taken, unused
from forebay.language.feature import Feature
from forebay.language.types import (
    BoolType,
    DecimalType,
    FeatureType,
    Float64Type,
    Int64Type,
    ListType,
    TimestampType,
    VectorType,
)

NO_INSTANT = -(2**63)
"""The event timestamp of a value that no event stands behind."""


class Status(enum.IntEnum):
    """What a value is."""

    PRESENT = 0
    STALE = 1
    DEFAULT_MISSING = 2
    DEFAULT_EXPIRED = 3
    DEFAULT_ERROR = 4
    UNAVAILABLE = 5


@dataclass(frozen=True, eq=False)
class FeatureColumn:
    """Values of one feature in stored form, null where not `valid`, with statuses and event timestamps.

    A bare column may have its values as an Arrow `array` of the feature's type; all else is unused then.
    """

    feature: Feature
    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]
    status: npt.NDArray[np.uint8]
    event_us: npt.NDArray[np.int64]
    array: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of_arrow(cls, feature: Feature, array: pa.Array) -> FeatureColumn:
        """A bare column of Arrow values."""
        count = len(array)
        nothing = unused(feature.type.storage, count), unused("?", count)
        return cls(feature, *nothing, unused("<u1", count), unused("<i8", count), array)

    @classmethod
    def of_defaults(
        cls, feature: Feature, count: int, status: Status = Status.DEFAULT_MISSING, *, bare: bool = False
    ) -> FeatureColumn:
        """`count` times the default; a `bare` column has no statuses and instants, and no mask but where it needs one.

        What it has none of is `unused`: nothing is stored, and `put` leaves it alone. Its decimals lie where Arrow has
        them, so that an array is made of them without fresh memory.
        """
        units = feature.type.units(feature.default)
        blank = np.zeros((), feature.type.storage)  # a list is one value: it is not spread over the rows
        if units is not None:
            blank[()] = _stored(units, blank.dtype)
        wide = bare and isinstance(feature.type, DecimalType)
        values = np.zeros((count, 2), blank.dtype)[:, 0] if wide else np.zeros(count, blank.dtype)
        if blank.dtype.hasobject or any(blank.tobytes()):  # else nobody touches them before they are written
            values[:] = blank
        if bare:
            there = np.zeros(count, np.bool_) if units is None else always(count)
            return cls(feature, values, there, unused("<u1", count), unused("<i8", count))
        valid = np.full(count, units is not None)
        return cls(feature, values, valid, np.full(count, status, np.uint8), np.full(count, NO_INSTANT, np.int64))

    def take(self, rows: npt.NDArray[np.intp]) -> FeatureColumn:
        """Some rows, in the order given; a row may be taken many times."""
        if self.array is not None:
            return FeatureColumn.of_arrow(self.feature, self.array.take(pa.array(rows)))
        status, event_us = taken(self.status, rows), taken(self.event_us, rows)
        return FeatureColumn(self.feature, self.values[rows], taken(self.valid, rows), status, event_us)

    def put(self, rows: npt.NDArray[np.signedinteger[Any]], column: FeatureColumn) -> None:
        """Overwrite some rows, each with the row of the same place in another column of this feature."""
        self.values[rows] = column.values
        for mine, theirs in (
            (self.valid, column.valid),
            (self.status, column.status),
            (self.event_us, column.event_us),
        ):
            if not is_unused(mine):
                mine[rows] = theirs

    def to_arrow(self) -> pa.Array:
        """An Arrow array of the feature's type (Decimal as decimal128(38, scale), Timestamp as UTC microseconds)."""
        return arrow_array(self.feature.type, self.values, self.valid) if self.array is None else self.array

    def to_python(self) -> list[Any]:
        """Python values; `None` where null."""
        python = self.feature.type.python
        pairs = zip(self.values.tolist(), self.valid.tolist(), strict=True)
        return [python(value) if valid else None for value, valid in pairs]

    def to_numpy(self) -> npt.NDArray[Any]:
        """A NumPy array: Decimal as float64, Timestamp as datetime64[us], text as objects; null is NaN, NaT or None.

        A Vector without nulls has a row each of a two-dimensional array of float64; other lists are objects.
        """
        kind = self.feature.type
        if isinstance(kind, VectorType) and self.valid.all():
            return np.array(self.values.tolist(), np.float64).reshape(len(self), kind.length)
        if isinstance(kind, TimestampType):
            return np.where(self.valid, self.values, NO_INSTANT).astype("datetime64[us]")
        if isinstance(kind, DecimalType):
            scaled = self.values / 10.0**kind.scale
            return scaled if self.valid.all() else np.where(self.valid, scaled, np.nan)
        if self.values.dtype.kind in "OS":
            return lists.objects(self.to_python())
        if self.valid.all():
            return self.values
        return np.where(self.valid, self.values.astype(np.float64), np.nan)

    def event_timestamps(self) -> pa.Array:
        """The instants of the newest events behind the values; null where there is none."""
        return pa.array(self.event_us, pa.timestamp("us", "UTC"), mask=self.event_us == NO_INSTANT)


def arrow_type(kind: FeatureType) -> pa.DataType:
    """The Arrow type of a feature."""
    if isinstance(kind, ListType):
        return pa.list_(arrow_type(kind.of))
    if isinstance(kind, VectorType):
        return pa.list_(pa.float64(), kind.length)
    if isinstance(kind, DecimalType):
        return pa.decimal128(38, kind.scale)
    if isinstance(kind, TimestampType):
        return pa.timestamp("us", "UTC")
    if isinstance(kind, BoolType):
        return pa.bool_()
    if isinstance(kind, Int64Type):
        return pa.int64()
    return pa.float64() if isinstance(kind, Float64Type) else pa.string()


def arrow_array(kind: FeatureType, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> pa.Array:
    """An Arrow array of stored values."""
    if isinstance(kind, ListType | VectorType):
        return lists.to_arrow(kind, values, valid, lambda of, held: arrow_array(of, held, np.ones(len(held), np.bool_)))
    if isinstance(kind, DecimalType):
        words = _words(values)
        np.right_shift(words[:, 0], 63, out=words[:, 1])
        mask = None if valid.all() else pa.array(valid).buffers()[1]
        return pa.Array.from_buffers(arrow_type(kind), len(values), [mask, pa.py_buffer(words)])
    if values.dtype.kind == "S":
        return pa.array(values.astype(object), pa.binary(), mask=~valid).cast(pa.string())
    return pa.array(values, arrow_type(kind), mask=None if valid.all() else ~valid)


def _words(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Pairs of words, of which the first are these: the pairs that they lie in, if they lie so."""
    pairs = values.base
    if isinstance(pairs, np.ndarray) and pairs.shape == (len(values), 2) and _is_same(pairs[:, 0], values):
        return pairs
    words = np.empty((len(values), 2), np.int64)
    words[:, 0] = values
    return words


def _is_same(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether they are one piece of memory."""
    return bool(one.__array_interface__ == other.__array_interface__)


def _stored(units: Any, dtype: np.dtype[Any]) -> Any:
    return units.encode() if dtype.kind == "S" else units
