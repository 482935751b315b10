"""Whose features a call asks for: key columns of many rows become distinct entities and one code per row.

May live here: the checks of key columns, from Python rows and from tables. No features, no stores.

Invariants: keys are of their declared types when they leave here (`True` is not 1, 17.0 is not 17 in a dict); a row
in which a key is null, or longer than what is stored, has no entity (code −1): it gets defaults and loses no row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.calls.tables import is_text, to_arrow
from forebay.core.identity import KEY_BYTES_MAX, entity_key, entity_keys
from forebay.errors import RequestError, suggestion
from forebay.language.entity import Entity
from forebay.language.types import AnyType, Int64Type

ENTITY_ROWS_MAX = 10_000
"""Rows of one online call: their blobs travel in one reply and are in memory at once (a few KB per entity and view)."""

FLOAT_EXACT = 2.0**53


@dataclass(frozen=True)
class Keyed:
    """The distinct entities of some rows, and each row's index into them (int64; −1 where there is none)."""

    keys: list[str]
    code: npt.NDArray[np.int64]


@dataclass(frozen=True)
class EntityRows:
    """The key columns of an online call: one Python list per column, all of `count` values."""

    columns: dict[str, list[Any]]
    count: int

    @classmethod
    def of(cls, rows: Any, keys: Mapping[str, AnyType]) -> EntityRows:
        """The columns `keys` of a list of dicts, a dict of lists, a DataFrame or an Arrow table; others are ignored.

        Raises `RequestError` for a missing column, a value of a wrong type and too many rows.
        """
        if isinstance(rows, Sequence) and not isinstance(rows, str | bytes):
            columns, count = _of_dicts(rows, keys), len(rows)
        else:
            table = to_arrow(rows, "entity_rows")
            columns = {name: key_column(table, name, kind, "entity_rows").to_pylist() for name, kind in keys.items()}
            count = table.num_rows
        if count > ENTITY_ROWS_MAX:
            raise RequestError(
                f"entity_rows has {count} rows; at most {ENTITY_ROWS_MAX} are answered at once: ask in several calls"
            )
        return cls(columns, count)

    def keyed(self, entity: Entity) -> Keyed:
        """The distinct entities of one kind among the rows."""
        names = list(entity.keys)
        codes: dict[tuple[Any, ...], int] = {}
        keys: list[str] = []
        code = np.empty(self.count, np.int64)
        for row, values in enumerate(zip(*(self.columns[name] for name in names), strict=True)):
            found = codes.get(values)
            if found is None:
                found = codes[values] = self._new(entity, dict(zip(names, values, strict=True)), keys)
            code[row] = found
        return Keyed(keys, code)

    @staticmethod
    def _new(entity: Entity, key: Mapping[str, Any], keys: list[str]) -> int:
        """The code of an entity that was not seen before, which joins `keys`."""
        text = None if None in key.values() else entity_key(entity, key)
        if text is None or len(text) > KEY_BYTES_MAX:
            return -1
        keys.append(text)
        return len(keys) - 1


def keyed_table(table: pa.Table, entity: Entity, where: str) -> Keyed:
    """The distinct entities of one kind among the rows of a table."""
    texts = entity_keys(entity, {name: key_column(table, name, kind, where) for name, kind in entity.keys.items()})
    stored = pc.less_equal(pc.binary_length(texts), KEY_BYTES_MAX)
    coded = pc.if_else(stored, texts, None).dictionary_encode()
    return Keyed(coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(-1)).astype(np.int64))


def key_column(table: pa.Table, name: str, kind: AnyType, where: str) -> pa.ChunkedArray:
    """A key column in its declared type: text as `pa.string()`, whole numbers as `pa.int64()`."""
    if name not in table.column_names:
        raise RequestError(f"{where} has no column {name!r}, a key. {suggestion(name, table.column_names)}")
    column = table[name]
    found = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    whole = isinstance(kind, Int64Type)
    if not (pa.types.is_null(found) or (_is_number(found) if whole else is_text(found))):
        raise RequestError(f"{where}: key {name!r} is {found}; expected {'whole numbers' if whole else 'text'}")
    if pa.types.is_floating(found):
        column = exact(column.cast(found), f"{where}: key {name!r}")
    try:
        return column.cast(pa.int64() if whole else pa.string())
    except pa.ArrowInvalid as error:
        raise RequestError(f"{where}: key {name!r} is not a column of {kind}: {error}") from None


def exact(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    """Whole numbers that pandas made floats of because some are null: NaN is null, and what may be rounded is refused.

    From 2^53 on two keys can be one float, so a row would get the features of somebody else.
    """
    column = pc.if_else(pc.is_nan(column), None, column)
    if len(column) > column.null_count and pc.max(pc.abs(column)).as_py() >= FLOAT_EXACT:
        raise RequestError(
            f"{what} is {column.type} and holds {pc.max(pc.abs(column)).as_py():.0f}: a float cannot tell such whole "
            "numbers apart; hand them over as int64, or as pandas' nullable Int64"
        )
    return column


def _is_number(kind: pa.DataType) -> bool:
    """Floats too: that is what pandas makes of whole numbers with nulls. A fraction is refused by the cast."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _of_dicts(rows: Sequence[Any], keys: Mapping[str, AnyType]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {name: [] for name in keys}
    for row, given in enumerate(rows):
        if not isinstance(given, Mapping):
            raise RequestError(f"entity_rows[{row}] is {given!r}; expected a dict such as {{{next(iter(keys))!r}: …}}")
        for name, kind in keys.items():
            if name not in given:
                raise RequestError(f"entity_rows[{row}] has no key {name!r}. {suggestion(name, given)}")
            columns[name].append(_checked(given[name], kind, row, name))
    return columns


def _checked(value: Any, kind: AnyType, row: int, name: str) -> Any:
    if value is None or type(value) is str or type(value) is int or not _is_null(value):
        plain = value.item() if isinstance(value, np.generic) else value
        try:
            return kind.units(plain)
        except RequestError as error:
            raise RequestError(f"entity_rows[{row}], key {name!r}: {error}") from None
    return None


def _is_null(value: Any) -> bool:
    """NaN, and pandas' NA and NaT, which rows that were once a DataFrame hold in place of None."""
    return (isinstance(value, float) and value != value) or type(value).__name__ in {"NAType", "NaTType"}
