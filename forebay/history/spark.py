"""A training set on Spark: the buckets of `forebay.history.bucketed`, answered by as many machines as there are.

    spine (driver)  →  shard, rows   ─┐
    files (tasks)   →  shard, rows   ─┴→  shuffle by shard  →  applyInArrow: answers  →  files by range  →  driver

Spark hands out files and shuffles; tasks read the files of the Delta tables with Arrow, and answer a shard by the
functions that answer a bucket. Where the archive is in order by the hash of the entity, events are not shuffled: the
task of a shard reads its row groups itself. Rows travel as Arrow streams in one binary column, so no type is translated
and no bit changes on the way (ADR 0111). The driver reads the spine, as beyond memory, and writes the result in its
order.

May live here: what tasks are given and give back. Invariant: what a shard is, is said by `forebay.core.identity` alone.
The workers need Forebay, the `AWS_*` variables where the store is on S3, and the scratch folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from forebay.calls.keyed import Keyed
from forebay.core.identity import buckets_of, entity_keys
from forebay.core.values import FeatureColumn
from forebay.errors import ConfigError
from forebay.history.answers import table_of
from forebay.history.buckets import KEY, ROW, SPINE_SCHEMA, SpineBuckets
from forebay.history.java import check_java
from forebay.history.rows_asked import RowsAsked
from forebay.history.stored_buckets import Stored, answer_shard
from forebay.language.view import AnyView
from forebay.offline.clustering import Clustering
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.row_groups import Names, read_row_groups

SPINE = -1
SHARDS_SCHEMA = "shard int, part int, place long, data binary"
RESULT_SCHEMA = "place long, data binary"
FILES_PER_TASK = 4


@dataclass(frozen=True)
class Cut:
    """What a task reads: columns of the rows of a Delta table that meet `where`, in the files that it is given."""

    url: str
    path: str
    entity_view: AnyView
    columns: tuple[str, ...]
    schema: pa.Schema
    where: pc.Expression
    shards: int
    part: int
    names: Names

    def __call__(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of some files, by shard; a row's place is that of its file and its piece."""
        for batch in batches:
            for number, file in zip(batch["number"].to_pylist(), batch["file"].to_pylist(), strict=True):
                for piece, (rows, shard) in enumerate(self._read([file], self.where)):
                    yield _by_shard(rows, shard, self.part, (number << 32) + piece)

    def of_shard(self, shard: int, files: Sequence[str]) -> list[pa.Table]:
        """The rows of one shard, out of the files that may have some."""
        by = Clustering(tuple(self.entity_view.entity.keys))
        where = self.where
        if by.column in self.schema.names:
            where = where & by.shard(shard, self.shards).where
        found = self._read(files, where) if files else ()
        return [rows.filter(pa.array(shards == shard)) for rows, shards in found]

    def _read(self, files: Sequence[str], where: pc.Expression) -> Iterator[tuple[pa.Table, Any]]:
        """The rows of files, row group by row group, and the shard of each; −1: of no entity."""
        there = Location.of(self.url, os.environ).files(self.path)
        dataset = ds.dataset(list(files), self.schema, format="parquet", filesystem=there)
        for rows in read_row_groups(dataset, list(self.columns), where, self.names):
            keys = entity_keys(self.entity_view.entity, {k: rows[k] for k in self.entity_view.entity.keys})
            yield rows, np.where(np.asarray(keys.is_valid()), buckets_of(keys, self.shards), -1)


@dataclass(frozen=True)
class Lying:
    """Rows that each shard reads where they lie, and the files of each."""

    cut: Cut
    files: tuple[tuple[str, ...], ...]

    def of_shard(self, shard: int) -> list[pa.Table]:
        """The rows of one shard."""
        return self.cut.of_shard(shard, self.files[shard])


@dataclass(frozen=True)
class Shard:
    """What a task does with a shard: its rows of the spine are answered out of its stored rows."""

    view: AnyView
    names: tuple[str, ...]
    stored: Stored
    range_rows: int
    with_statuses: bool
    lying: Lying | None = None

    def __call__(self, parts: pa.Table) -> pa.Table:
        """The answers, by range of rows."""
        parts = parts.sort_by([("part", "ascending"), ("place", "ascending")])
        found: dict[int, list[pa.Table]] = {}
        for part, data in zip(parts["part"].to_pylist(), parts["data"].to_pylist(), strict=True):
            found.setdefault(part, []).append(pa.ipc.open_stream(data).read_all())
        if SPINE not in found:
            return pa.table({"place": pa.array([], pa.int64()), "data": pa.array([], pa.binary())})
        if self.lying is not None:
            found[self.lying.cut.part] = self.lying.of_shard(parts["shard"][0].as_py())
        spine = pa.concat_tables(found.pop(SPINE))
        rows, us = np.asarray(spine[ROW]), np.asarray(spine["instant_us"])
        coded = spine[KEY].combine_chunks().dictionary_encode()
        keyed = Keyed(coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(-1)).astype(np.int64))
        if len(keyed.keys):
            answer = partial(answer_shard, self.view, self.stored, found, names=self.names)
            columns = RowsAsked.of(keyed, us).answered(answer)
        else:
            columns = [FeatureColumn.of_defaults(self.view.outputs()[name], len(rows)) for name in self.names]
        batch = _by_shard(table_of(rows, columns, self.with_statuses), rows // self.range_rows, 0, 0)
        return pa.table({"place": batch["shard"].cast(pa.int64()), "data": batch["data"]})


class SparkResults:
    """The answers to a view, by range of rows, as Spark's tasks wrote them."""

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self._folder, self._schema = folder, schema

    def read(self, number: int) -> pa.Table:
        """The answers of a range, in no particular order."""
        folder = self._folder / f"place={number}"
        files = sorted(folder.glob("*.parquet")) if folder.is_dir() else []
        blobs = [data for file in files for data in pq.read_table(file, columns=["data"])["data"].to_pylist()]
        tables = [pa.ipc.open_stream(data).read_all() for data in blobs]
        return pa.concat_tables([self._schema.empty_table(), *tables]).combine_chunks()


def answered_by_spark(
    session: Any, folder: Path, spine: SpineBuckets, shard: Shard, cuts: Sequence[tuple[Cut, LakeTable]]
) -> Path:
    """Answer a view on Spark; the folder with the answers."""
    rows = session.createDataFrame([], SHARDS_SCHEMA)
    for cut, table in cuts:
        files = list(enumerate(table.files_of(cut.where)))
        if files:
            tasks = session.createDataFrame(files, "number long, file string")
            tasks = tasks.repartition(max(1, -(-len(files) // FILES_PER_TASK)), "number")
            rows = rows.union(tasks.mapInArrow(cut, SHARDS_SCHEMA))
    asked = _spine_rows(folder, spine)
    rows = rows.union(session.read.parquet(str(asked)).selectExpr("int(shard)", "int(part)", "place", "data"))
    answers = rows.where("shard >= 0").groupBy("shard").applyInArrow(lambda parts: shard(parts), RESULT_SCHEMA)
    answers.repartition("place").write.partitionBy("place").parquet(str(folder / "answers"))
    return folder / "answers"


def spark_session(master: str) -> Any:
    """A Spark session. Raises `ConfigError` where PySpark is not there, or no Java that it runs on."""
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise ConfigError("engine='spark' needs PySpark: pip install 'forebay[spark]'") from None
    check_java()
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")  # else it listens on an address of the network
    builder: Any = SparkSession.builder
    session = builder.master(master).appName("forebay").config("spark.ui.enabled", "false").getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _spine_rows(folder: Path, spine: SpineBuckets) -> Path:
    """The spine's rows by shard, as a Parquet file that Spark reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "spine.parquet"
    empty = _by_shard(SPINE_SCHEMA.empty_table(), np.empty(0, np.int64), SPINE, 0)
    with pq.ParquetWriter(path, empty.schema) as writer:
        for number in range(spine.spill.files):
            for first, rows in spine.spill.file(number).pieces(SPINE_SCHEMA.names):
                writer.write_batch(_by_shard(rows, np.full(len(rows), number), SPINE, first))
    return path


def _by_shard(rows: pa.Table, shard: Any, part: int, place: int) -> pa.RecordBatch:
    """One row per shard: its rows as an Arrow stream."""
    order = np.argsort(shard, kind="stable")
    numbers, firsts = np.unique(shard[order], return_index=True)
    in_order = rows.take(pa.array(order)).combine_chunks()
    ends = [*firsts[1:].tolist(), len(order)]
    blobs = [_stream(in_order.slice(low, high - low)) for low, high in zip(firsts.tolist(), ends, strict=False)]
    return pa.record_batch(
        {
            "shard": pa.array(numbers, pa.int32()),
            "part": pa.array([part] * len(blobs), pa.int32()),
            "place": pa.array([place] * len(blobs), pa.int64()),
            "data": pa.array(blobs, pa.binary()),
        }
    )


def _stream(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())
