"""On-demand features computed: the same for an online read, and for the rows of a training set.

    stored features ─┐
    request columns ─┼→  rows that lack none of them  →  the view's function, many rows at once  →  its features
    instants        ─┘                        all other rows  →  the defaults

May live here: what a function is given, and the check that a row's value depends on that row alone; what its result
becomes is `returned`. No rows are read here. Invariants: a row's value and status are those that the row would get by
itself; types of the arrays that a function gets never depend on their values, so no row decides how another is
computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.calls.asked import Asked
from forebay.calls.returned import Wrong, columns_of, joined, nothing
from forebay.core import lists
from forebay.core.events import Column
from forebay.core.rows import stored
from forebay.core.values import NO_INSTANT, FeatureColumn, Status
from forebay.errors import DefinitionError, ForebayError
from forebay.language.on_demand import INSTANT, OnDemandView

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]
_PASSED_ON = np.zeros(len(Status), np.uint8)
_PASSED_ON[[Status.STALE, Status.UNAVAILABLE]] = Status.STALE
"""What the status of an input makes of a result: `PRESENT` (0), or what is worse."""
Columns = Mapping[tuple[str, str], FeatureColumn]
"""Features by the key of their view and their name."""
CHECKED_ROWS = 16
"""Rows of a call that are computed a second time, by themselves: what differs for a tenth of many rows is found four
times of five."""


def with_on_demand(
    asked: Asked,
    columns: Columns,
    request: Mapping[str, FeatureColumn],
    instants_us: Ints,
    first_row: int = 0,
) -> Columns:
    """The features of a call by view and name: those that were read, and those that are computed of them.

    `first_row` is the number of the first row, for messages.
    """
    computed: dict[tuple[str, str], FeatureColumn] = {}
    for key, view in asked.on_demand.items():
        arguments = {name: columns[of.key, name] for name, (of, _) in view.arguments().items()}
        arguments |= {name: request[name] for name in view.request}
        for column in compute(view, arguments, instants_us, first_row):
            computed[key, column.feature.name] = column
    return {**columns, **computed}


def compute(
    view: OnDemandView, arguments: Mapping[str, FeatureColumn], instants_us: Ints, first_row: int = 0
) -> list[FeatureColumn]:
    """The features of a view for rows of its arguments. Raises `DefinitionError` where its function does not return
    what the view declares, or where a row's value depends on others.
    """
    whole = {name: _whole(column) for name, column in arguments.items()}
    count = len(instants_us)
    results = [FeatureColumn.of_defaults(feature, count) for feature in view.outputs().values()]
    rows = np.flatnonzero(np.logical_and.reduce([np.ones(count, np.bool_), *(c.valid for c in whole.values())]))
    if not len(rows):
        return results
    taken = {name: column.take(rows) for name, column in whole.items()}
    arrays = {name: column.to_numpy() for name, column in taken.items()}
    if view.takes_instant:
        arrays[INSTANT] = instants_us[rows].astype("datetime64[us]")
    status, event_us = _behind(taken, len(rows))
    for result, answer in zip(results, _Call(view, arrays, rows + first_row).columns(), strict=True):
        result.status[rows] = np.where(answer.valid, status, Status.DEFAULT_ERROR)
        result.event_us[rows] = event_us
        good = rows[answer.valid]
        result.values[good], result.valid[good] = answer.values[answer.valid], True
    return results


def _whole(column: FeatureColumn) -> FeatureColumn:
    """A column with its values in stored form; a bare one may have them as Arrow's alone."""
    if column.array is None:
        return column
    held = stored(column.array, column.feature.type)
    return replace(column, values=held.values, valid=held.valid, array=None)


def _behind(taken: Mapping[str, FeatureColumn], count: int) -> tuple[npt.NDArray[np.uint8], Ints]:
    """The status of what is computed, and the instant of the newest event behind it."""
    status, event_us = np.zeros(count, np.uint8), np.full(count, NO_INSTANT, np.int64)
    for column in taken.values():
        np.maximum(status, _PASSED_ON[column.status], out=status)
        np.maximum(event_us, column.event_us, out=event_us)
    return status, event_us


@dataclass
class _Call:
    """The function of a view, called for rows that lack nothing; `rows` are their numbers in the caller's table."""

    view: OnDemandView
    arrays: Arrays
    rows: Ints
    alone: list[Exception] = field(default_factory=list)
    together: list[Exception] = field(default_factory=list)
    wrong: Wrong = field(default_factory=dict)

    def columns(self) -> list[Column]:
        """A column per feature, not valid in rows without a value."""
        parts = list(self._parts(slice(0, len(self.rows))))
        columns = [joined([part[number] for part in parts]) for number in range(len(self.view.features))]
        self._warn()
        if len(self.rows) > 1:
            self._check(columns)
        return columns

    def _parts(self, some: slice) -> Iterator[list[Column]]:
        """The results of some rows in parts, in order; where the function raises, rows are halved until one is left."""
        count, arguments = some.stop - some.start, {name: _copied(array[some]) for name, array in self.arrays.items()}
        try:
            with np.errstate(all="ignore"):
                found = self.view(**arguments)
        except ForebayError:
            raise
        except Exception as error:  # noqa: BLE001  whatever a function of the user raises
            (self.alone if count == 1 else self.together).append(error)
            if count == 1:
                yield [nothing(feature) for feature in self.view.features]
                return
            middle = (some.start + some.stop) // 2
            yield from self._parts(slice(some.start, middle))
            yield from self._parts(slice(middle, some.stop))
            return
        yield columns_of(self.view, found, count, self.wrong)

    def _warn(self) -> None:
        """Say what made defaults of rows, or made them slow. Python remembers each text, and shows it once: none of
        them holds a value, so that there are few.
        """
        said = []
        if self.alone:
            said.append(f"raised {_kind(self.alone)}: rows at which it raises get the defaults, with DEFAULT_ERROR")
        elif self.together:
            kind = _kind(self.together)
            said.append(f"raised {kind} for several rows at once and for none alone: for fewer it is called, slowly")
        for name, reason in self.wrong.items():
            said.append(f"returned for {name!r} what is not of its type ({reason}): the default, with DEFAULT_ERROR")
        for one in said:
            warnings.warn(f"The function of on-demand view {self.view.key!r} {one}", RuntimeWarning, stacklevel=2)

    def _check(self, columns: list[Column]) -> None:
        """Raise `DefinitionError` unless some rows have the values that they have by themselves."""
        count = len(self.rows)
        for row in np.unique(np.linspace(0, count - 1, CHECKED_ROWS).astype(np.int64)).tolist():
            (alone,) = self._parts(slice(row, row + 1))
            for feature, one, all_ in zip(self.view.features, alone, columns, strict=True):
                if not _is_same(one, all_, row):
                    raise DefinitionError(
                        f"On-demand view {self.view.key!r}: {feature.name!r} of row {self.rows[row]} is "
                        f"{_shown(one, 0)} by itself and {_shown(all_, row)} among {count} rows. A row's value may "
                        "depend on that row alone: on no other row (a mean, a sort), on no call before, and on no "
                        "matrix product, whose last bits depend on how many rows there are"
                    )


def _kind(raised: list[Exception]) -> str:
    return type(raised[0]).__name__


def _copied(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array that the function may keep and write to, lists in it as well."""
    if array.dtype.hasobject and len(array) and isinstance(array[0], list):
        return lists.objects([list(one) for one in array])
    return array.copy()


def _is_same(one: Column, all_: Column, row: int) -> bool:
    """Whether the only row of a column is a row of another, to the bit."""
    if not one.valid[0] or not all_.valid[row]:
        return bool(one.valid[0] == all_.valid[row])
    if one.values.dtype.hasobject:
        return bool(one.values[0] == all_.values[row])
    return one.values[:1].tobytes() == all_.values[row : row + 1].astype(one.values.dtype).tobytes()


def _shown(column: Column, row: int) -> str:
    return repr(column.values[row : row + 1].tolist()[0]) if column.valid[row] else "no value"
