"""What a batch view's function may see: its sources, cut off at the instant it is computed for.

    rows of a source, by the instant from which they are effective
    ────●──●───────●●──●───────●──→
        [  reach  …    end)              a relation holds rows in [end − reach, end), or all before end

The rows are sorted once; each partition's relation is a slice of them. A function that asks through its relations
cannot see the future, because it is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.backfill.partitions import Partition
from forebay.instants import moment

if TYPE_CHECKING:
    from datetime import datetime

    import duckdb

THREADED_ROWS = 500_000
"""Below this a query takes a millisecond or two, and handing it to other threads takes as long again."""
_INSTANT = re.compile(r"\{(start|end)\}")


@dataclass(frozen=True, eq=False)
class SourceRows:
    """The rows of one source, sorted by the instant from which each is effective."""

    name: str
    table: pa.Table
    effective_us: npt.NDArray[np.int64]

    @classmethod
    def of(cls, name: str, table: pa.Table, effective: str) -> SourceRows:
        """Rows in any order."""
        instants = np.asarray(table[effective].cast(pa.int64()))
        if (np.diff(instants) < 0).any():
            order = np.argsort(instants, kind="stable")
            table, instants = table.take(pa.array(order)), instants[order]
        return cls(name, table.combine_chunks(), instants)

    def before(self, end_us: int, reach_us: int | None) -> pa.Table:
        """The rows effective in `[end − reach, end)`; without a reach, all before the end."""
        first = 0 if reach_us is None else int(np.searchsorted(self.effective_us, end_us - reach_us))
        last = int(np.searchsorted(self.effective_us, end_us))
        return self.table.slice(first, last - first)


class BatchContext:
    """What a batch view's function is given first: SQL over its relations, and the instants of its partition."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, partition: Partition) -> None:
        self._connection = connection
        self._partition = partition

    @property
    def start(self) -> datetime:
        """Where the partition starts."""
        return moment(self._partition.start_us)

    @property
    def end(self) -> datetime:
        """The instant it is computed for: nothing at or after it is known."""
        return moment(self._partition.end_us)

    def sql(self, text: str) -> duckdb.DuckDBPyRelation:
        """A DuckDB relation of a query over the sources by name; `{start}` and `{end}` become TIMESTAMPTZ values."""
        instants = {"start": self._partition.start_us, "end": self._partition.end_us}
        return self._connection.sql(_INSTANT.sub(lambda match: f"make_timestamptz({instants[match[1]]})", text))


class Relations:
    """One DuckDB connection on which the relations of partition after partition are put in place."""

    def __init__(self, sources: Mapping[str, SourceRows], reach_us: int | None) -> None:
        from forebay.offline.table_source import connect

        self._sources = sources
        self._reach_us = reach_us
        self._connection = connect()
        if max((rows.table.num_rows for rows in sources.values()), default=0) < THREADED_ROWS:
            self._connection.execute("SET threads = 1")

    def at(self, partition: Partition) -> tuple[BatchContext, dict[str, Any]]:
        """The context and the relation of each source as of the partition's end; the previous ones are void then."""
        relations = {}
        for name, rows in self._sources.items():
            self._connection.register(name, rows.before(partition.end_us, self._reach_us))
            relations[name] = self._connection.view(name)
        return BatchContext(self._connection, partition), relations

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()
