"""Files that callers name: tables are read from Parquet, CSV and NDJSON, and written whole or not at all.

May live here: formats of files. No features, no stores.

Invariants: a file that is named in an error is named as the caller did; where types are given, what a text file holds
is not guessed: `007` is a text where a text is expected, and of CSV only an empty cell is null.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from forebay.core.lists import is_list, list_texts
from forebay.errors import RequestError

FILE_KINDS = (".parquet", ".csv", ".ndjson", ".jsonl")


def read_file(path: Path, what: str, types: Mapping[str, pa.DataType] | None = None) -> pa.Table:
    """The rows of a Parquet, CSV or NDJSON file; `types` are those of some columns of CSV and NDJSON."""
    check_file(path, what)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path)
    if path.suffix == ".csv":
        import pyarrow.csv

        cells = pyarrow.csv.ConvertOptions(
            column_types=dict(types or {}), null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=False
        )
        return pyarrow.csv.read_csv(path, convert_options=cells)
    import pyarrow.json

    lines = pyarrow.json.ParseOptions(explicit_schema=pa.schema(dict(types or {})))
    table = pyarrow.json.read_json(path, parse_options=lines)
    empty = [name for name in types or {} if table[name].null_count == len(table)]
    return table.drop_columns([name for name in empty if not _mentions(path, name)])


def check_file(path: Path, what: str) -> None:
    """Raise `RequestError` unless it is a file whose name says Parquet, CSV or NDJSON."""
    check_file_kind(path, what)
    if not path.is_file():
        raise RequestError(f"{what} {str(path)!r} is not a file; give the path of a Parquet, CSV or NDJSON file")


def check_file_kind(path: Path, what: str) -> None:
    """Raise `RequestError` unless the file's name says Parquet, CSV or NDJSON."""
    if path.suffix not in FILE_KINDS:
        raise RequestError(f"{what} {str(path)!r} ends in {path.suffix!r}; expected one of {', '.join(FILE_KINDS)}")


def write_file(table: pa.Table, path: Path) -> None:
    """Write the rows to a Parquet, CSV or NDJSON file, whole or not at all."""
    write_pieces(table.schema, [table], path)


def write_pieces(schema: pa.Schema, pieces: Iterable[pa.Table], path: Path) -> None:
    """Write rows piece by piece to a Parquet, CSV or NDJSON file, whole or not at all."""
    check_file_kind(path, "file")
    with unfinished(path) as place:
        _write(schema, pieces, place, path.suffix)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; what is there in the end takes its name, after an error nothing does."""
    place = path.with_name(f".{path.name}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield place
            place.replace(path)
        finally:
            place.unlink(missing_ok=True)
    except OSError as error:
        raise RequestError(f"{str(path)!r} cannot be written: {error}; name another file, or make room") from None


def _mentions(path: Path, name: str) -> bool:
    """Whether any line names a column; asked only of one without a value."""
    quoted = f'"{name}"'.encode()
    with path.open("rb") as lines:
        return any(quoted in line for line in lines)


def _write(schema: pa.Schema, pieces: Iterable[pa.Table], path: Path, kind: str) -> None:
    if kind == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetWriter(path, schema) as writer:
            for piece in pieces:
                writer.write_table(piece)
    elif kind == ".csv":
        import pyarrow.csv

        with pyarrow.csv.CSVWriter(path, _cells(schema.empty_table()).schema) as writer:
            for piece in pieces:
                writer.write_table(_cells(piece))
    else:
        import msgspec

        with path.open("wb") as lines:
            for piece in pieces:
                for batch in piece.to_batches(max_chunksize=10_000):
                    lines.write(msgspec.json.Encoder().encode_lines(batch.to_pylist()))


def plain(table: pa.Table) -> pa.Table:
    """The table without dictionaries, which CSV and Delta cannot hold."""
    columns = [
        column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _cells(table: pa.Table) -> pa.Table:
    """The table without lists either, which CSV cannot hold: a list is JSON there."""
    table = plain(table)
    columns = [list_texts(column) if is_list(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names)
