"""The rows of a `TableSource`: files or SQL, in the declared types.

A file is never trusted about types: CSV and JSON are read as the schema says (so that '007' of a String stays
'007'), and every column goes through the rules of ingest. What cannot be of its type stops the reading with file,
column and row, because a table is somebody's input to a computation and not a stream. Only reading may live here.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.errors import ConfigError, StoreError
from forebay.ingest.convert import convert
from forebay.language.source import TableSource
from forebay.language.types import AnyType, BoolType, Float64Type, Int64Type

if TYPE_CHECKING:
    import duckdb

SUFFIXES = (".parquet", ".csv", ".ndjson", ".jsonl")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_table_source(source: TableSource, home: Path, environ: Mapping[str, str] = os.environ) -> pa.Table:
    """All rows of a table source, sorted by the instant from which they are effective.

    `${NAME}` in its path stands for an environment variable, `${FOREBAY_HOME}` for `home` also where it is not set.
    Raises `ConfigError` or `StoreError` that says which file, column and row.
    """
    path = expand_path(source.path, home, environ, f"TableSource {source.name!r}") if source.path is not None else None
    given = _query(source, path) if source.sql is not None else _read_files(source, path or "")
    columns = {name: _column(source, kind, given, name) for name, kind in source.schema.items()}
    effective = columns[source.effective]
    if effective.null_count:
        row = int(pc.index(effective.is_null(), True).as_py())
        raise StoreError(
            f"TableSource {source.name!r}: {source.effective!r} is null in row {row}; every row needs the instant "
            "from which "
            "it is effective: fill it or leave such rows out (with sql=)"
        )
    table = pa.table(columns)
    order = np.argsort(np.asarray(effective.cast(pa.int64())), kind="stable")
    return table if (np.diff(order) == 1).all() else table.take(pa.array(order))


def check_files(source: TableSource, home: Path, environ: Mapping[str, str] = os.environ) -> None:
    """Raise what `read_table_source` would raise where the files of a source are not there. Nothing is read."""
    if source.path is not None and source.sql is None:
        _files(source, expand_path(source.path, home, environ, f"TableSource {source.name!r}"))


def expand_path(path: str, home: Path, environ: Mapping[str, str], where: str) -> str:
    """A path with its variables filled in. Raises `ConfigError` for one that is not set."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "FOREBAY_HOME":
            return str(home)
        if name not in environ:
            raise ConfigError(f"{where}: path {path!r} needs the environment variable {name}, which is not set")
        return environ[name]

    return _VARIABLE.sub(value, path)


def _read_files(source: TableSource, path: str) -> pa.Table:
    files = _files(source, path)
    suffix = Path(files[0]).suffix
    if suffix == ".parquet":
        import pyarrow.dataset

        try:
            dataset = pyarrow.dataset.dataset(files, format="parquet")
            names = set(dataset.schema.names)
            return dataset.to_table(columns=[name for name in source.schema if name in names])
        except (pa.ArrowException, OSError) as error:
            raise StoreError(f"TableSource {source.name!r}: {path!r} cannot be read as Parquet: {error}") from None
    connection = connect()
    types = ", ".join(f"'{name}': '{_sql_type(kind)}'" for name, kind in source.schema.items())
    if suffix == ".csv":
        text = f"read_csv({_text_list(files)}, header = true, types = {{{_known(source, connection, files)}}})"
    else:
        text = f"read_json({_text_list(files)}, format = 'newline_delimited', columns = {{{types}}})"
    return _run(source, connection, f"FROM {text}")


def _known(source: TableSource, connection: duckdb.DuckDBPyConnection, files: list[str]) -> str:
    """The types of those columns that the CSV files have: DuckDB refuses to be told of others."""
    head = _run(source, connection, f"FROM read_csv({_text_list(files)}, header = true, all_varchar = true) LIMIT 0")
    present = [(name, kind) for name, kind in source.schema.items() if name in head.column_names]
    return ", ".join(f"'{name}': '{_sql_type(kind)}'" for name, kind in present)


def _files(source: TableSource, path: str) -> list[str]:
    """The files behind a path: itself, those of a folder, or those of a glob, all of one kind."""
    where = f"TableSource {source.name!r}: path {path!r}"
    if "://" in path:
        raise ConfigError(f"{where} is a URL; expected a file, a folder or a glob of this machine (or use sql=)")
    if Path(path).is_dir():
        found = sorted(str(p) for p in Path(path).rglob("*") if p.is_file() and p.suffix in SUFFIXES)
    else:
        found = [path] if Path(path).is_file() else sorted(glob.glob(path, recursive=True))
    suffixes = {Path(file).suffix for file in found}
    if not found:
        raise StoreError(f"{where} has no file; expected one that ends in {', '.join(SUFFIXES)}")
    if len(suffixes) > 1 or not suffixes <= set(SUFFIXES):
        raise StoreError(
            f"{where} has files that end in {', '.join(sorted(suffixes))}; expected one of {', '.join(SUFFIXES)}"
        )
    return found


def _query(source: TableSource, path: str | None) -> pa.Table:
    text = (source.sql or "").replace("{path}", (path or "").replace("'", "''"))
    return _run(source, connect(), text)


def connect() -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own, in UTC, that reads no settings and installs nothing."""
    import duckdb

    connection = duckdb.connect(config={"autoinstall_known_extensions": False, "autoload_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def _run(source: TableSource, connection: duckdb.DuckDBPyConnection, text: str) -> pa.Table:
    import duckdb

    try:
        return connection.sql(text).to_arrow_table()
    except duckdb.Error as error:
        raise StoreError(f"TableSource {source.name!r} cannot be read: {error}") from None


def _column(source: TableSource, kind: AnyType, table: pa.Table, name: str) -> pa.Array:
    where = f"TableSource {source.name!r}"
    if name not in table.column_names:
        raise StoreError(f"{where} has no column {name!r}; it has {', '.join(map(repr, table.column_names))}")
    converted = convert(kind, table[name])
    for reason, mask in converted.faults.items():
        row = int(np.flatnonzero(mask)[0])
        value = str(table[name][row])[:80]
        raise StoreError(
            f"{where}: {int(mask.sum())} of {len(mask)} values in column {name!r} ({table[name].type}) are no "
            f"{kind} ({reason}); "
            f"the first is {value!r} in row {row}. Mend the file, or cast in sql="
        )
    return converted.array


def _sql_type(kind: AnyType) -> str:
    """How a text file is read: text where the rules of ingest read text, else the type itself."""
    if isinstance(kind, Int64Type):
        return "BIGINT"
    if isinstance(kind, Float64Type):
        return "DOUBLE"
    return "BOOLEAN" if isinstance(kind, BoolType) else "VARCHAR"


def _text_list(files: list[str]) -> str:
    return "[" + ", ".join("'" + file.replace("'", "''") + "'" for file in files) + "]"
