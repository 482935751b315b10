"""How the slots of a writer are divided into shares: those whose keys one transaction writes.

    one server    a small commit   ┌─────── all slots ───────┐      a large one   ┌ lane 0 ┐ ┌ lane 1 ┐ … ┌ lane 7 ┐
    cluster                        ┌ slot 0 ┐ ┌ slot 1 ┐ …

Lives here: which row of a column goes to which share. Shares are numbered from 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Division:
    """Some shares, each of some slots."""

    def __init__(self, shares: Sequence[tuple[int, ...]]) -> None:
        self.shares = list(shares)
        self._places = np.zeros(1 + max((slot for share in shares for slot in share), default=0), np.int64)
        for place, share in enumerate(shares):
            self._places[list(share)] = place

    def place(self, slot: int) -> int:
        """The share of a slot."""
        return int(self._places[slot])

    def order(self, slots: Ints) -> Ints | None:
        """How rows of these slots are to be ordered for `spans`; `None`: as they are."""
        return np.argsort(self._places[slots], kind="stable") if len(self.shares) > 1 else None

    def spans(self, slots: Ints) -> list[tuple[int, slice]]:
        """Which rows, whose slots are in that order, belong to which share; none is without rows."""
        if not len(slots):
            return []
        if len(self.shares) == 1:
            return [(0, slice(0, len(slots)))]
        places = self._places[slots]
        starts = np.flatnonzero(np.diff(places, prepend=-1))
        ends = [*starts[1:].tolist(), len(places)]
        return [(int(places[first]), slice(int(first), last)) for first, last in zip(starts, ends, strict=True)]
