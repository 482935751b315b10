"""Arrow tables (Parquet files, results of queries) become events, by the same rules as JSON lines.

A column that cannot be of its type at all does not stop anything: every row that has a value there is a dead letter.
Whoever offers a whole file and wants to be told at once asks `mismatches` first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.ingest.admit import Clock, Offered, admit
from forebay.ingest.batch import DeadLetter, EventBatch, stored_type
from forebay.ingest.convert import Converted, convert
from forebay.ingest.former import field_names, first_of
from forebay.language.limits import Limit
from forebay.language.source import EventSource
from forebay.language.types import (
    AnyType,
    BoolType,
    DecimalType,
    Float64Type,
    Int64Type,
    StringType,
    TimestampType,
)


def conform(
    source: EventSource,
    partition: str,
    first_offset: int,
    table: pa.Table,
    clock: int | Clock,
    limits: Mapping[str, Limit] | None = None,
) -> tuple[EventBatch, list[DeadLetter]]:
    """The events of some rows of a partition, and a dead letter for every row that is none.

    Columns that the schema does not name are ignored, missing ones are null.
    """
    count = table.num_rows
    columns = {name: _column(kind, table, source.names_of(name)) for name, kind in source.schema.items()}
    offsets: npt.NDArray[np.int64] = np.arange(first_offset, first_offset + count, dtype=np.int64)
    offered = Offered(
        source,
        partition,
        offsets,
        lambda row: _raw(source, table, row),
        lambda row, name: _found(table, row, source.names_of(name)),
    )
    events, dead = admit(offered, columns, clock, limits or {})
    return EventBatch(source, partition, events, first_offset, first_offset + count), dead


def mismatches(source: EventSource, schema: pa.Schema) -> list[str]:
    """What is wrong with a file's columns as a whole: those that are missing or can never be of their type."""
    found = []
    for name, kind in source.schema.items():
        index = max(schema.get_field_index(one) for one in source.names_of(name))
        if index < 0:
            found.append(f"{name!r} ({kind}) is missing")
        elif not _possible(kind, schema.field(index).type):
            found.append(f"{name!r} is {schema.field(index).type}, expected {_expected(kind)}")
    return found


def _column(kind: AnyType, table: pa.Table, names: Sequence[str]) -> Converted:
    there = [name for name in names if name in table.schema.names]
    if not there:
        return Converted(pa.nulls(table.num_rows, stored_type(kind)), {})
    return first_of([convert(kind, table.column(table.schema.names.index(name))) for name in there])


def _found(table: pa.Table, row: int, names: Sequence[str]) -> Any:
    """The value of a column that goes by some names."""
    found = (_value(table, row, name) for name in names if name in table.schema.names)
    return next((value for value in found if value is not None), None)


def _possible(kind: AnyType, given: pa.DataType) -> bool:
    given = given.value_type if pa.types.is_dictionary(given) else given
    text = pa.types.is_string(given) or pa.types.is_large_string(given) or pa.types.is_string_view(given)
    number = pa.types.is_integer(given) or pa.types.is_floating(given) or pa.types.is_decimal(given)
    zoned = pa.types.is_timestamp(given) and given.tz is not None
    possible: dict[type, bool] = {
        StringType: text,
        BoolType: pa.types.is_boolean(given),
        Int64Type: number,
        Float64Type: number,
        DecimalType: number or text,
        TimestampType: zoned or text or pa.types.is_integer(given),
    }
    return pa.types.is_null(given) or possible[type(kind)]


def _expected(kind: AnyType) -> str:
    if isinstance(kind, TimestampType):
        return "a timestamp with a time zone (UTC), ISO 8601 text with an offset or whole UTC microseconds"
    return str(kind)


def _value(table: pa.Table, row: int, name: str) -> Any:
    """A value for a message: as Python has it, or as text where Python has none (year 20000, broken UTF-8).

    Instants are cut to microseconds, as `convert` does: Python has no finer ones, and pandas' would be no JSON.
    """
    scalar = table.column(table.schema.names.index(name))[row]
    try:
        if pa.types.is_timestamp(scalar.type):
            scalar = scalar.cast(pa.timestamp("us", scalar.type.tz), safe=False)
        return scalar.as_py()
    except (ValueError, OverflowError):
        return f"<{scalar.type}>"


def _raw(source: EventSource, table: pa.Table, row: int) -> bytes:
    """A row as JSON, since a columnar file has no bytes of its own for it."""
    names = [name for name in field_names(source) if name in table.schema.names]
    return msgspec.json.encode({name: _value(table, row, name) for name in names}, enc_hook=repr)
