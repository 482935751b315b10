"""On-demand features computed: the same for an online read, and for the rows of a training set.

    stored features ─┐
    request columns ─┼→  rows that lack none of them  →  the view's function, many rows at once  →  its features
    instants        ─┘                        all other rows  →  the defaults

May live here: what a function is given, what its result becomes, and the check that a row's value depends on that row
alone. No rows are read here. Invariants: a row's value and status are those that the row would get by itself; types of
the arrays that a function gets never depend on their values, so no row decides how another is computed.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.asked import Asked
from forebay.core.events import Column
from forebay.core.rows import stored
from forebay.core.values import NO_INSTANT, FeatureColumn, Status
from forebay.errors import DefinitionError, ForebayError
from forebay.ingest.lists import convert_feature
from forebay.language.feature import Feature
from forebay.language.on_demand import INSTANT, OnDemandView
from forebay.language.types import BoolType, FeatureType, Float64Type, Int64Type

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Arrays = Mapping[str, npt.NDArray[Any]]
_PASSED_ON = np.zeros(len(Status), np.uint8)
_PASSED_ON[[Status.STALE, Status.UNAVAILABLE]] = Status.STALE
"""What the status of an input makes of a result: `PRESENT` (0), or what is worse."""
Columns = Mapping[tuple[str, str], FeatureColumn]
"""Features by the key of their view and their name."""
CHECKED_ROWS = 4
"""Rows of a call that are computed a second time, by themselves."""


def with_on_demand(asked: Asked, columns: Columns, request: Mapping[str, FeatureColumn], instants_us: Ints) -> Columns:
    """The features of a call by view and name: those that were read, and those that are computed of them."""
    computed: dict[tuple[str, str], FeatureColumn] = {}
    for key, view in asked.on_demand.items():
        arguments = {name: columns[of.key, name] for name, (of, _) in view.arguments().items()}
        arguments |= {name: request[name] for name in view.request}
        for column in compute(view, arguments, instants_us):
            computed[key, column.feature.name] = column
    return {**columns, **computed}


def compute(view: OnDemandView, arguments: Mapping[str, FeatureColumn], instants_us: Ints) -> list[FeatureColumn]:
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
    for result, answer in zip(results, _computed(view, arrays, len(rows)), strict=True):
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


def _computed(view: OnDemandView, arrays: Arrays, count: int) -> list[Column]:
    """What the function gives for all rows."""
    raised: list[Exception] = []
    parts = list(_parts(view, arrays, slice(0, count), raised))
    if raised:
        warnings.warn(
            f"The function of on-demand view {view.key!r} raised {raised[0]!r}: rows at which it raises get the "
            "defaults, with DEFAULT_ERROR",
            RuntimeWarning,
            stacklevel=2,
        )
    elif count > 1:
        _check_by_row(view, arrays, parts[0], count)
    return [_joined([part[number] for part in parts]) for number in range(len(view.features))]


def _parts(view: OnDemandView, arrays: Arrays, some: slice, raised: list[Exception]) -> Iterator[list[Column]]:
    """The results of some rows in parts, in order; where the function raises, the rows are halved until one is left."""
    try:
        yield _called(view, arrays, some)
        return
    except ForebayError:
        raise
    except Exception as error:  # noqa: BLE001  whatever a function of the user raises
        if some.stop - some.start == 1:
            raised.append(error)
            yield [_nothing(feature) for feature in view.features]
            return
    middle = (some.start + some.stop) // 2
    yield from _parts(view, arrays, slice(some.start, middle), raised)
    yield from _parts(view, arrays, slice(middle, some.stop), raised)


def _called(view: OnDemandView, arrays: Arrays, some: slice) -> list[Column]:
    """One call of the function, which gets copies: it may write to them."""
    assert view.compute is not None, f"{view.key} was asked for without its function"
    with np.errstate(all="ignore"):
        found = view.compute(**{name: array[some].copy() for name, array in arrays.items()})
    names = [feature.name for feature in view.features]
    if not isinstance(found, Mapping):
        found = {names[0]: found} if len(names) == 1 else found
    if not isinstance(found, Mapping) or sorted(found) != sorted(names):
        what = f"a dict of {', '.join(map(repr, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        expected = "an array of its values" if len(names) == 1 else f"a dict of {', '.join(map(repr, names))}"
        raise DefinitionError(f"On-demand view {view.key!r}: its function returned {what}; expected {expected}")
    return [_result(view, feature, found[feature.name], some.stop - some.start) for feature in view.features]


def _result(view: OnDemandView, feature: Feature, found: Any, count: int) -> Column:
    """What was returned for a feature, in its stored form; not valid where it is none of its type."""
    if not isinstance(found, np.ndarray | list | tuple | pa.Array | pa.ChunkedArray) or len(found) != count:
        size = f" of {len(found)} values" if hasattr(found, "__len__") and not isinstance(found, str) else ""
        raise DefinitionError(
            f"On-demand view {view.key!r}: its function returned a {type(found).__name__}{size} for {feature.name!r} "
            f"of {count} rows; expected an array with a value for each row"
        )
    if isinstance(found, np.ndarray) and found.ndim == 1 and _is_stored(found.dtype, feature.type):
        good = np.isfinite(found) if found.dtype.kind == "f" else np.ones(count, np.bool_)
        return Column(np.ascontiguousarray(found), good)
    if isinstance(found, np.ndarray) and found.dtype.kind == "M":
        found = pa.array(found.astype("datetime64[us]").view(np.int64), mask=np.isnat(found))
    try:
        array = found if isinstance(found, pa.Array | pa.ChunkedArray) else pa.array(_listed(found), from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if count == 1:
            return _nothing(feature)
        return _joined([_result(view, feature, found[row : row + 1], 1) for row in range(count)])
    return stored(convert_feature(feature.type, array).array, feature.type)


def _is_stored(dtype: np.dtype[Any], kind: FeatureType) -> bool:
    """Whether values of a type are stored as NumPy has them."""
    return isinstance(kind, Float64Type | Int64Type | BoolType) and dtype == np.dtype(kind.storage)


def _listed(found: Any) -> Any:
    """What Arrow can read: rows of a matrix are lists."""
    return found.tolist() if isinstance(found, np.ndarray) and found.ndim > 1 else found


def _nothing(feature: Feature) -> Column:
    """A row without a value."""
    return Column(np.zeros(1, feature.type.storage), np.zeros(1, np.bool_))


def _joined(parts: list[Column]) -> Column:
    if len(parts) == 1:
        return parts[0]
    values, valid = [part.values for part in parts], [part.valid for part in parts]
    return Column(np.concatenate(values), np.concatenate(valid))


def _check_by_row(view: OnDemandView, arrays: Arrays, together: list[Column], count: int) -> None:
    """Raise `DefinitionError` unless some rows have the values that they have by themselves."""
    for row in np.unique(np.linspace(0, count - 1, CHECKED_ROWS).astype(np.int64)).tolist():
        try:
            alone = _called(view, arrays, slice(row, row + 1))
        except Exception as error:
            raise DefinitionError(
                f"On-demand view {view.key!r}: its function raised {error!r} for row {row} by itself, and not for "
                f"{count} rows at once; a row's value may depend on that row alone"
            ) from error
        for feature, one, all_ in zip(view.features, alone, together, strict=True):
            if not _is_same(one, all_, row):
                raise DefinitionError(
                    f"On-demand view {view.key!r}: {feature.name!r} of row {row} is {_shown(one, 0)} by itself and "
                    f"{_shown(all_, row)} among {count} rows; a row's value may depend on that row alone (no mean or "
                    "sort over the rows): online it comes alone"
                )


def _is_same(one: Column, all_: Column, row: int) -> bool:
    """Whether the only row of a column is a row of another, to the bit."""
    if not one.valid[0] or not all_.valid[row]:
        return bool(one.valid[0] == all_.valid[row])
    if one.values.dtype.hasobject:
        return bool(one.values[0] == all_.values[row])
    return one.values[:1].tobytes() == all_.values[row : row + 1].astype(one.values.dtype).tobytes()


def _shown(column: Column, row: int) -> str:
    return repr(column.values[row : row + 1].tolist()[0]) if column.valid[row] else "no value"
