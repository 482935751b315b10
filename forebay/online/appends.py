"""The commands of a commit for pending blobs: of many at once by Arrow's kernels, of a few one by one.

A kernel takes as long to be called for one row as for a hundred, and ten times as long where others were called since.
A flow that catches up writes thousands of keys at once; one that keeps up some tens, hundreds of times a second.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.online.keys import PENDING, Keys
from forebay.online.resp import Commands, append_commands, expire_commands, packed
from forebay.online.wire import Part, pack

FEW = 256
"""Up to so many rows are packed one by one."""

Ints = npt.NDArray[np.int64]


class Appends:
    """What is done to the pending blobs of some entities of a view, in their order."""

    def __init__(self, keys: Keys, view: str, entities: pa.StringArray, slots: Ints) -> None:
        self._keys, self._view, self._entities, self._slots = keys, view, entities, slots
        few = entities.to_pylist() if len(entities) <= FEW else []
        self._names = keys.many(view, few, slots.tolist()[: len(few)], PENDING)

    def append(self, bodies: pa.Array) -> Commands:
        """An APPEND to each of them."""
        if self._names:
            return _packed(zip(("APPEND",) * len(bodies), self._names, bodies.to_pylist(), strict=True))
        return append_commands(*self._columns, bodies)

    def expire(self, rows: npt.NDArray[np.intp], seconds: Ints) -> Commands:
        """An EXPIRE of each of some rows."""
        if self._names:
            names = [self._names[row] for row in rows.tolist()]
            return _packed(zip(("EXPIRE",) * len(names), names, seconds.tolist(), strict=True))
        (heads, entities, tail), chosen = self._columns, pa.array(rows)
        return expire_commands(heads.take(chosen), entities.take(chosen), tail, seconds)

    @functools.cached_property
    def _columns(self) -> tuple[pa.Array, pa.Array, str]:
        """What stands before each entity in its name, the entities, and what stands behind them."""
        heads, tail = self._keys.parts(self._view, PENDING)
        return pa.array(heads).take(pa.array(self._slots)), self._entities, tail


def _packed(commands: Iterable[tuple[Part, ...]]) -> Commands:
    return packed([pack(command) for command in commands])
