"""The answers to some rows of a spine as a table, on their way from a bucket or a task to where rows are put in order.

May live here: that table, and a feature as it was before.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.responses import STATUS_SUFFIX, status_array
from forebay.core.events import unused
from forebay.core.rows import stored
from forebay.core.values import FeatureColumn
from forebay.history.buckets import ROW
from forebay.language.feature import Feature

Ints = npt.NDArray[np.int64]


def table_of(rows: Ints, columns: list[FeatureColumn], with_statuses: bool) -> pa.Table:
    """The answers to some rows of the spine, by their numbers."""
    table = {ROW: pa.array(rows)}
    for column in columns:
        table[column.feature.name] = column.to_arrow()
        if with_statuses:
            table[column.feature.name + STATUS_SUFFIX] = status_array(column)
    return pa.table(table)


def column_of(feature: Feature, table: pa.Table) -> FeatureColumn:
    """A feature of such a table; where it has no statuses, a bare one. The instants behind its values are not in it."""
    held, count = stored(table[feature.name], feature.type), len(table)
    statuses = feature.name + STATUS_SUFFIX
    status = unused("<u1", count)
    if statuses in table.column_names:
        status = np.asarray(table[statuses].combine_chunks().indices).astype(np.uint8)
    return FeatureColumn(feature, held.values, held.valid, status, unused("<i8", count))
