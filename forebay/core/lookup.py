"""Finding the entities of many rows among those of a call, by the values of key columns.

The other way round than `forebay.core.identity`: no text is made of each row's key; values are made of each asked key's
text, once. Rows are then found in hash tables of these values, a column at a time: what a row's first columns are is
one number, which the next column's value makes a number of one more column.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.compiled import can_compile
from forebay.core.identity import SEPARATOR, parse_entity_key
from forebay.language.entity import Entity
from forebay.language.types import Int64Type

Ints = npt.NDArray[np.int64]
COMPILED_KEYS, COMPILED_ROWS = 20_000, 1_000_000
"""Of so many keys, and for so many rows, making a hash table once pays for the second that numba takes to load."""


class KeyLookup:
    """The entities `keys` (distinct texts of their keys), to be found in columns of key values."""

    def __init__(self, entity: Entity, keys: list[str], rows: int = 0) -> None:
        """`rows` is about how many will be looked for: of many keys, many rows are found by compiled code."""
        self.keys = keys
        texts = pa.array(keys, pa.string())
        self.others = pa.concat_arrays([texts, pa.array([""])])  # with a name for events of all others
        self.columns = _values(entity, keys, texts)
        self._compiled = many = self.is_compiled(len(keys), rows)
        self._levels: list[tuple[str, Known, Ints]] = []
        if len(self.columns) == 1:
            ((name, values),) = self.columns.items()
            self._levels.append((name, Known(values, compiled=many), np.empty(0, np.int64)))
            return
        numbers = np.zeros(len(keys), np.int64)
        for name, values in self.columns.items():
            distinct = Known(pc.unique(values), compiled=many)
            pairs = numbers * max(len(distinct), 1) + distinct.places(values)
            known, numbers = np.unique(pairs, return_inverse=True)
            self._levels.append((name, distinct, known))
        self._places = np.argsort(numbers)

    @staticmethod
    def is_compiled(keys: int, rows: int) -> bool:
        """Whether compiled code looks so many keys up for so many rows."""
        return rows >= COMPILED_ROWS and keys >= COMPILED_KEYS and can_compile()

    @property
    def wants_many(self) -> bool:
        """Whether many rows had better come at once: Arrow makes a table of all keys each time, and they are many."""
        return not self._compiled and len(self.keys) >= COMPILED_KEYS

    def places(self, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> Ints:
        """Where each row's entity is in `keys`; −1: nowhere, as where a key is null."""
        if len(self._levels) == 1:
            ((name, values, _),) = self._levels
            return values.places(columns[name])
        numbers: Ints | None = None
        for name, distinct, known in self._levels:
            found = distinct.places(columns[name])
            if not len(known):
                return found
            pairs = found if numbers is None else numbers * len(distinct) + found
            missing = found < 0 if numbers is None else (found < 0) | (numbers < 0)
            near = np.minimum(np.searchsorted(known, pairs), len(known) - 1)
            numbers = np.where(missing | (known[near] != pairs), -1, near)
        assert numbers is not None
        return np.where(numbers < 0, -1, self._places[numbers])


def _values(entity: Entity, keys: list[str], texts: pa.Array) -> dict[str, pa.Array]:
    """The key columns of entities."""
    if len(texts) and pc.any(pc.match_substring(texts, "%")).as_py():
        rows = [parse_entity_key(entity, key) for key in keys]
        parts = [pa.array([str(row[name]) for row in rows], pa.string()) for name in entity.keys]
    elif len(entity.keys) == 1:
        parts = [texts]
    else:
        split = pc.split_pattern(texts, SEPARATOR)
        parts = [pc.list_element(split, i) for i in range(len(entity.keys))]
    kinds = [pa.int64() if isinstance(kind, Int64Type) else pa.string() for kind in entity.keys.values()]
    return {name: part.cast(kind) for name, part, kind in zip(entity.keys, parts, kinds, strict=True)}


class Known:
    """Distinct values, of which each row has one or none; `compiled` where many rows come in small pieces."""

    def __init__(self, values: pa.Array, *, compiled: bool) -> None:
        self._values, self._table = values, None
        if compiled:
            from forebay.core.hash_table import HashTable  # numba takes a second to load

            self._table = HashTable(values) if HashTable.takes(values.type) else None

    def __len__(self) -> int:
        return len(self._values)

    def places(self, column: pa.Array | pa.ChunkedArray) -> Ints:
        """Which of the values each row has, −1 for none."""
        if self._table is None or column.type != self._values.type:
            places = pc.index_in(column, value_set=self._values).fill_null(-1)
            return np.asarray(places).astype(np.int64)
        chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
        found = [np.empty(0, np.int32), *map(self._table.find, chunks)]
        return np.concatenate(found, dtype=np.int64)
