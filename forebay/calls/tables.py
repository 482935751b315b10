"""Tables at the edge of the client: what callers hand in becomes Arrow, and Arrow becomes the frame that they get back.

May live here: conversions between Arrow and pandas and Python lists. No features, no stores; files are `files`.

Invariants: rows keep their order and number; a pandas index is not kept (results have a fresh one from 0); NaN, NaT and
pd.NA are null; whole numbers with nulls stay whole numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from forebay.calls.files import read_file
from forebay.core.lists import is_list
from forebay.errors import ConfigError, RequestError
from forebay.instants import EARLIEST_US, LATEST_US, MILLISECOND_US, SECOND_US, instant_us
from forebay.language.types import AnyType, TimestampType

if TYPE_CHECKING:
    import pandas as pd

INSTANT = pa.timestamp("us", "UTC")
Rows = Any
"""A pandas DataFrame, an Arrow table (or what speaks its C stream interface), a dict of lists or a list of dicts."""


def to_arrow(rows: Rows, what: str, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """An Arrow table of `rows`; a text or `Path` is read as a file. Raises `RequestError` that names `what` it was.

    `types` are those of columns of a CSV or NDJSON file, which would otherwise be guessed.
    """
    try:
        return read_file(Path(rows), what, types) if isinstance(rows, str | Path) else _to_arrow(rows, what)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"{what} cannot be read as a table: {error}. Expected columns of one type each") from None


def _to_arrow(rows: Rows, what: str) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, Mapping):
        single = [name for name, column in rows.items() if isinstance(column, str) or not hasattr(column, "__len__")]
        if single:
            raise RequestError(
                f"{what} is a dict in which {single[0]!r} is the one value {rows[single[0]]!r}; "
                "expected a list of dicts, [{…}], or a dict of lists"
            )
        lengths = {name: len(column) for name, column in rows.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(
                f"{what} has columns of different lengths ({lengths}); expected one value per row in each"
            )
        return pa.table({name: pa.array(column, from_pandas=True) for name, column in rows.items()})
    if _is_frame(rows):
        if not rows.columns.is_unique:
            twice = rows.columns[rows.columns.duplicated()][0]
            raise RequestError(f"{what} has two columns {str(twice)!r}; rename or drop one")
        return pa.Table.from_pandas(rows, preserve_index=False).replace_schema_metadata(None)
    if hasattr(rows, "__arrow_c_stream__"):
        return pa.table(rows)
    if isinstance(rows, Sequence) and all(isinstance(row, Mapping) for row in rows):
        names = list(dict.fromkeys(name for row in rows for name in row))
        return pa.table({name: pa.array([row.get(name) for row in rows], from_pandas=True) for name in names})
    raise RequestError(
        f"{what} is a {type(rows).__name__}; "
        "expected a pandas DataFrame, an Arrow table, a dict of lists or a list of dicts"
    )


def check_all_aware(rows: Any, types: Mapping[str, AnyType], what: str) -> None:
    """`check_aware` of the columns of a table that is not Arrow's yet."""
    if hasattr(rows, "__getitem__") and not isinstance(rows, str | Path | pa.Table | Sequence):
        for name, kind in types.items():
            if name in rows:
                check_aware(rows[name], f"{what}[{name!r}]", kind)


def check_aware(values: Any, where: str, kind: AnyType) -> None:
    """Raise `RequestError` for a datetime without a time zone: among aware ones Arrow would take it for UTC."""
    if not isinstance(kind, TimestampType):
        return
    if not isinstance(values, list | tuple) and str(getattr(values, "dtype", "")) != "object":
        return
    for row, value in enumerate(values):
        if getattr(value, "tzinfo", "aware") is None:
            raise RequestError(f"{where} has no time zone in row {row} ({value}); say which instant is meant")


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A pandas DataFrame with the table's columns and a fresh index.

    Whole numbers are int64, and pandas' Int64 where some are null; Bool likewise bool or boolean; Decimal is
    `decimal.Decimal`; instants are datetime64[us, UTC]; lists and vectors are Python lists.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ConfigError("to_df() needs pandas: pip install pandas, or take to_arrow()") from None
    return pd.DataFrame({name: _series(column) for name, column in zip(table.column_names, table.columns, strict=True)})


def _series(column: pa.ChunkedArray) -> Any:
    import pandas as pd

    if column.null_count and pa.types.is_integer(column.type):
        return pd.array(column.to_pandas(integer_object_nulls=True), dtype=_nullable_integer(column.type))
    if column.null_count and pa.types.is_boolean(column.type):
        return pd.array(column.to_pandas(), dtype="boolean")
    if is_list(column.type):
        return pd.Series(column.to_pylist(), dtype=object)
    return column.to_pandas()


def _nullable_integer(kind: pa.DataType) -> str:
    return str(kind).replace("uint", "UInt").replace("int", "Int")


def to_instants(column: pa.ChunkedArray, where: str, first_row: int = 0) -> pa.ChunkedArray:
    """UTC instants of a column of aware datetimes, or of ISO 8601 texts with an offset. Raises `RequestError`.

    What is finer than a microsecond is cut off. `first_row` is the number of the first row, for messages.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        row = int(pc.index(column.is_null(), True).as_py()) + first_row
        raise RequestError(f"{where} is null in row {row}; expected an instant in every row: drop or fill such rows")
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise RequestError(
                f"{where} has no time zone; say which instants are meant, e.g. with "
                "df['event_timestamp'].dt.tz_localize('UTC')"
            )
        return _in_calendar(column, where, first_row)
    if is_text(column.type):
        return _parsed(column, where, first_row)
    if pa.types.is_date(column.type):
        raise RequestError(
            f"{where} is {column.type}, and a date is no instant; say which one is meant, e.g. with "
            "pd.to_datetime(df['event_timestamp']).dt.tz_localize('UTC') for its midnight"
        )
    raise RequestError(f"{where} is {column.type}; expected aware datetimes, such as pandas' datetime64[us, UTC]")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of it holds text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _in_calendar(column: pa.ChunkedArray, where: str, first_row: int) -> pa.ChunkedArray:
    """The instants in microseconds; those beyond the calendar are refused, before arithmetic on them overflows."""
    unit_us = {"s": SECOND_US, "ms": MILLISECOND_US, "us": 1, "ns": 1}[column.type.unit]
    if column.type.unit != "ns":
        found = column.cast(pa.int64())
        outside = pc.or_(pc.less(found, EARLIEST_US // unit_us), pc.greater(found, LATEST_US // unit_us))
        if pc.any(outside).as_py():
            row = int(pc.index(outside, True).as_py())
            raise RequestError(
                f"{where} is {found[row].as_py()} {column.type.unit} since 1970 in row {row + first_row}; "
                "expected instants within the years 1 to 9999"
            )
    return column.cast(INSTANT, safe=False)


def _parsed(column: pa.ChunkedArray, where: str, first_row: int) -> pa.ChunkedArray:
    """Instants of texts, by Arrow where it can read all of them, else one by one: that says which is wrong."""
    try:
        return column.cast(pa.string()).cast(INSTANT)
    except pa.ArrowInvalid:
        instants = [_instant(text, where, row) for row, text in enumerate(column.to_pylist(), start=first_row)]
        return pa.chunked_array([pa.array(instants, INSTANT)])


def _instant(text: str, where: str, row: int) -> int:
    try:
        return instant_us(text)
    except RequestError as error:
        raise RequestError(f"{where}, row {row}: {error}") from None


def _is_frame(rows: object) -> bool:
    """Whether it is a pandas DataFrame, without importing pandas to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)
