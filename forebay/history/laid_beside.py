"""Features of the stored rows that hold, laid beside the rows that ask for them, as they are read.

    rows that ask, in order of the stored row that holds      numbers   order
    features of some of these stored rows, as they come   →   put       straight to where they are asked

Numbers and lists are put into columns of all rows that ask, by any number of threads, each its own stretch. Texts are
kept as Arrow has them, and laid in order at the end. May live here: that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.events import Column
from forebay.core.rows import stored
from forebay.language.types import FeatureType

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Put:
    """What is left to be done with a stretch: its texts, and which values are there, where not all are."""

    part: slice
    texts: dict[str, pa.Array]
    valid: dict[str, Mask]


class LaidBeside:
    """Columns of the rows that ask, each of a stored row by its number, or of none (negative).

    `numbers` are those of the stored rows that hold, as often as they are asked for, and ascend.
    """

    def __init__(self, rows: Ints, kinds: Mapping[str, FeatureType], texts: Sequence[str]) -> None:
        order = np.argsort(rows)
        self._order = order[np.searchsorted(rows[order], 0) :] if len(order) else order
        self.numbers = rows[self._order]
        self._found, self._kinds, self._texts = rows >= 0, kinds, texts
        self._values = {name: np.zeros(len(rows), kind.storage) for name, kind in kinds.items()}

    def put(self, part: slice, rows: pa.Table, after: int = 0) -> Put:
        """Put the features of the stored rows `numbers[part]`, counted from `after` on."""
        part = slice(part.start + after, part.stop + after)
        places, valid = self._order[part], {}
        for name, kind in self._kinds.items():
            column = stored(rows[name], kind)
            self._values[name][places] = column.values
            if not column.is_whole:
                valid[name] = column.valid
        return Put(part, {name: rows[name].combine_chunks() for name in self._texts}, valid)

    def columns(self, parts: Sequence[Put]) -> dict[str, Column]:
        """The columns of values, of all that was put."""
        return {name: Column(values, self._valid(name, parts)) for name, values in self._values.items()}

    def text(self, parts: Sequence[Put], name: str) -> pa.Array:
        """A column of text, of all that was put."""
        places = np.empty(len(self._found), np.int64)
        places[self._order] = np.arange(len(self._order))
        texts = pa.chunked_array([part.texts[name] for part in parts], pa.string()).combine_chunks()
        return texts.take(pa.array(places, mask=~self._found))

    def _valid(self, name: str, parts: Sequence[Put]) -> Mask:
        lacking = [part for part in parts if name in part.valid]
        if not lacking:
            return np.broadcast_to(np.True_, len(self._found)) if self._found.all() else self._found
        valid = self._found.copy()
        for one in lacking:
            valid[self._order[one.part]] = one.valid[name]
        return valid
