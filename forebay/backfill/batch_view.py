"""Compute a batch view's partitions: sources as of each partition's end → its function → checked rows → one commit.

    partition   2013-05-01-07:00   start 07:00   {end} = 08:00, or the last refresh tick while it is not over
    relations   rows effective before {end}; with a reach, not before {end} − reach
    result      one row per entity and event_timestamp ≤ {end}, created now

A backfill of a past partition and the refresh that would have computed it then differ in `created_timestamp` only. A
range is one commit: either all of its partitions are replaced or none.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from forebay.backfill.partitions import GRAINS_US, Partition, partitions_between
from forebay.backfill.relations import Relations, SourceRows
from forebay.backfill.results import Rows, check_results, read_result
from forebay.errors import DefinitionError, ForebayError
from forebay.instants import DAY_US
from forebay.language.source import EventSource
from forebay.language.view import BatchView
from forebay.offline.table_source import read_table_source
from forebay.offline.tables import OfflineStore

EVENTS_SPAN_US = 31 * DAY_US
"""Events held at once where a reach says how far back they matter: a month of partitions."""


@dataclass(frozen=True)
class Computed:
    """What a computation wrote."""

    partitions: int
    rows: int
    entities: int
    rows_without_key: int
    bytes: int
    seconds: float


def compute_batch_view(
    store: OfflineStore,
    view: BatchView,
    start_us: int,
    end_us: int,
    *,
    home: Path,
    now_us: int,
    tick_us: int | None = None,
) -> Computed:
    """Compute the partitions of a view in `[start, end)` and replace their rows in one commit.

    `tick_us` is the last tick of the view's refresh schedule (now, if there is none); a partition that is not over
    yet is computed as of it. `home` is where `${FOREBAY_HOME}` in a source's path points. Raises `DefinitionError`
    where the function does not return what the view declares; then nothing is written.
    """
    began = time.perf_counter()
    if view.compute is None:
        raise DefinitionError(
            f"View {view.key!r} has no function here: it was read from a manifest. Compute it where its module is "
            "importable "
            "(FOREBAY_DEFINITIONS)"
        )
    partitions = partitions_between(
        view, start_us, end_us, tick_us=now_us if tick_us is None else tick_us, now_us=now_us
    )
    if not partitions:
        return Computed(0, 0, 0, 0, 0, time.perf_counter() - began)
    results = list(_results(store, view, partitions, home))
    rows = check_results(view, partitions, results, now_us)
    _write(store, view, partitions, rows, end_us, now_us)
    seconds = time.perf_counter() - began
    return Computed(len(partitions), rows.table.num_rows, rows.entities, rows.without_key, rows.table.nbytes, seconds)


def _results(store: OfflineStore, view: BatchView, partitions: Sequence[Partition], home: Path) -> Iterator[pa.Table]:
    tables = {
        source.name: SourceRows.of(source.name, read_table_source(source, home), source.effective)
        for source in view.sources
        if not isinstance(source, EventSource)
    }
    for chunk in _chunks(view, partitions):
        relations = Relations(tables | _events(store, view, chunk), view.reach_us)
        try:
            for partition in chunk:
                yield _compute(view, partition, relations)
        finally:
            relations.close()


def _chunks(view: BatchView, partitions: Sequence[Partition]) -> Iterator[Sequence[Partition]]:
    """Runs of partitions whose events are held together; without a reach each needs all before it, so there is one."""
    grain_us = GRAINS_US.get(view.partitions)
    if grain_us is None or view.reach_us is None:
        yield partitions
        return
    size = max(1, EVENTS_SPAN_US // grain_us)
    for first in range(0, len(partitions), size):
        yield partitions[first : first + size]


def _events(store: OfflineStore, view: BatchView, chunk: Sequence[Partition]) -> dict[str, SourceRows]:
    """The archived events that the relations of some partitions can hold."""
    found = {}
    end_us = chunk[-1].end_us
    for source in view.sources:
        if isinstance(source, EventSource):
            start_us = None if view.reach_us is None else chunk[0].end_us - view.reach_us
            archive = store.archive(source)
            table = archive.scan(list(source.schema), start_us, end_us)
            archive.check_retained(start_us, f"View {view.key!r}, partition {chunk[0].name or 'of all time'},")
            found[source.name] = SourceRows.of(source.name, table, source.timestamp)
    return found


def _compute(view: BatchView, partition: Partition, relations: Relations) -> pa.Table:
    context, sources = relations.at(partition)
    try:
        result: Any = view.compute(context, **sources)  # type: ignore[misc]  # checked by compute_batch_view
        return read_result(view, partition, result)
    except ForebayError:
        raise
    except Exception as error:
        what = f"View {view.key!r}, partition {partition.name or 'of all time'}"
        raise DefinitionError(f"{what}: its function failed with {type(error).__name__}: {error}") from error


def _write(
    store: OfflineStore, view: BatchView, partitions: Sequence[Partition], rows: Rows, end_us: int, now_us: int
) -> None:
    """Replace the partitions' rows. An unpartitioned view adds a row set per refresh: its past must stay answerable."""
    table = store.rows(view)
    if view.partitions in GRAINS_US:
        table.overwrite(partitions[0].start_us, end_us, rows.table, now_us)
        return
    refreshed_us = partitions[0].end_us
    starts = pa.array([refreshed_us] * rows.table.num_rows, pa.timestamp("us", "UTC"))
    dated = rows.table.set_column(rows.table.column_names.index("partition_start"), "partition_start", starts)
    table.overwrite(refreshed_us, refreshed_us + 1, dated, now_us)
