"""The commands of a commit for pending blobs: of many at once by Arrow's kernels, of a few one by one.

A kernel takes as long to be called for one row as for a hundred. A flow that catches up writes thousands of keys at
once; one that keeps up some tens, hundreds of times a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.online.keys import PENDING, Keys
from forebay.online.resp import Commands, append_commands, expire_commands, packed
from forebay.online.wire import Part, pack

FEW = 64
"""Up to so many rows are packed one by one."""

Ints = npt.NDArray[np.int64]


class Appends:
    """What is done to the pending blobs of some entities of a view, in their order."""

    def __init__(self, keys: Keys, view: str, entities: Sequence[str], slots: Ints) -> None:
        self._names = keys.many(view, entities, slots.tolist(), PENDING) if len(entities) <= FEW else []
        self._heads, self._entities, self._tail = pa.array([], pa.string()), pa.array([], pa.string()), ""
        if not self._names:
            heads, self._tail = keys.parts(view, PENDING)
            self._heads, self._entities = pa.array(heads, pa.string()).take(pa.array(slots)), pa.array(entities)

    def append(self, bodies: pa.Array) -> Commands:
        """An APPEND to each of them."""
        if self._names:
            return _packed(zip(("APPEND",) * len(bodies), self._names, bodies.to_pylist(), strict=True))
        return append_commands(self._heads, self._entities, self._tail, bodies)

    def expire(self, rows: npt.NDArray[np.intp], seconds: Ints) -> Commands:
        """An EXPIRE of each of some rows."""
        if self._names:
            names = [self._names[row] for row in rows.tolist()]
            return _packed(zip(("EXPIRE",) * len(names), names, seconds.tolist(), strict=True))
        chosen = pa.array(rows)
        return expire_commands(self._heads.take(chosen), self._entities.take(chosen), self._tail, seconds)


def _packed(commands: Iterable[tuple[Part, ...]]) -> Commands:
    return packed([pack(command) for command in commands])
