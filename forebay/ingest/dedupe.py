"""Duplicates: events that an earlier offset of the same partition held already, as a function of the log alone.

An event is a duplicate iff an earlier event of its partition has the same (event_id, ts) and its ts is not older than
`newest − dedupe`, where `newest` is the newest event before it in the partition.

    offset     0       1       2       3       4       5       6
    event    a 10:00 b 10:04 a 10:00 c 10:11 b 10:04 a 10:00 a 10:11        dedupe="10m"
    newest     –     10:00   10:04   10:04   10:11   10:11   10:11          (of the events before)
    dropped                    ×               ×     beyond  another ts

Whatever is older than the horizon `newest − dedupe` can be forgotten: it will never be looked at again, because
`newest` does not fall. So what is remembered of a partition are the (ts, id) of its horizon, in one open-addressing
table for each tenth of it: the exact ts and 64 bits of a keyed hash of the id (Python's own, another key in each
process), 12 bytes an event at a load of 0.4 to 0.7. Two different events of one ts meet in 64 bits about once in 10^15
events of a stream that writes 20,000 a second with whole seconds.

Lives here: the judgement and its memory. Invariants: how a log is cut into batches decides nothing; an event that is
not remembered is never judged a duplicate; a table is dropped only when all of it is behind the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

INT64_MIN = -(2**63)
TABLES = 10
"""Tables of one horizon: a tenth of what is remembered has left the horizon, at most."""
WIDTH_MAX_US = 3_600_000_000
"""Of one table: an instant within it fits 32 bits."""
CAPACITY_MIN = 64
LOAD_MAX = 0.7
"""Fuller tables probe for long, emptier ones waste memory."""
GROWTH = 1.7
_MIX = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)


@dataclass
class Dedupe:
    """What one partition remembers. Batches come in the order of their offsets."""

    horizon_us: int
    newest_us: int = INT64_MIN
    _tables: dict[int, _Table] = field(default_factory=dict)

    def __call__(self, ts: Ints, ids: pa.ChunkedArray | pa.Array) -> Mask:
        """Which events of the next batch are duplicates."""
        if not len(ts):
            return np.zeros(0, np.bool_)
        before = np.maximum.accumulate(np.concatenate((np.array([self.newest_us], np.int64), ts)))
        within = ts >= _earlier(before[:-1], self.horizon_us)
        self.newest_us = int(before[-1])
        hashes = _hashes(ids)
        order = np.lexsort((hashes, ts))
        first = np.ones(len(ts), np.bool_)
        sorted_ts, sorted_hashes = ts[order], hashes[order]
        first[1:] = (sorted_ts[1:] != sorted_ts[:-1]) | (sorted_hashes[1:] != sorted_hashes[:-1])
        repeated = np.zeros(len(ts), np.bool_)
        repeated[order[~first]] = True
        distinct = order[first]
        repeated[distinct] = self._remember(ts[distinct], hashes[distinct])
        return repeated & within

    @property
    def remembered(self) -> int:
        """Events in memory."""
        return sum(table.count for table in self._tables.values())

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(table.nbytes for table in self._tables.values())

    def _remember(self, ts: Ints, hashes: Words) -> Mask:
        """Which of some distinct events, ascending by ts, were known; the others are from now on, if it is of use."""
        width_us = min(max(self.horizon_us // TABLES, 1), WIDTH_MAX_US)
        oldest = max(self.newest_us - self.horizon_us, INT64_MIN) // width_us
        table_of, instants = ts // width_us, (ts % width_us).astype(np.uint32)
        known = np.zeros(len(ts), np.bool_)
        edges = np.concatenate((np.zeros(1, np.int64), np.flatnonzero(table_of[1:] != table_of[:-1]) + 1))
        use = (table_of[edges] >= oldest) | np.isin(table_of[edges], list(self._tables))
        ends = np.append(edges[1:], len(ts))
        for low, high in zip(edges[use].tolist(), ends[use].tolist(), strict=True):
            number = int(table_of[low])
            known[low:high] = self._table(number).add(hashes[low:high], instants[low:high])
        for number in [number for number in self._tables if number < oldest]:
            del self._tables[number]
        return known

    def _table(self, number: int) -> _Table:
        """A table, as large as the fullest so far when it is new: no growing in a steady stream."""
        if number not in self._tables:
            fullest = max((table.count for table in self._tables.values()), default=0)
            self._tables[number] = _Table(int(fullest / LOAD_MAX * 1.1))
        return self._tables[number]


class _Table:
    """A set of (hash, instant), linear probing from a mixed place; hash 0 marks a free place."""

    def __init__(self, capacity: int) -> None:
        self.count = 0
        self._allocate(capacity)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self._hashes.nbytes + self._instants.nbytes

    def add(self, hashes: Words, instants: npt.NDArray[np.uint32]) -> Mask:
        """Which of some distinct pairs were in it; all are afterwards."""
        if self.count + len(hashes) > LOAD_MAX * len(self._hashes):
            self._grow(self.count + len(hashes))
        known = np.zeros(len(hashes), np.bool_)
        waiting = np.arange(len(hashes))
        at = self._home(hashes, instants)
        while len(waiting):
            there = self._hashes[at]
            same = (there == hashes[waiting]) & (self._instants[at] == instants[waiting])
            known[waiting[same]] = True
            free = np.flatnonzero(there == 0)
            places, one = np.unique(at[free], return_index=True)  # of several that found the same place, one takes it
            took = free[one]
            self._hashes[places], self._instants[places] = hashes[waiting[took]], instants[waiting[took]]
            self.count += len(places)
            left = ~same
            left[took] = False
            passed = left & (there != 0)
            at[passed] += 1
            at[at == len(self._hashes)] = 0
            waiting, at = waiting[left], at[left]
        return known

    def _home(self, hashes: Words, instants: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
        mixed = (hashes ^ (instants.astype(np.uint64) * _MIX)) * _MIX
        return (((mixed >> _HALF) * np.uint64(len(self._hashes))) >> _HALF).astype(np.int64)

    def _grow(self, count: int) -> None:
        used = np.flatnonzero(self._hashes)
        hashes, instants = self._hashes[used], self._instants[used]
        self._allocate(int(max(count, self.count * GROWTH) / LOAD_MAX) + 1)
        self.count = 0
        self.add(hashes, instants)

    def _allocate(self, capacity: int) -> None:
        self._hashes = np.zeros(max(capacity, CAPACITY_MIN), np.uint64)
        self._instants = np.zeros(max(capacity, CAPACITY_MIN), np.uint32)


def _hashes(ids: pa.ChunkedArray | pa.Array) -> Words:
    """A hash of each id, none 0."""
    found = np.fromiter(map(hash, ids.to_pylist()), np.int64, len(ids)).view(np.uint64)
    found[found == 0] = 1
    return found


def _earlier(instants: Ints, by_us: int) -> Ints:
    """Instants less a duration, INT64_MIN where there is no such instant."""
    return np.where(instants < INT64_MIN + by_us, INT64_MIN, instants - by_us)
