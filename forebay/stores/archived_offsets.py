"""Which offsets of a partition the archive holds, as runs of consecutive ones.

The archive decides what was an event: an offset below its position is one iff the archive holds it. What was refused
or dropped there (a dead letter, a duplicate, an event dated ahead of the clock of that day) stays so for whoever reads
the log again. Runs, because a log has few gaps: a long replay costs some bytes for each of them and not for each
event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ArchivedOffsets:
    """Disjoint runs `[first, end)` of offsets, ascending."""

    firsts: Ints
    ends: Ints

    @classmethod
    def of(cls, parts: Iterable[Ints]) -> ArchivedOffsets:
        """The runs of some arrays of offsets; no order is expected, and an offset may be there twice."""
        runs = [_runs(part) for part in parts if len(part)]
        if not runs:
            return NONE
        firsts, ends = (np.concatenate(edges) for edges in zip(*runs, strict=True))
        order = np.argsort(firsts, kind="stable")
        firsts, ends = firsts[order], np.maximum.accumulate(ends[order])
        begins = np.concatenate((np.ones(1, np.bool_), firsts[1:] > ends[:-1]))
        return cls(firsts[begins], ends[np.append(np.flatnonzero(begins)[1:] - 1, len(ends) - 1)])

    def hold(self, offsets: Ints) -> npt.NDArray[np.bool_]:
        """Whether each offset is among them."""
        if not len(self.firsts):
            return np.zeros(len(offsets), np.bool_)
        run = np.searchsorted(self.firsts, offsets, side="right") - 1
        return (run >= 0) & (offsets < self.ends[run])


NONE = ArchivedOffsets(np.empty(0, np.int64), np.empty(0, np.int64))
"""Nothing is archived."""


def _runs(offsets: Ints) -> tuple[Ints, Ints]:
    offsets = np.unique(offsets)
    breaks = np.flatnonzero(np.diff(offsets) != 1) + 1
    firsts = np.concatenate((np.zeros(1, np.int64), breaks))
    lasts = np.append(breaks, len(offsets)) - 1
    return offsets[firsts], offsets[lasts] + 1
