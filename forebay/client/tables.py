"""Tables at the edge of the client: what callers hand in becomes Arrow, and Arrow becomes the frame that they get back.

May live here: conversions between Arrow and pandas, files, and Python lists. No features, no stores.

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

from forebay.errors import ConfigError, RequestError
from forebay.instants import instant_us

if TYPE_CHECKING:
    import pandas as pd

FILE_KINDS = (".parquet", ".csv", ".ndjson", ".jsonl")
INSTANT = pa.timestamp("us", "UTC")
Rows = Any
"""A pandas DataFrame, an Arrow table (or what speaks its C stream interface), a dict of lists or a list of dicts."""


def to_arrow(rows: Rows, what: str) -> pa.Table:
    """An Arrow table of `rows`; a text or `Path` is read as a file. Raises `RequestError` that names `what` it was."""
    try:
        return _to_arrow(rows, what)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        raise RequestError(f"{what} cannot be read as a table: {error}. Expected columns of one type each") from None


def _to_arrow(rows: Rows, what: str) -> pa.Table:
    if isinstance(rows, pa.Table):
        return rows
    if isinstance(rows, str | Path):
        return read_file(Path(rows), what)
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


def read_file(path: Path, what: str) -> pa.Table:
    """The rows of a Parquet, CSV or NDJSON file."""
    check_file_kind(path, what)
    if not path.is_file():
        raise RequestError(f"{what} {str(path)!r} is not a file; give the path of a Parquet, CSV or NDJSON file")
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if path.suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    import pyarrow.json

    return pyarrow.json.read_json(path)


def check_file_kind(path: Path, what: str) -> None:
    """Raise `RequestError` unless the file's name says Parquet, CSV or NDJSON."""
    if path.suffix not in FILE_KINDS:
        raise RequestError(f"{what} {str(path)!r} ends in {path.suffix!r}; expected one of {', '.join(FILE_KINDS)}")


def write_file(table: pa.Table, path: Path) -> None:
    """Write the rows to a Parquet, CSV or NDJSON file, whole or not at all."""
    check_file_kind(path, "file")
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(table, unfinished, path.suffix)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise RequestError(f"{str(path)!r} cannot be written: {error}; name another file, or make room") from None


def _write(table: pa.Table, path: Path, kind: str) -> None:
    if kind == ".parquet":
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, path)
    elif kind == ".csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(_plain(table), path)
    else:
        import msgspec

        with path.open("wb") as lines:
            for batch in table.to_batches(max_chunksize=10_000):
                lines.write(msgspec.json.Encoder().encode_lines(batch.to_pylist()))


def _plain(table: pa.Table) -> pa.Table:
    """The table without dictionary columns, which CSV cannot hold."""
    fields = [
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A pandas DataFrame with the table's columns and a fresh index.

    Whole numbers are int64, and pandas' Int64 where some are null; Bool likewise bool or boolean; Decimal is
    `decimal.Decimal`; instants are datetime64[us, UTC].
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
    return column.to_pandas()


def _nullable_integer(kind: pa.DataType) -> str:
    return str(kind).replace("uint", "UInt").replace("int", "Int")


def to_instants(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """UTC instants of a column of aware datetimes, or of ISO 8601 texts with an offset. Raises `RequestError`.

    What is finer than a microsecond is cut off.
    """
    if column.null_count:
        row = int(pc.index(column.is_null(), True).as_py())
        raise RequestError(f"{where} is null in row {row}; expected an instant in every row: drop or fill such rows")
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise RequestError(
                f"{where} has no time zone; say which instants are meant, e.g. with "
                "df['event_timestamp'].dt.tz_localize('UTC')"
            )
        return column.cast(INSTANT, safe=False)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return pa.chunked_array(
            [pa.array([_instant(text, where, row) for row, text in enumerate(column.to_pylist())], INSTANT)]
        )
    raise RequestError(f"{where} is {column.type}; expected aware datetimes, such as pandas' datetime64[us, UTC]")


def _instant(text: str, where: str, row: int) -> int:
    try:
        return instant_us(text)
    except RequestError as error:
        raise RequestError(f"{where}, row {row}: {error}") from None


def _is_frame(rows: object) -> bool:
    """Whether it is a pandas DataFrame, without importing pandas to find out."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(rows, pandas.DataFrame)
