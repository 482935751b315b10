"""Partial aggregates: what a tile remembers of a column, as an algebra on arrays.

A partial has a zero (the identity of its merge), a `lift` (one event becomes a partial) and a `merge` (the partials of
a group become one). Merge is associative and commutative, so the order in which events arrive, batches are cut and
tiles are rolled up decides nothing. For floats the sum is so within rounding only; everything else is exact.

    partial   of a column of         fields                      merge
    present   any type               count                       +
    total     Int64, Decimal         INT128                      +
    total     Float64                float64                     +  (rounds)
    squares   Int64, Decimal         INT128                      +
    moments   Float64                mean, sum of squared        Chan, Golub, LeVeque 1979
                                     deviations (with present)
    lowest    ordered types          value                       min
    highest   ordered types          value                       max
    earliest  any bounded type       ts, id, value               smallest (ts, id, value)
    latest    any bounded type       ts, id, value               largest (ts, id, value)
    fading_…  numbers, events        sum of x·2^-((ts−t)/h),     + as of the later ts
                                     ts of the newest            (rounds)

What is of no fixed size is in `forebay.algebra.ragged`. A partial of no column is of the events themselves.

Fields are plain NumPy arrays of equal length in a dictionary; a group is a run of equal rows between `starts`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra import int128
from forebay.algebra.lifted import Lifted
from forebay.algebra.ragged import CELLS, Parameters, Ragged, merge_groups

Array = npt.NDArray[Any]
Fields = dict[str, Array]
Starts = npt.NDArray[np.intp]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
FLOAT_SUM_MAX = 2.0**990
"""A sum of 2^31 such floats stays below 2^1022; float64 ends at 2^1024."""
FLOAT_MOMENTS_MAX = 2.0**490
"""A squared deviation of such floats stays below 2^983, and 2^31 of them below 2^1015."""


@dataclass(frozen=True, order=True)
class Partial:
    """One kind of partial aggregate of one column, or of the events where `column` is empty.

    `parameters` are numbers that decide what is remembered; `label` tells partials of different ones apart.
    """

    kind: str
    column: str
    label: str = ""
    parameters: Parameters = ()

    @functools.cached_property
    def name(self) -> str:
        """The prefix of its fields."""
        return "_".join(part for part in (self.kind, self.label, self.column) if part)

    @functools.cached_property
    def present(self) -> str:
        """The field that says how many values are behind it."""
        return f"present_{self.column}" if self.column else "events"

    @property
    def is_ragged(self) -> bool:
        """Whether it has cells, and no fields."""
        return self.kind in CELLS

    @property
    def is_ordered(self) -> bool:
        """Whether the ids of events can decide what it holds."""
        return self.kind in ("earliest", "latest", "firsts", "lasts")

    def cell(self, storage: str, id_bytes: int) -> np.dtype[Any]:
        """The dtype of its cells."""
        return np.dtype(CELLS[self.kind].cell(storage, id_bytes))

    def lift_cells(self, column: Lifted) -> Ragged:
        """One cell for each event that has a value."""
        cell = self.cell(column.values.dtype.str, column.ids.dtype.itemsize)
        return Ragged(column.valid.astype(np.int64), CELLS[self.kind].lift(column, self.parameters, cell))

    def merge_cells(self, ragged: Ragged, starts: Starts) -> Ragged:
        """One row of cells for each group of rows."""
        return merge_groups(self.kind, ragged, starts, self.parameters)

    def fields(self, storage: str, id_bytes: int) -> dict[str, np.dtype[Any]]:
        """Names and dtypes of its fields for a column stored as `storage`."""
        if self.is_ragged:
            return {}
        return {
            self.name + suffix: np.dtype(dtype) for suffix, dtype in self._operations.fields(storage, id_bytes).items()
        }

    def zero(self, storage: str, id_bytes: int, count: int) -> Fields:
        """`count` identities of the merge."""
        if self.is_ragged:
            return {}
        kind = self._operations
        return {
            self.name + suffix: np.full(count, kind.zero(suffix, np.dtype(dtype)), np.dtype(dtype))
            for suffix, dtype in kind.fields(storage, id_bytes).items()
        }

    def lift(self, column: Lifted) -> Fields:
        """One partial for each event."""
        return {self.name + suffix: array for suffix, array in self._operations.lift(column).items()}

    def limit(self, storage: str) -> int | float | None:
        """The largest |value|, as stored, of which `int128.EVENTS_MAX` may be summed; `None` where any value may."""
        return _LIMITS.get((self.kind, np.dtype(storage).kind))

    def merge(self, fields: Mapping[str, Array], counts: Array, starts: Starts) -> Fields:
        """One partial for each group; `counts` are the present values behind each row."""
        kind = self._operations
        mine = {self._suffixes[name]: array for name, array in fields.items() if name in self._suffixes}
        return {self.name + suffix: array for suffix, array in kind.merge(mine, counts, starts).items()}

    @functools.cached_property
    def _suffixes(self) -> dict[str, str]:
        """The suffix of each field that may be its own; names of columns hold no double underscore."""
        return {self.name + suffix: suffix for suffix in ("", "__ts", "__id", "__m2")}

    @property
    def _operations(self) -> Kind:
        return FADING[self.kind](*self.parameters) if self.kind in FADING else KINDS[self.kind]


@dataclass(frozen=True)
class Kind:
    """The operations of one kind; fields are named by their suffix."""

    fields: Callable[[str, int], dict[str, Any]]
    zero: Callable[[str, np.dtype[Any]], Any]
    lift: Callable[[Lifted], Fields]
    merge: Callable[[Fields, Array, Starts], Fields]


def _limit(dtype: np.dtype[Any], *, largest: bool) -> Any:
    if dtype.kind == "f":
        return np.inf if largest else -np.inf
    if dtype.kind == "i":
        return INT64_MAX if largest else INT64_MIN
    return np.zeros((), dtype)[()]


def _zero(suffix: str, dtype: np.dtype[Any]) -> Any:
    return np.zeros((), dtype)[()]


def _lift_total(column: Lifted) -> Fields:
    values = np.where(column.valid, column.values, column.values.dtype.type(0))
    return {"": values if values.dtype.kind == "f" else int128.widen(values)}


def _merge_sum(fields: Fields, counts: Array, starts: Starts) -> Fields:
    values = fields[""]
    return {"": int128.sum_groups(values, starts) if values.dtype == int128.INT128 else np.add.reduceat(values, starts)}


def _lift_squares(column: Lifted) -> Fields:
    return {"": int128.squares(np.where(column.valid, column.values, 0))}


def _lift_moments(column: Lifted) -> Fields:
    return {"": np.where(column.valid, column.values, 0.0), "__m2": np.zeros(len(column.values))}


def _merge_moments(fields: Fields, counts: Array, starts: Starts) -> Fields:
    """Mean and squared deviations of unions of samples, two-pass within a group.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979),
    eq. 2.1.
    """
    total = np.maximum(np.add.reduceat(counts, starts), 1)
    mean = np.add.reduceat(fields[""] * counts, starts) / total
    sizes = np.diff(np.append(starts, len(counts)))
    deviation = fields[""] - np.repeat(mean, sizes)
    return {"": mean, "__m2": np.add.reduceat(fields["__m2"] + counts * deviation * deviation, starts)}


def _lift_extreme(column: Lifted, *, largest: bool) -> Fields:
    return {"": np.where(column.valid, column.values, _limit(column.values.dtype, largest=not largest))}


def _lift_event(column: Lifted, *, newest: bool) -> Fields:
    nothing = INT64_MIN if newest else INT64_MAX
    blank = np.zeros((), column.values.dtype)[()]
    return {
        "": np.where(column.valid, column.values, blank),
        "__ts": np.where(column.valid, column.ts, nothing),
        "__id": np.where(column.valid, column.ids, np.zeros((), column.ids.dtype)[()]),
    }


def _merge_event(fields: Fields, starts: Starts, *, newest: bool) -> Fields:
    """The row with the extreme (ts, id, value) of each group: of two events with one identity the value decides."""
    ts, ids = fields["__ts"], fields["__id"]
    sizes = np.diff(np.append(starts, len(ts)))
    best = (np.maximum if newest else np.minimum).reduceat(ts, starts)
    tied = ts == np.repeat(best, sizes)
    rows = np.flatnonzero(tied)
    groups = np.repeat(np.arange(len(starts)), sizes)[rows]
    if len(rows) > len(starts):
        order = np.lexsort((fields[""][rows], ids[rows], groups))
        rows, groups = rows[order], groups[order]
    edge = np.flatnonzero(
        np.append(groups[1:] != groups[:-1], True) if newest else np.append(True, groups[1:] != groups[:-1])
    )
    chosen = rows[edge]
    return {suffix: fields[suffix][chosen] for suffix in ("", "__ts", "__id")}


def _event_fields(storage: str, id_bytes: int) -> dict[str, Any]:
    return {"": storage, "__ts": "<i8", "__id": f"S{id_bytes}"}


def _event_kind(*, newest: bool) -> Kind:
    def zero(suffix: str, dtype: np.dtype[Any]) -> Any:
        return (INT64_MIN if newest else INT64_MAX) if suffix == "__ts" else _zero(suffix, dtype)

    return Kind(
        _event_fields,
        zero,
        lambda column: _lift_event(column, newest=newest),
        lambda fields, counts, starts: _merge_event(fields, starts, newest=newest),
    )


def _extreme_kind(*, largest: bool) -> Kind:
    reduce = np.maximum if largest else np.minimum
    return Kind(
        lambda storage, id_bytes: {"": storage},
        lambda suffix, dtype: _limit(dtype, largest=not largest),
        lambda column: _lift_extreme(column, largest=largest),
        lambda fields, counts, starts: {"": reduce.reduceat(fields[""], starts)},
    )


def _fading_kind(half_life_us: int, *, counts_only: bool) -> Kind:
    """Sums (or counts) that halve every `half_life_us`, as of the newest of their events."""

    def lift(column: Lifted) -> Fields:
        values = column.valid if counts_only else np.where(column.valid, column.values, 0)
        values = values.astype(np.float64)
        return {"": values, "__ts": np.where(column.valid, column.ts, INT64_MIN)}

    def merge(fields: Fields, counts: Array, starts: Starts) -> Fields:
        newest = np.maximum.reduceat(fields["__ts"], starts)
        sizes = np.diff(np.append(starts, len(fields["__ts"])))
        return {"": np.add.reduceat(faded(fields, np.repeat(newest, sizes), half_life_us), starts), "__ts": newest}

    return Kind(
        lambda storage, id_bytes: {"": "<f8", "__ts": "<i8"},
        lambda suffix, dtype: INT64_MIN if suffix == "__ts" else 0.0,
        lift,
        merge,
    )


def faded(fields: Mapping[str, Array], at_us: Array, half_life_us: int) -> npt.NDArray[np.float64]:
    """The sums of a `fading` partial as they are at later instants."""
    ages = np.where(fields["__ts"] == INT64_MIN, 0, at_us - fields["__ts"])
    return fields[""] * np.exp2(-ages / half_life_us)


KINDS: dict[str, Kind] = {
    "present": Kind(
        lambda storage, id_bytes: {"": "<i8"},
        _zero,
        lambda column: {"": column.valid.astype(np.int64)},
        lambda fields, counts, starts: {"": np.add.reduceat(fields[""], starts)},
    ),
    "total": Kind(
        lambda storage, id_bytes: {"": "<f8" if np.dtype(storage).kind == "f" else int128.INT128},
        _zero,
        _lift_total,
        _merge_sum,
    ),
    "squares": Kind(lambda storage, id_bytes: {"": int128.INT128}, _zero, _lift_squares, _merge_sum),
    "moments": Kind(lambda storage, id_bytes: {"": "<f8", "__m2": "<f8"}, _zero, _lift_moments, _merge_moments),
    "lowest": _extreme_kind(largest=False),
    "highest": _extreme_kind(largest=True),
    "earliest": _event_kind(newest=False),
    "latest": _event_kind(newest=True),
}

_LIMITS: dict[tuple[str, str], int | float] = {
    ("total", "f"): FLOAT_SUM_MAX,
    ("fading_total", "f"): FLOAT_SUM_MAX,
    ("moments", "f"): FLOAT_MOMENTS_MAX,
    ("squares", "i"): int128.VARIANCE_UNITS_MAX,
}
"""By kind, and the kind of the dtype of its column."""

FADING: dict[str, Callable[[int], Kind]] = {
    "fading_count": lambda half_life_us: _fading_kind(half_life_us, counts_only=True),
    "fading_total": lambda half_life_us: _fading_kind(half_life_us, counts_only=False),
}
"""Kinds that have a half-life."""
