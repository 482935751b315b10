"""What a function returned, as stored columns: copied, judged by the rules of events, a row at a time in effect.

May live here: shapes and types that are taken, and what becomes of a value that is none of the feature's type.
Invariants: a value decides nothing about another one of its column, though Arrow infers one type for all; nothing is
shared with the function, which may keep what it returned and write to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.events import Column
from forebay.core.rows import stored
from forebay.errors import DefinitionError
from forebay.ingest.batch import INFINITE
from forebay.ingest.lists import convert_feature
from forebay.language.feature import Feature
from forebay.language.on_demand import OnDemandView
from forebay.language.types import BoolType, FeatureType, Float64Type, Int64Type, ListType, TimestampType

Wrong = dict[str, str]
"""By feature, the first reason for which a value was none of its type."""
_COARSE = ("Y", "M", "W", "D", "h", "m", "s", "ms")
"""Units of NumPy's instants of which one may lie beyond what microseconds hold."""


def columns_of(view: OnDemandView, found: Any, count: int, wrong: Wrong) -> list[Column]:
    """What a function returned for so many rows: a column per feature, not valid where a value is none of its type.

    Raises `DefinitionError` for another shape.
    """
    names = [feature.name for feature in view.features]
    if not isinstance(found, Mapping):
        found = {names[0]: found} if len(names) == 1 else found
    if not isinstance(found, Mapping) or sorted(map(str, found)) != sorted(names):
        what = f"a dict of {', '.join(map(repr, found))}" if isinstance(found, Mapping) else f"a {type(found).__name__}"
        expected = "an array of its values" if len(names) == 1 else f"a dict of {', '.join(map(repr, names))}"
        raise DefinitionError(f"On-demand view {view.key!r}: its function returned {what}; expected {expected}")
    for name in names:
        _check_shape(view, name, found[name], count)
    return [_column(feature, found[feature.name], wrong) for feature in view.features]


def nothing(feature: Feature) -> Column:
    """A row without a value."""
    return Column(np.zeros(1, feature.type.storage), np.zeros(1, np.bool_))


def joined(parts: Sequence[Column]) -> Column:
    """Columns one behind the other."""
    if len(parts) == 1:
        return parts[0]
    return Column(np.concatenate([part.values for part in parts]), np.concatenate([part.valid for part in parts]))


def _check_shape(view: OnDemandView, name: str, found: Any, count: int) -> None:
    is_column = isinstance(found, np.ndarray | list | tuple | pa.Array | pa.ChunkedArray)
    if is_column and (not isinstance(found, np.ndarray) or found.ndim) and len(found) == count:
        return
    size = f" of {len(found)} values" if is_column and np.ndim(found) else ""
    raise DefinitionError(
        f"On-demand view {view.key!r}: its function returned a {type(found).__name__}{size} for {name!r} of {count} "
        "rows; expected an array with a value for each row"
    )


def _column(feature: Feature, found: Any, wrong: Wrong) -> Column:
    kind = feature.type
    if isinstance(found, np.ndarray):
        found = _plain(found)
        if found.ndim == 1 and _is_stored(found.dtype, kind):
            held, mask = np.array(np.ma.getdata(found)), np.ma.getmaskarray(found)
            return Column(held, (np.isfinite(held) if held.dtype.kind == "f" else np.True_) & ~mask)
        if found.dtype.kind == "M" and isinstance(_held(kind), TimestampType):
            return _converted(feature, _microseconds(found), wrong)
        if found.dtype.kind in "Mm":
            wrong.setdefault(feature.name, f"{found.dtype} is no {kind}")
            return Column(np.zeros(len(found), kind.storage), np.zeros(len(found), np.bool_))
        found = found.tolist() if found.ndim > 1 or found.dtype.hasobject else found
    return _converted(feature, found, wrong)


def _converted(feature: Feature, found: Any, wrong: Wrong) -> Column:
    """By way of Arrow; values of several Python types one by one, since Arrow would make one type of them."""
    kind = feature.type
    if isinstance(found, list | tuple):
        if isinstance(kind, TimestampType):
            found = [None if isinstance(one, datetime) and one.tzinfo is None else one for one in found]
        if len(found) > 1 and len({type(one) for one in found if one is not None}) > 1:
            return joined([_converted(feature, [one], wrong) for one in found])
    try:
        array = found if isinstance(found, pa.Array | pa.ChunkedArray) else pa.array(found, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        if len(found) > 1:
            return joined([_converted(feature, found[row : row + 1], wrong) for row in range(len(found))])
        wrong.setdefault(feature.name, f"{type(found[0]).__name__} is no {kind}")
        return nothing(feature)
    converted = convert_feature(kind, array)
    for reason in converted.faults:
        if reason != INFINITE:
            wrong.setdefault(feature.name, f"{array.type} is no {kind}: {reason.replace('_', ' ')}")
    held = stored(converted.array, kind)
    return Column(np.array(held.values), np.array(held.valid))


def _plain(found: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """In this machine's order of bytes, and as doubles what is longer."""
    if found.dtype.kind == "f" and found.dtype.itemsize > 8:
        return found.astype(np.float64)
    return found if found.dtype.isnative else found.astype(found.dtype.newbyteorder("="))


def _microseconds(found: npt.NDArray[Any]) -> Any:
    """Instants as whole microseconds; none where there is none, or it lies beyond what 64 bits hold."""
    us = found.astype("datetime64[us]")
    lacking = np.isnat(found) | np.ma.getmaskarray(found)
    if np.datetime_data(found.dtype)[0] in _COARSE:
        lacking = lacking | (us.astype(found.dtype) != found)
    whole = np.ma.getdata(us).astype(np.int64)
    if found.ndim == 1:
        return pa.array(whole, mask=np.ma.filled(lacking, True))
    instants = whole.astype(object)
    instants[np.ma.filled(lacking, True)] = None
    return instants.tolist()


def _held(kind: FeatureType) -> FeatureType:
    """The type itself, or of what a list holds."""
    return kind.of if isinstance(kind, ListType) else kind


def _is_stored(dtype: np.dtype[Any], kind: FeatureType) -> bool:
    """Whether values of a type are stored as NumPy has them."""
    return isinstance(kind, Float64Type | Int64Type | BoolType) and dtype == np.dtype(kind.storage)
