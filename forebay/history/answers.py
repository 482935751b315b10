"""The answers to some rows of a spine as a table, on their way from a bucket or a task to where rows are put in order.

May live here: that table and nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.responses import STATUS_SUFFIX, status_array
from forebay.core.values import FeatureColumn
from forebay.history.buckets import ROW

Ints = npt.NDArray[np.int64]


def table_of(rows: Ints, columns: list[FeatureColumn], with_statuses: bool) -> pa.Table:
    """The answers to some rows of the spine, by their numbers."""
    table = {ROW: pa.array(rows)}
    for column in columns:
        table[column.feature.name] = column.to_arrow()
        if with_statuses:
            table[column.feature.name + STATUS_SUFFIX] = status_array(column)
    return pa.table(table)
