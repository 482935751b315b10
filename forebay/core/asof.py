"""Which row of a batch view holds at an instant, for many rows asked and any number of rows stored.

Of an entity's rows the one with the newest `event_timestamp` holds and, of equal ones, the one with the latest
`created_timestamp`, among those that count at T:

    as of      event_timestamp ≤ T, whenever it was created
    as known   event_timestamp ≤ T, created_timestamp ≤ T, and no later computation of its partition yet: T < superseded

What is stored may be larger than memory, so it isn't sorted: what is asked is. The rows asked are put in order of
(entity, instant); a stored row counts from the first of them on that its instant reaches, and only the best row that
begins to count there is remembered. In the end each takes the best of its own and of those before it in its entity:

    asked of one entity     T1      T2      T3      T4
    rows begin to count   a    b c      d                    remembered: a, the best of b and c, d, nothing
    holds                   a      c      d       d          (where each is better than those before)

A row that stops counting (it was superseded) counts for a stretch of what is asked, which is cut into at most
2·log2 blocks of 1, 2, 4, … places; these remember their best row in the same way.

Invariants: memory is that of what is asked; neither the order nor the pieces in which rows are offered decide anything.
Pure: nothing here opens or asks the time.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forebay.core.compiled import can_compile
from forebay.core.places import Places

Ints = npt.NDArray[np.int64]
NOBODY = -1
EARLIEST = -(2**63)
COMPILED_ROWS = 500_000
"""So many rows are offered by compiled code: the same rows hold (ADR 0157)."""


class Best:
    """The best row offered at each of some places: the newest, of equal ones that created last."""

    def __init__(self, places: int) -> None:
        self.event_us = np.full(places, EARLIEST, np.int64)
        self.created_us = np.full(places, EARLIEST, np.int64)
        self.row = np.full(places, NOBODY, np.int64)

    def offer(self, place: Ints, event_us: Ints, created_us: Ints, row: Ints) -> None:
        """Rows, each at a place. Of rows alike in both instants the one with the largest number is kept."""
        good = (event_us > self.event_us[place]) | (
            (event_us == self.event_us[place]) & (created_us >= self.created_us[place])
        )
        place, event_us, created_us, row = place[good], event_us[good], created_us[good], row[good]
        before = self.event_us[place]
        np.maximum.at(self.event_us, place, event_us)
        newer = self.event_us[place] > before
        self.created_us[place[newer]], self.row[place[newer]] = EARLIEST, NOBODY
        tied = event_us == self.event_us[place]
        place, created_us, row = place[tied], created_us[tied], row[tied]
        before = self.created_us[place]
        np.maximum.at(self.created_us, place, created_us)
        self.row[place[self.created_us[place] > before]] = NOBODY
        tied = created_us == self.created_us[place]
        np.maximum.at(self.row, place[tied], row[tied])

    def take(self, places: Ints | slice) -> Best:
        """The best rows of some places."""
        some = Best(0)
        some.event_us, some.created_us, some.row = self.event_us[places], self.created_us[places], self.row[places]
        return some

    def order(self) -> npt.NDArray[np.intp]:
        """The places from the worst row to the best; those that nobody has come first."""
        return np.lexsort((self.row, self.created_us, self.event_us))


class AsOf:
    """Rows asked, (entity, instant) each, and the best stored row for them. Entities are numbers; −1 asks for none."""

    def __init__(self, places: Places, rows: int = 0) -> None:
        """`rows` is about how many will be offered."""
        self._places = places
        self._best = Best(len(places) + 1)  # the last place is nobody's
        self._stretches = Best(0)
        self._compiled = rows >= COMPILED_ROWS and can_compile()

    def offer(self, code: Ints, from_us: Ints, event_us: Ints, created_us: Ints, row: Ints) -> None:
        """Stored rows, numbered as `row`, each of an entity (−1: of none asked) and counting from an instant on."""
        self.keep(self.sought(code, from_us), event_us, created_us, row)

    def sought(self, code: Ints, from_us: Ints) -> Ints:
        """Where stored rows begin to count, −1: for nobody. Any number of threads may ask."""
        places, found = self._places, np.full(len(code), NOBODY, np.int64)
        if self._compiled:
            from forebay.core import kernel  # numba takes a second to load

            kernel.seek(code, from_us, places.starts, places.ends, places.us, found)
            return found
        mine = places.asked(code)
        first = places.first(code[mine], from_us[mine])
        counts = first < places.ends[code[mine]]
        found[mine[counts]] = first[counts]
        return found

    def keep(self, sought: Ints, event_us: Ints, created_us: Ints, row: Ints) -> None:
        """Offer stored rows that were sought; one thread at a time."""
        if self._compiled:
            from forebay.core import kernel

            best = self._best
            kernel.keep(sought, event_us, created_us, row, best.event_us, best.created_us, best.row)
            return
        mine = np.flatnonzero(sought >= 0)
        self._best.offer(sought[mine], event_us[mine], created_us[mine], row[mine])

    def offer_until(
        self, code: Ints, from_us: Ints, until_us: Ints, event_us: Ints, created_us: Ints, row: Ints
    ) -> None:
        """As `offer`, of rows that stop counting at an instant."""
        mine = self._places.asked(code)
        low, high = (self._places.first(code[mine], us[mine]) for us in (from_us, until_us))
        size = 1 << max(len(self._places) - 1, 1).bit_length()
        low, high = low + size, high + size
        if not len(self._stretches.row):
            self._stretches = Best(2 * size)
        while len(mine):
            for side, node in ((low & 1 == 1, low), (high & 1 == 1, high - 1)):
                taken = np.flatnonzero(side & (low < high))
                rows = mine[taken]
                self._stretches.offer(node[taken], event_us[rows], created_us[rows], row[rows])
            low, high = (low + 1) >> 1, high >> 1
            left = low < high
            mine, low, high = mine[left], low[left], high[left]

    def holding(self) -> tuple[Ints, Ints]:
        """For each row asked, in the order given, the number and the `event_timestamp` of the stored row that holds.

        −1 where there is none.
        """
        best = self._carried()
        if len(self._stretches.row):
            best = _better(best, self._pushed_down())
        order = self._places.order
        rows, event_us = np.full(len(order), NOBODY, np.int64), np.full(len(order), EARLIEST, np.int64)
        rows[order], event_us[order] = best.row, best.event_us
        return rows, event_us

    def _carried(self) -> Best:
        """At each place the best row that began to count at it or before it, in its entity."""
        if self._compiled:
            from forebay.core import kernel

            best = self._best
            kernel.carry(self._places.starts, self._places.ends, best.event_us, best.created_us, best.row)
            return best.take(slice(-1))
        order = self._best.order()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        rank = rank[:-1] + (self._places.code + 1) * len(
            order
        )  # later entities outrank earlier ones: nothing is carried over
        held = np.maximum.accumulate(rank) % len(order)
        return self._best.take(order[held])

    def _pushed_down(self) -> Best:
        """At each place the best row of the blocks that it is in."""
        order = self._stretches.order()
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        first = 2
        while first < len(rank):
            nodes = np.arange(first, 2 * first)
            rank[nodes] = np.maximum(rank[nodes], rank[nodes >> 1])
            first *= 2
        size = len(rank) // 2
        return self._stretches.take(order[rank[size : size + len(self._places)]])


def _better(left: Best, right: Best) -> Best:
    """At each place the better row of two."""
    both = Best(len(left.row))
    places = np.arange(len(left.row))
    for one in (left, right):
        both.offer(places, one.event_us, one.created_us, one.row)
    return both
