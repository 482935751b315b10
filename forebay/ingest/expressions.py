"""The SQL expressions of a view (`where`, `derived`), run by DuckDB: the same text in the stream and in the backfill.

An expression sees one event and nothing else, so that its value is the same whenever and wherever it is computed: no
other rows, no files, no clock, no chance. `check_expressions` refuses the rest when a definition is planned; DuckDB
itself runs in memory, with one thread, without access to files or network. Instants are shown as naive `TIMESTAMP`
columns in UTC.

An expression that fails for an event (a cast, an overflow) is null for it; an unknown `where` is false. DuckDB's TRY
sees to most of that, without which an event would end the flow, at each start. It does not where a part that occurs
twice is computed once, ahead of it: then each expression is computed for itself, without that optimizer. Nor does it
for errors such as an unknown time zone: then the rows are halved until those are found that fail, and an expression
that fails alike for all of a few likely events is refused when it is planned.
"""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.errors import DefinitionError, suggestion
from forebay.ingest.batch import stored_type
from forebay.language.types import AnyType, BoolType, StringType, TimestampType
from forebay.language.view import WindowedView

_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "threads": "1",
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}
_OF_NO_EVENT = (
    duckdb.ConnectionException,
    duckdb.FatalException,
    duckdb.InternalException,
    duckdb.InterruptException,
    duckdb.IOException,
    duckdb.OutOfMemoryException,
)
"""Errors that say nothing of an event: with them nothing is null."""
_LIKELY: dict[str, list[Any]] = {
    "string": ["a", "UTC", "1", "2024-01-01 10:00:00"],
    "bool": [True, False, True, False],
    "timestamp[us]": [1_704_103_200_000_000 + 86_400_000_000 * n for n in range(4)],
}
"""Values of columns, by their Arrow type; others are numbers."""
_LIKELY_NUMBERS = ["1", "20", "-3", "1000000"]
_UNSTABLE = frozenset(
    {"current_localtime", "current_localtimestamp", "current_time", "current_timestamp", "localtime", "localtimestamp"}
)
"""What reads the clock although DuckDB's list of functions does not say so; so does `age` with one argument."""
MACRO_DEPTH_MAX = 8
"""DuckDB's own macros call one another to a depth of two."""
_FORBIDDEN = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "a star",
    "PARAMETER": "a parameter",
    "POSITIONAL_REFERENCE": "a position",
}
_NUMBERS = (
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
)
"""Not UHUGEINT: Arrow has no such numbers, and shows the greater half of them as negative."""
_FRACTIONS = ("FLOAT", "DOUBLE", "DECIMAL")


def check_expressions(view: WindowedView) -> None:
    """Raise `DefinitionError` unless each expression of a view is a function of one event and has the declared type."""
    if view.where is not None or view.derived:
        with duckdb.connect(config=_SETTINGS) as connection:
            schema = _schema(view, _checked_columns(connection, view))
            for what, text in _texts(view).items():
                _check_likely(connection, f"View {view.key!r}: {what} ({text!r})", text, schema)


class Expressions:
    """The expressions of one view, prepared once. Belongs to one thread."""

    def __init__(self, view: WindowedView) -> None:
        self._view = view
        self._connection = duckdb.connect(config=_SETTINGS)
        weakref.finalize(self, self._connection.close)
        self.columns = _checked_columns(self._connection, view)
        self._batch = _Batch(_schema(view, self.columns))
        self._connection.register("event", self._batch)
        texts = [_tried(text) for text in _texts(view).values()]
        columns = ", ".join(f"{text} AS e{n}" for n, text in enumerate(texts))
        self._connection.execute(f"PREPARE evaluate AS SELECT {columns} FROM event")
        self._connection.execute("SET disabled_optimizers = 'common_subexpressions'")
        for n, text in enumerate(texts):
            self._connection.execute(f"PREPARE evaluate_{n} AS SELECT {text} FROM event")

    def evaluate(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """The result of each expression for each row, by what it is of: `where` or `derived column 'x'`."""
        rows, texts = table.select(self.columns).cast(self._batch.schema), _texts(self._view)
        try:
            try:
                columns = self._executed("evaluate", rows).columns
            except _OF_NO_EVENT:
                raise
            except duckdb.Error:
                columns = [self._one(f"evaluate_{n}", rows) for n in range(len(texts))]
        except duckdb.Error as error:
            raise DefinitionError(f"View {self._view.key!r}: its expressions cannot be computed: {error}") from error
        return dict(zip(texts, columns, strict=True))

    def _one(self, name: str, rows: pa.Table) -> pa.ChunkedArray:
        """The result of one expression, null for each row that fails in a way that TRY does not catch."""
        try:
            return self._executed(name, rows).column(0)
        except _OF_NO_EVENT:
            raise
        except duckdb.Error:
            if not len(rows):
                raise
        if len(rows) == 1:
            return pa.chunked_array([pa.nulls(1, self._executed(name, rows.slice(0, 0)).schema.field(0).type)])
        half = len(rows) // 2
        parts = (self._one(name, part) for part in (rows.slice(0, half), rows.slice(half)))
        return pa.chunked_array([chunk for part in parts for chunk in part.chunks])

    def _executed(self, name: str, rows: pa.Table) -> pa.Table:
        self._batch.table = rows
        try:
            return self._connection.sql(f"EXECUTE {name}").to_arrow_reader().read_all()
        finally:
            self._batch.table = None


def where_mask(result: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which rows a `where` is true for; null is false."""
    return np.asarray(result.combine_chunks().fill_null(False)).astype(np.bool_)


def naive_as_utc(result: pa.ChunkedArray) -> pa.ChunkedArray:
    """Computed naive timestamps and dates as what they are: UTC."""
    if pa.types.is_date(result.type):  # in seconds all of them fit, infinity too
        result = pc.multiply(result.cast(pa.int32()).cast(pa.int64()), 86_400).cast(pa.timestamp("s"))
    if pa.types.is_timestamp(result.type) and result.type.tz is None:
        return result.cast(pa.timestamp(result.type.unit, "UTC"))
    return result


class _Batch:
    """The table `event` of a prepared query: whatever rows it holds when the query runs.

    A registered table would be bound for good when the query is prepared.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.table: pa.Table | None = None

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        table = self.schema.empty_table() if self.table is None else self.table
        return table.__arrow_c_stream__(requested_schema)


def _texts(view: WindowedView) -> dict[str, str]:
    texts = {} if view.where is None else {"where": view.where}
    return texts | {f"derived column {name!r}": derived.sql for name, derived in view.derived.items()}


def _schema(view: WindowedView, columns: list[str]) -> pa.Schema:
    kinds = {name: view.schema[name] for name in columns}
    fields = [(n, pa.timestamp("us") if isinstance(k, TimestampType) else stored_type(k)) for n, k in kinds.items()]
    return pa.schema(fields)


def _checked_columns(connection: duckdb.DuckDBPyConnection, view: WindowedView) -> list[str]:
    """The columns that the expressions read (at least one); every expression is checked on the way."""
    connection.execute("SET TimeZone = 'UTC'")
    known = {name.lower(): name for name in view.schema}
    if len(known) < len(view.schema):
        raise DefinitionError(
            f"View {view.key!r}: SQL cannot tell columns of {view.source_name!r} apart that differ in case; rename one"
        )
    used: set[str] = set()
    for what, text in _texts(view).items():
        where = f"View {view.key!r}: {what} ({text!r})"
        tree = _parsed(connection, where, text)
        _check_tree(connection, where, tree, known)
        used |= {known[n.lower()] for n in _column_names(tree) if n.lower() in known}
    columns = [name for name in view.schema if name in used] or [view.timestamp]
    connection.register("event", _schema(view, list(view.schema)).empty_table())
    for what, text in _texts(view).items():
        _check_type(connection, view, what, text)
    connection.unregister("event")
    return columns


def _parsed(connection: duckdb.DuckDBPyConnection, where: str, text: str) -> dict[str, Any]:
    """The syntax tree of a single expression."""
    rows = connection.execute("SELECT json_serialize_sql(?)", [f"SELECT {text}\n"]).fetchall()
    parsed = json.loads(rows[0][0])
    if parsed.get("error", True):
        raise DefinitionError(f"{where} is not SQL: {parsed.get('error_message')}")
    nodes = [statement["node"] for statement in parsed["statements"]]
    if len(nodes) != 1 or nodes[0]["type"] != "SELECT_NODE" or len(nodes[0]["select_list"]) != 1:
        raise DefinitionError(f"{where} is not one expression")
    node = nodes[0]
    clauses = [node[c] for c in ("where_clause", "group_expressions", "having", "qualify", "sample", "modifiers")]
    if node["from_table"]["type"] != "EMPTY" or any(clauses) or node["cte_map"]["map"]:
        raise DefinitionError(f"{where} is a query; expected an expression over the columns of the source")
    if node["select_list"][0]["alias"]:
        raise DefinitionError(f"{where} names its result; leave out AS")
    tree: dict[str, Any] = node["select_list"][0]
    return tree


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every node of a syntax tree."""
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _column_names(tree: Any) -> set[str]:
    return {name for node in _nodes(tree) if node["class"] == "COLUMN_REF" for name in node["column_names"]}


def _check_tree(connection: duckdb.DuckDBPyConnection, where: str, tree: Any, known: Mapping[str, str]) -> None:
    """Refuse what is not a function of one event."""
    local = {name for node in _nodes(tree) if node["class"] == "LAMBDA" for name in _column_names(node["lhs"])}
    for node in _nodes(tree):
        if node["class"] in _FORBIDDEN:
            raise DefinitionError(
                f"{where} holds {_FORBIDDEN[node['class']]}; an expression sees one event and nothing else"
            )
        if node["class"] == "COLUMN_REF":
            _check_column(connection, where, node["column_names"][0], {*known, *(name.lower() for name in local)})
        elif "function_name" in node:
            _check_call(connection, where, node["function_name"].lower(), len(node.get("arguments", ())))


def _check_column(connection: duckdb.DuckDBPyConnection, where: str, name: str, known: set[str]) -> None:
    if name.lower() not in known:
        _check_call(connection, where, name.lower(), 0)
        raise DefinitionError(f"{where} reads {name!r}, which the source does not have. {suggestion(name, known)}")


def _check_call(
    connection: duckdb.DuckDBPyConnection, where: str, name: str, arguments: int, depth: int = MACRO_DEPTH_MAX
) -> None:
    """Refuse a function by its kind, or by those that its macro calls."""
    functions = _functions(connection)
    _check_function(where, name, arguments, functions)
    for body in functions.get(name, {}).get("macro", ()) if depth else ():
        for node in _nodes(_parsed(connection, where, body)):
            called = node.get("function_name") or node.get("column_names", [""])[0]
            _check_call(connection, where, called.lower(), len(node.get("arguments", ())), depth - 1)


def _check_function(where: str, name: str, arguments: int, functions: Mapping[str, Mapping[str, list[Any]]]) -> None:
    found = functions.get(name, {})
    if name in _UNSTABLE or (name == "age" and arguments == 1) or set(found.get("scalar", ())) - {"CONSISTENT"}:
        raise DefinitionError(
            f"{where} calls {name!r}, whose value is not decided by the event; stream and backfill would differ"
        )
    if "aggregate" in found and "scalar" not in found and "macro" not in found:
        raise DefinitionError(f"{where} calls the aggregate {name!r}; declare an aggregation over a window instead")
    if name in ("unnest", "unlist") or ("table" in found and len(found) == 1):
        raise DefinitionError(f"{where} calls {name!r}, which yields rows; an expression yields one value per event")


_KINDS: dict[str, dict[str, list[Any]]] = {}


def _functions(connection: duckdb.DuckDBPyConnection) -> Mapping[str, Mapping[str, list[Any]]]:
    """For each function of DuckDB, its kinds, with the stabilities of a scalar and the bodies of a macro."""
    if not _KINDS:
        query = "SELECT lower(function_name), function_type, stability, macro_definition FROM duckdb_functions()"
        kinds: dict[str, dict[str, list[Any]]] = {}
        for name, kind, stability, body in connection.execute(query).fetchall():
            kinds.setdefault(name, {}).setdefault(kind, []).append(body if kind == "macro" else stability)
        _KINDS.update(kinds)
    return _KINDS


def _check_type(connection: duckdb.DuckDBPyConnection, view: WindowedView, what: str, text: str) -> None:
    where = f"View {view.key!r}: {what} ({text!r})"
    try:
        rows = connection.execute(f"DESCRIBE SELECT {_tried(text)} AS value FROM event").fetchall()
    except duckdb.Error as error:
        message = str(error).split("\n")[0]
        raise DefinitionError(f"{where} cannot be computed: {message}") from None
    given = str(rows[0][1]).split("(")[0]
    if what == "where":
        if given != "BOOLEAN":
            raise DefinitionError(f"{where} is {given}; expected a condition, true or false")
        return
    kind = next(derived.type for name, derived in view.derived.items() if what == f"derived column {name!r}")
    if given not in _possible(kind) and given != '"NULL"':
        raise DefinitionError(f"{where} is {given}; expected {kind}. Write a CAST")


def _check_likely(connection: duckdb.DuckDBPyConnection, where: str, text: str, schema: pa.Schema) -> None:
    """Refuse what fails for each of some likely events in the same words, with TRY around it: it would for all."""
    values = [_LIKELY.get(str(kind), _LIKELY_NUMBERS) for kind in schema.types]
    events, messages = pa.table(values, schema.names).cast(schema), set[str]()
    for n in range(len(events)):
        connection.register("event", events.slice(n, 1))
        try:
            connection.execute(f"SELECT {_tried(text)} FROM event").fetchall()
            return
        except duckdb.Error as error:
            messages.add(str(error).split("\n")[0])
        finally:
            connection.unregister("event")
    if len(messages) == 1:
        raise DefinitionError(f"{where} fails for every event: {messages.pop()}")


def _tried(text: str) -> str:
    """An expression that is null where it fails; a comment at its end ends there."""
    return f"TRY((\n{text}\n))"


@functools.singledispatch
def _possible(kind: AnyType) -> tuple[str, ...]:
    """The SQL types that a derived column of a type can be computed as."""
    return (*_NUMBERS, *_FRACTIONS)


@_possible.register
def _(kind: StringType) -> tuple[str, ...]:
    return ("VARCHAR",)


@_possible.register
def _(kind: BoolType) -> tuple[str, ...]:
    return ("BOOLEAN",)


@_possible.register
def _(kind: TimestampType) -> tuple[str, ...]:
    return ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DATE")
