"""Events as the core sees them: the columns of one windowed view's events, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Lifted

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def unused(dtype: str, count: int) -> Array:
    """A column that the reader has no use for: `count` zeros in the memory of one."""
    return np.broadcast_to(np.zeros((), dtype), count)


@dataclass(frozen=True)
class Column:
    """Stored values of one column, and which of them are there."""

    values: npt.NDArray[Any]
    valid: npt.NDArray[np.bool_]

    def take(self, rows: npt.NDArray[np.intp]) -> Column:
        """Some rows, in the order given."""
        return Column(self.values[rows], self.valid[rows])


@dataclass(frozen=True)
class Events:
    """Events of one windowed view: `where` is applied, events with a null key are left out.

    `keys` are the distinct entities, `code` an index into them; `ts` are instants, `ids` UTF-8 event ids, `offset`
    positions in the source; `columns` are those that the aggregations asked for need. All arrays have one length; ids
    and positions that the reader has no use for are `unused`.
    """

    keys: list[str]
    code: Ints
    ts: Ints
    ids: npt.NDArray[Any]
    offset: Ints
    columns: dict[str, Column]

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: npt.NDArray[np.intp]) -> Events:
        """Some events, in the order given; entities without one are dropped from `keys`."""
        used, code = np.unique(self.code[rows], return_inverse=True)
        columns = {name: column.take(rows) for name, column in self.columns.items()}
        keys = [self.keys[i] for i in used.tolist()]
        return Events(keys, code.astype(np.int64), self.ts[rows], self.ids[rows], self.offset[rows], columns)

    @staticmethod
    def joined(pieces: list[Events]) -> Events:
        """Pieces with the same `keys` as one. They are emptied on the way, to need little more than the whole."""
        keys, names = pieces[0].keys, list(pieces[0].columns)
        heads = [_end_to_end([getattr(piece, name) for piece in pieces]) for name in ("code", "ts", "ids", "offset")]
        parts = [piece.columns for piece in pieces]
        pieces.clear()
        columns: dict[str, Column] = {}
        for name in names:
            mine = [part.pop(name) for part in parts]
            columns[name] = Column(_end_to_end([c.values for c in mine]), _end_to_end([c.valid for c in mine]))
        return Events(keys, heads[0], heads[1], heads[2], heads[3], columns)

    def lifted(self, name: str, rows: npt.NDArray[np.intp]) -> Lifted:
        """One column with the ts and ids of its events, ready to be lifted into partials."""
        column = self.columns[name]
        return Lifted(column.values[rows], column.valid[rows], self.ts[rows], self.ids[rows])


def _is_unused(array: Array) -> bool:
    return array.strides == (0,)


def _end_to_end(parts: list[Array]) -> Array:
    if all(_is_unused(part) for part in parts):
        return unused(parts[0].dtype.str, sum(map(len, parts)))
    return np.concatenate(parts)
