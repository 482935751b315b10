"""A column of Python values becomes its declared type, by the rules of `convert`: for rows of any format.

Lives here: finding the Arrow type that a column's values have, value by value where they differ. What no column can
be (a list, a record, bytes, a date without a time, an instant without a zone) is a fault of its row.
"""

from __future__ import annotations

import decimal
import math
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from forebay.ingest.batch import INSTANT, MALFORMED, TOO_LARGE, WRONG_TYPE, stored_type
from forebay.ingest.convert import Converted, convert, merged
from forebay.language.types import AnyType, DecimalType, Float64Type

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
_UNFIT = (pa.ArrowInvalid, OverflowError, UnicodeEncodeError)


def column_of(kind: AnyType, values: list[Any]) -> Converted:
    """A column of values: as one Arrow array where they are of one type, by type and merged otherwise.

    Whole numbers go as doubles beside others only where they mean the same as one: not for an `Int64` beyond 2^53,
    nor for a `Timestamp`.
    """
    types = set(map(type, values)) - {type(None)}
    if types == {int, float} and isinstance(kind, Float64Type | DecimalType):
        try:
            return convert(kind, pa.array(values, pa.float64()))
        except (pa.ArrowInvalid, OverflowError):  # a whole number that no double is
            pass
    if len(types) == 1:
        return _of_type(kind, next(iter(types)), values)
    parts = [_of_type(kind, t, [v if type(v) is t else None for v in values]) for t in sorted(types, key=str)]
    return merged(parts) if parts else convert(kind, pa.nulls(len(values)))


def _of_type(kind: AnyType, python: type, values: list[Any]) -> Converted:
    if python is datetime:
        return _of_instants(kind, values)
    if python is decimal.Decimal:  # all its digits where they count, as a double elsewhere, as of an Arrow decimal
        python = str if isinstance(kind, DecimalType) else float
        values = [None if value is None else python(value) for value in values]
    if python not in _ARROW:
        given = np.fromiter((value is not None for value in values), np.bool_, len(values))
        return Converted(pa.nulls(len(values), stored_type(kind)), {WRONG_TYPE: given})
    try:
        return convert(kind, pa.array(values, _ARROW[python]), unicode=True)
    except _UNFIT:
        if python is int and isinstance(kind, Float64Type):  # 1e20 with all its digits, as JavaScript writes it
            return _of_type(kind, float, [None if value is None else _double(value) for value in values])
        return _one_by_one(kind, python, values)


def _double(whole: int) -> float:
    """The nearest double; infinite beyond them, as of a JSON number with an exponent."""
    try:
        return float(whole)
    except OverflowError:
        return math.inf if whole > 0 else -math.inf


def _of_instants(kind: AnyType, values: list[Any]) -> Converted:
    """Without a zone it is no instant: Arrow would take it for UTC."""
    loose = np.fromiter((value is not None and value.utcoffset() is None for value in values), np.bool_, len(values))
    kept = [None if no_zone else value for value, no_zone in zip(values, loose.tolist(), strict=True)]
    converted = convert(kind, pa.array(kept, INSTANT))
    return merged([converted, Converted(converted.array, {WRONG_TYPE: loose})]) if loose.any() else converted


def _one_by_one(kind: AnyType, python: type, values: list[Any]) -> Converted:
    """A column with a whole number beyond 64 bits or text that is no UTF-8."""
    bad = np.zeros(len(values), np.bool_)
    for row, value in enumerate(values):
        try:
            pa.scalar(value, _ARROW[python])
        except _UNFIT:
            bad[row] = True
    kept = [None if broken else value for value, broken in zip(values, bad.tolist(), strict=True)]
    rest = convert(kind, pa.array(kept, _ARROW[python]))
    return merged([rest, Converted(rest.array, {TOO_LARGE if python is int else MALFORMED: bad})])
