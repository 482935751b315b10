"""Rows of several stretches that are gone through as one.

    stretch a   17 18 19        ┐ numbers    0  1  2  3  4      any step that keeps rows      0     2  3
    stretch b   40 41           ┘ for offsets                   in order, or drops some       ↓     ↓  ↓
                                                                                              17    19 40   of a, a, b

A call on columns takes as long for one row as for a hundred, and a reader finds a few events of each of many partitions
at once. So their rows are numbered through, the numbers stand where their offsets would, and whatever comes out is told
by them which stretch it is of and which offset it has. Lives here: the numbers, and what may go together.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from streaming.chunk import EVENTS_MAX

Ints = npt.NDArray[np.int64]
One = TypeVar("One")


@dataclass(frozen=True)
class Numbered:
    """The offset of each row of some stretches, one after another, and where these begin (and the last ends)."""

    offsets: Ints
    edges: Ints

    @staticmethod
    def of(stretches: Sequence[Ints]) -> Numbered:
        """The rows of stretches, each given by its offsets."""
        edges = np.cumsum([0, *map(len, stretches)])
        return Numbered(np.concatenate(stretches), edges)

    @property
    def rows(self) -> Ints:
        """The number of each."""
        return np.arange(len(self.offsets), dtype=np.int64)

    def spans(self, rows: Ints) -> list[slice]:
        """Where those of each stretch are among some rows, which ascend."""
        return [slice(first, end) for first, end in itertools.pairwise(np.searchsorted(rows, self.edges).tolist())]

    def place(self, row: int) -> tuple[int, int]:
        """The number of the stretch that a row is of, and its offset."""
        return int(np.searchsorted(self.edges, row, "right")) - 1, int(self.offsets[row])


def together(items: Iterable[One], alike: Callable[[One], Any], size: Callable[[One], int]) -> Iterator[list[One]]:
    """Items that follow one another and are alike, as many as fill a chunk; one that is like none (`None`) is alone."""
    held: list[One] = []
    of, held_size = None, 0
    for item in items:
        kind, more = alike(item), size(item)
        if held and (kind is None or kind != of or held_size + more > EVENTS_MAX):
            yield held
            held, held_size = [], 0
        held.append(item)
        of, held_size = kind, held_size + more
    if held:
        yield held
