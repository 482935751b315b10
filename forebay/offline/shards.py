"""The rows of a table by shard of entities, read where they lie: nothing is copied, each shard reads its row groups.

    date in order       [0 0 0 1][1 1 2 2][2 2 3 3]      shard 1 reads two row groups of three
    date in no order    [2 0 3 1][0 1 2 3]               every shard reads all of it

That pays where most dates are in order and have more row groups than there are shards; elsewhere whoever needs all
shards copies the rows once, by shard (`forebay.offline.spill`).

Invariants: a shard has the rows of its entities, whether or not they lie in order; its rows come in the order of the
files. Another thread may put dates in order meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.identity import cut
from forebay.offline.clustering import Clustering
from forebay.offline.lake_table import CLUSTERED_GROUP_ROWS, LakeTable
from forebay.offline.stored_table import between_dates

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shards:
    """The rows of a table that meet a condition, of the dates from one to another, in `count` shards of entities."""

    table: LakeTable
    by: Clustering
    where: pc.Expression
    first_date: str
    last_date: str
    count: int
    piece_rows: int

    @property
    def rows(self) -> Ints:
        """About how many rows each shard has."""
        return np.full(self.count, sum(self._rows_by_date().values()) // self.count)

    def times_read(self) -> float:
        """How often a row group is read, on average, when every shard is read once."""
        dates = self._rows_by_date()
        loose = self.table.unordered(self.by) if dates else {}
        groups = {date: -(-rows // CLUSTERED_GROUP_ROWS) for date, rows in dates.items()}
        every = {date: count * self.count for date, count in groups.items()}
        once = {date: min(count + self.count - 1, every[date]) for date, count in groups.items()}
        reads = sum(every[date] if date in loose else once[date] for date in dates)
        return reads / max(sum(groups.values()), 1)

    def file(self, number: int) -> ShardRows:
        """The rows of one shard."""
        return ShardRows(self, number)

    def pieces(self, number: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Columns of the rows of one shard, row group by row group."""
        names = list(dict.fromkeys([*columns, *self.by.keys]))
        dates, hashes = between_dates(self.first_date, self.last_date), self.by.shard(number, self.count)
        for rows in self.table.reading(names, self.where, dates, hashes).row_groups():
            mine = cut(self.by.hashes(rows), self.count) == number
            yield (rows if mine.all() else rows.filter(pa.array(mine))).select(list(columns))

    def files(self) -> list[list[str]]:
        """The files of each shard, by their paths in the table."""
        dates = between_dates(self.first_date, self.last_date)
        hashes = [self.by.shard(number, self.count) for number in range(self.count)]
        return self.table.files_with(hashes, self.where, dates)

    def _rows_by_date(self) -> dict[str, int]:
        rows = self.table.rows_by_date().items()
        return {date: count for date, count in rows if self.first_date <= date <= self.last_date}


class ShardRows:
    """The rows of one shard; each look at them reads them again."""

    def __init__(self, shards: Shards, number: int) -> None:
        self._shards, self._number = shards, number
        self.rows = int(shards.rows[number])

    def pieces(self, columns: Sequence[str]) -> Iterator[tuple[int, pa.Table]]:
        """Columns of all rows, each piece with the number of its first row."""
        held: list[pa.Table] = []
        number = count = 0
        for rows in self._shards.pieces(self._number, columns):
            held.append(rows)
            count += len(rows)
            if count >= self._shards.piece_rows:
                yield number, pa.concat_tables(held)
                number, count, held = number + count, 0, []
        if held:
            yield number, pa.concat_tables(held)

    def nothing(self, columns: Sequence[str]) -> pa.Table:
        """No rows, with some columns."""
        return self._shards.table.schema.empty_table().select(list(columns))
