"""The order of the rows of a date: by a hash of their entity, so that a shard of entities lies together.

    hash        0 ──────────────────────────────────────────── 2^32
    shards      [    0    )[    1    )[    2    )[    3    )          buckets of forebay.core.identity
    row groups  [──)[───)[──)[──)[───)[──)[──)[───)[──)[──)           each with its least and greatest hash

A date that was put in order has the hash in a column of its own, `__hash_of_<key columns>`; rows that came in
since, and dates that never were, have a null there and are read by everybody. What the column means is in its name: an
archive whose dates were put in order for one entity and later for another one answers look-ups of both.

May live here: what the order is, and which row groups can be left out. Invariant: the hash is that of
`forebay.core.identity`, of which slots, buckets and Spark's shards are cut.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as fs
from deltalake import DeltaTable

from forebay.core.identity import bucket_edges, crc32_of, key_texts

HASH_OF = "__hash_of_"
"""Columns that begin so are the order's; two underscores are in no name that is declared."""
CLUSTERED = "clustered/"
"""Positions of upkeep, one for each date that was put in order (`Clustering.mark`); not handed out as positions."""
MARK_BITS = 20


@dataclass(frozen=True)
class Hashes:
    """The rows that may have some hashes: a condition, and the column it needs (without it, any row may)."""

    column: str
    where: pc.Expression


@dataclass(frozen=True)
class Clustering:
    """An order by entity: first by some columns, then by the hash of key columns, these, and some more."""

    keys: tuple[str, ...]
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The column with the hash."""
        return HASH_OF + "__".join(self.keys)

    def mark(self, rows: int) -> int:
        """What a table remembers of a date: how many rows are in order, and in which."""
        order = ",".join([*self.first, self.column, *self.last])
        return (rows << MARK_BITS) + (zlib.crc32(order.encode()) >> 32 - MARK_BITS)

    def in_order(self, rows: pa.Table) -> pa.Table:
        """The rows in order, with the hash."""
        rows = rows.drop_columns([name for name in rows.column_names if name.startswith(HASH_OF)])
        rows = rows.append_column(self.column, pa.array(self.hashes(rows), pa.int64()))
        order = [*self.first, self.column, *self.keys, *self.last]
        return rows.sort_by([(name, "ascending") for name in order])

    def hashes(self, rows: pa.Table) -> Any:
        """The hash of each row's entity (uint32), 0 where a key is null."""
        found = [crc32_of(key_texts([batch[name] for name in self.keys])) for batch in rows.to_batches()]
        return np.concatenate([np.empty(0, np.uint32), *found])

    def of(self, entities: Mapping[str, pa.Array | pa.ChunkedArray]) -> Hashes:
        """The rows that may be of some entities, given by their key columns."""
        hashes = crc32_of(key_texts([entities[name] for name in self.keys]))
        return self._where(pc.field(self.column).isin(pa.array(hashes, pa.int64())))

    def shard(self, number: int, count: int) -> Hashes:
        """The rows that may be in one of `count` buckets."""
        low, high = bucket_edges(number, count)
        hashes = pc.field(self.column)
        return self._where((hashes >= pa.scalar(low, pa.int64())) & (hashes < pa.scalar(high, pa.int64())))

    def _where(self, condition: pc.Expression) -> Hashes:
        return Hashes(self.column, condition | pc.field(self.column).is_null())


def dataset_of(snapshot: DeltaTable, pruning: str | None = None) -> Any:
    """The rows of a version.

    Of the order's columns only the footers of files say something: deltalake would take a file without statistics of a
    column for one without any row, where other files have them.
    """
    schema = pa.schema(snapshot.schema())
    plain = pa.schema([field_ for field_ in schema if not field_.name.startswith(HASH_OF)])
    files = _files_here(snapshot)
    dataset = snapshot.to_pyarrow_dataset(file_pruning_predicate=pruning, schema=plain, filesystem=files)
    return dataset.replace_schema(schema) if len(plain) < len(schema) else dataset


def _files_here(snapshot: DeltaTable) -> fs.FileSystem | None:
    """The files of a table that is a folder, as Arrow opens them itself; `None` where they are elsewhere.

    Deltalake's own are opened by Python, and read by a thread of theirs: whoever reads them holds the GIL and waits.
    """
    if not snapshot.table_uri.startswith("file:"):
        return None
    files, folder = fs.FileSystem.from_uri(snapshot.table_uri)
    return fs.SubTreeFileSystem(folder, files)


def near(dataset: Any, where: pc.Expression | None, hashes: Hashes | None) -> pc.Expression | None:
    """Both conditions, as far as the rows have the column of the second."""
    if hashes is None or dataset is None or hashes.column not in dataset.schema.names:
        return where
    return hashes.where if where is None else where & hashes.where
