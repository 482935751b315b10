"""What batch views' functions return, made into rows: read, checked against the declaration, cast to its types.

A result holds the entity's keys, the features and `event_timestamp`; other columns are ignored. A row with a null
key (or one that is too long) is left out, as an event is. Everything else that is not as declared stops the
computation and names view, partition and column, before anything is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.backfill.partitions import Partition
from forebay.core.identity import KEY_BYTES_MAX, entity_keys
from forebay.errors import DefinitionError, suggestion
from forebay.ingest.batch import INSTANT
from forebay.ingest.lists import convert_feature
from forebay.instants import instant_text
from forebay.language.types import FeatureType, Timestamp
from forebay.language.view import BatchView

EVENT_TIMESTAMP, CREATED_TIMESTAMP, PARTITION_START = "event_timestamp", "created_timestamp", "partition_start"
ENTITY_KEY = "entity_key"
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Checked rows of some partitions: keys, features, the two timestamps, `entity_key` and `partition_start`."""

    table: pa.Table
    without_key: int

    @property
    def entities(self) -> int:
        """How many entities they are of."""
        return int(pc.count_distinct(self.table[ENTITY_KEY]).as_py())


def read_result(view: BatchView, partition: Partition, result: Any) -> pa.Table:
    """The columns of a result that the view declares, in whatever types they came. Raises `DefinitionError`."""
    table = _to_table(view, partition, result)
    names = [*view.entity.keys, *view.outputs(), EVENT_TIMESTAMP]
    there = set(table.column_names)
    for name in names:
        if name not in there:
            raise DefinitionError(
                f"{_where(view, partition)}: the result has no column {name!r}; expected the keys, the features and "
                f"'{EVENT_TIMESTAMP}' (e.g. {{end}} AS event_timestamp). {suggestion(name, table.column_names)}"
            )
    return table.select(names)


def check_results(
    view: BatchView, partitions: Sequence[Partition], results: Sequence[pa.Table], created_us: int
) -> Rows:
    """The rows of all partitions in declared types. `created_us` is the instant of the computation.

    A later partition counts as created a microsecond later, so that of two rows of one entity and `event_timestamp`
    the one that knew more is the newest. Raises `DefinitionError` that names the first offending row.
    """
    table = _together(view, partitions, results)
    number = np.repeat(np.arange(len(results)), [result.num_rows for result in results])
    kinds: dict[str, FeatureType] = dict(view.entity.keys)
    kinds |= {name: feature.type for name, feature in view.outputs().items()}
    kinds[EVENT_TIMESTAMP] = Timestamp
    columns = {name: _cast(view, partitions, number, name, kind, table[name]) for name, kind in kinds.items()}
    columns[ENTITY_KEY] = _one_chunk(entity_keys(view.entity, columns))
    keyed = np.asarray(pc.less_equal(pc.binary_length(columns[ENTITY_KEY]), KEY_BYTES_MAX).fill_null(False))
    _check_instants(view, partitions, number, columns[EVENT_TIMESTAMP])
    columns[CREATED_TIMESTAMP] = pa.array(created_us + number, INSTANT)
    starts = np.fromiter((partition.start_us for partition in partitions), np.int64, len(partitions))
    columns[PARTITION_START] = pa.array(starts[number], INSTANT)
    rows = pa.table(columns)
    if not keyed.all():
        rows, number = rows.filter(pa.array(keyed)), number[keyed]
    _check_distinct(view, partitions, number, rows)
    return Rows(rows, int((~keyed).sum()))


def _to_table(view: BatchView, partition: Partition, result: Any) -> pa.Table:
    try:
        if isinstance(result, pa.Table):
            return result
        if isinstance(result, pa.RecordBatch):
            return pa.Table.from_batches([result])
        if isinstance(result, pa.RecordBatchReader):
            return result.read_all()
        if hasattr(result, "to_arrow_table"):  # a DuckDB relation; twice as fast as its stream
            return result.to_arrow_table()
        if isinstance(result, list):
            return pa.Table.from_pylist(result)
        if isinstance(result, dict) or hasattr(result, "__arrow_c_stream__"):
            return pa.table(result)
    except Exception as error:
        raise DefinitionError(f"{_where(view, partition)}: its result cannot be read: {error}") from error
    raise DefinitionError(
        f"{_where(view, partition)}: it returned {type(result).__name__}; expected what Arrow can read: a DuckDB "
        "relation "
        "(context.sql(…)), an Arrow table, a pandas or Polars frame"
    )


def _together(view: BatchView, partitions: Sequence[Partition], results: Sequence[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(results, promote_options="permissive")
    except pa.ArrowException as error:
        names = f"{partitions[0].name} to {partitions[-1].name}"
        raise DefinitionError(
            f"View {view.key!r}: its results for {names} have columns of types that do not go together: {error}. "
            "Cast them in the function"
        ) from None


def _cast(
    view: BatchView,
    partitions: Sequence[Partition],
    number: Ints,
    name: str,
    kind: FeatureType,
    column: pa.ChunkedArray,
) -> pa.Array:
    converted = convert_feature(kind, column)
    for reason, mask in converted.faults.items():
        row = int(np.flatnonzero(mask)[0])
        hint = "use {end}, or TIMESTAMPTZ" if kind == Timestamp else "cast it in the function"
        raise DefinitionError(
            f"{_where(view, partitions[number[row]])}: column {name!r} holds {str(column[row])[:80]!r} "
            f"({column.type}), which is "
            f"no {kind} ({reason}); {hint}"
        )
    return _one_chunk(converted.array)


def _check_instants(view: BatchView, partitions: Sequence[Partition], number: Ints, column: pa.Array) -> None:
    if column.null_count:
        row = int(pc.index(column.is_null(), True).as_py())
        raise DefinitionError(
            f"{_where(view, partitions[number[row]])}: '{EVENT_TIMESTAMP}' is null in a row; say from when each row "
            "holds"
        )
    instants = np.asarray(column.cast(pa.int64()))
    ends = np.fromiter((partition.end_us for partition in partitions), np.int64, len(partitions))
    late = np.flatnonzero(instants > ends[number])
    if len(late):
        row, partition = int(late[0]), partitions[number[late[0]]]
        raise DefinitionError(
            f"{_where(view, partition)}: {len(late)} rows have an '{EVENT_TIMESTAMP}' after {{end}}, the first at "
            f"{instant_text(int(instants[row]))} > {instant_text(partition.end_us)}; a row cannot hold from an "
            "instant later than what "
            "it was computed from"
        )


def _check_distinct(view: BatchView, partitions: Sequence[Partition], number: Ints, rows: pa.Table) -> None:
    keys = _one_chunk(rows[ENTITY_KEY]).dictionary_encode()
    codes, instants = np.asarray(keys.indices), np.asarray(rows[EVENT_TIMESTAMP].cast(pa.int64()))
    order = np.lexsort((instants, codes, number))
    same = np.ones(max(len(order) - 1, 0), np.bool_)
    for column in (number, codes, instants):
        same &= np.diff(column[order]) == 0
    if same.any():
        row = int(order[np.flatnonzero(same)[0]])
        raise DefinitionError(
            f"{_where(view, partitions[number[row]])}: two rows of {view.entity.name} {keys[row].as_py()!r} hold "
            "from the same instant "
            f"{instant_text(int(instants[row]))}; an entity has one row per '{EVENT_TIMESTAMP}': aggregate or "
            "choose in the function"
        )


def _one_chunk(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _where(view: BatchView, partition: Partition) -> str:
    return f"View {view.key!r}, partition {partition.name}" if partition.name else f"View {view.key!r}"
