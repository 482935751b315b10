"""Columns that a request brings along for its on-demand features: what is known at the call and nowhere stored.

May live here: where they come from, and the checks of them. Invariants: they follow the rules that columns of events
follow (`forebay.ingest.convert`), online and in a training set alike; a null is a value that is not there, and anything
else that is not of the declared type is refused with its row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import pyarrow as pa

from forebay.calls.keyed import exact
from forebay.calls.tables import check_all_aware, check_aware, to_arrow
from forebay.core.rows import stored
from forebay.core.values import NO_INSTANT, FeatureColumn, Status
from forebay.errors import RequestError, suggestion
from forebay.ingest.convert import convert
from forebay.language.feature import Feature
from forebay.language.types import AnyType, Int64Type

ROWS, REQUEST = "entity_rows", "request"
Request = Mapping[str, Any]
"""Values by column: one for all rows, or a list (or an array) with one for each row."""


def request_columns(
    table: pa.Table, types: Mapping[str, AnyType], where: str, first_row: int = 0
) -> dict[str, FeatureColumn]:
    """The columns of a table that on-demand features need. Raises `RequestError`; rows are counted from `first_row`."""
    for name, kind in types.items():
        if name not in table.column_names:
            raise RequestError(
                f"{where} has no column {name!r} ({kind}), which an on-demand feature needs of the request. "
                f"{suggestion(name, table.column_names)}"
            )
    return {name: _column(name, kind, table[name], where, first_row) for name, kind in types.items()}


def request_of(
    rows: Any, request: Request | None, types: Mapping[str, AnyType], count: int
) -> dict[str, FeatureColumn]:
    """The columns of an online call: each in `entity_rows`, or by name in `request`. Raises `RequestError`."""
    given = _spread({} if request is None else request, types, count)
    inline = {name: kind for name, kind in types.items() if name not in given}
    table = _inline(rows, inline, [name for name in given if name in types]) if types else pa.table({})
    found = request_columns(table, inline, ROWS)
    found |= {name: _column(name, types[name], array, REQUEST, 0) for name, array in given.items()}
    return {name: found[name] for name in types}


def _spread(request: Any, types: Mapping[str, AnyType], count: int) -> dict[str, pa.Array]:
    """The columns of `request`, a value for each row."""
    if not isinstance(request, Mapping):
        raise RequestError(f"{REQUEST}={request!r} is not a dictionary; expected e.g. {REQUEST}={{'amount': 12.5}}")
    spread = {}
    for name, value in request.items():
        if name not in types:
            raise RequestError(f"{REQUEST} has {name!r}, which none of these features needs. {suggestion(name, types)}")
        where = f"{REQUEST}[{name!r}]"
        if isinstance(value, Mapping | AbstractSet):
            raise RequestError(f"{where} is a {type(value).__name__}; expected one value for all rows, or a list")
        value = value.item() if isinstance(value, np.ndarray) and not value.ndim else value
        many = hasattr(value, "__len__") and not isinstance(value, str | bytes)
        if many and len(value) != count:
            raise RequestError(
                f"{where} has {len(value)} values for {count} rows; expected one for each, or one for all"
            )
        values = value if many else [value] * count
        check_aware(values, where, types[name])
        spread[name] = _array(values, where)
    return spread


def _inline(rows: Any, types: Mapping[str, AnyType], twice: Sequence[str]) -> pa.Table:
    """The columns of `entity_rows`; those that `request` holds too are refused: which one is meant?"""
    if isinstance(rows, Sequence):  # of dictionaries, as their keys were found to be
        there = {name for row in rows for name in row}
        columns = {name: _of_each(rows, name, kind) for name, kind in types.items()}
        check_all_aware(columns, types, ROWS)
        table = pa.table({name: _array(column, f"{ROWS}: {name!r}") for name, column in columns.items()})
    else:
        check_all_aware(rows, types, ROWS)
        table = to_arrow(rows, ROWS)
        there = set(table.column_names)
    for name in twice:
        if name in there:
            raise RequestError(f"{name!r} is in {ROWS} and in {REQUEST}; leave one out")
    return table


def _of_each(rows: Sequence[Mapping[str, Any]], name: str, kind: AnyType) -> list[Any]:
    """A column of dictionaries."""
    for number, row in enumerate(rows):
        if name not in row:
            raise RequestError(
                f"{ROWS}[{number}] has no {name!r} ({kind}), which an on-demand feature needs of the request; "
                f"add it to each row, or pass {REQUEST}={{{name!r}: …}}. {suggestion(name, row)}"
            )
    return [row[name] for row in rows]


def _array(values: Any, where: str) -> Any:
    try:
        return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{where} is no column: {error}. Expected values of one type") from None


def _column(name: str, kind: AnyType, column: Any, where: str, first_row: int) -> FeatureColumn:
    if isinstance(kind, Int64Type) and pa.types.is_floating(column.type):
        column = exact(column.cast(column.type), f"{where}: {name!r}")
    converted = convert(kind, column)
    for reason, mask in converted.faults.items():
        row = int(np.flatnonzero(mask)[0])
        raise RequestError(
            f"{where}: {name!r} of row {row + first_row} is {_text(column, row)!r} ({column.type}), which is no {kind} "
            f"({reason.replace('_', ' ')})"
        )
    held, count = stored(converted.array, kind), len(converted.array)
    status, event_us = np.full(count, Status.PRESENT, np.uint8), np.full(count, NO_INSTANT, np.int64)
    return FeatureColumn(Feature(name, kind, default=None), held.values, held.valid, status, event_us)


def _text(column: Any, row: int) -> str:
    """A value as a message shows it, which may be one that Python cannot hold."""
    try:
        return str(column[row])[:80]
    except (ValueError, OverflowError):
        return "a value beyond what can be shown"
