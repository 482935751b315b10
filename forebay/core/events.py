"""Events as the core sees them: the columns of one windowed view's events, in any order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Lifted

Ints = npt.NDArray[np.int64]


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
    positions in the source; `columns` are those that the view's aggregations need. All arrays have one length.
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

    def lifted(self, name: str, rows: npt.NDArray[np.intp]) -> Lifted:
        """One column with the ts and ids of its events, ready to be lifted into partials."""
        column = self.columns[name]
        return Lifted(column.values[rows], column.valid[rows], self.ts[rows], self.ids[rows])
