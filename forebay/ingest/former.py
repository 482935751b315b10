"""Values of columns that go by several names: the one asked for, where an event has no value there, the next one.

Lives here: choosing among them, the same for every format. Which names a column has is said by its source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc

from forebay.ingest.convert import Converted
from forebay.language.source import EventSource


def field_names(source: EventSource) -> tuple[str, ...]:
    """The fields of an event that are looked at: columns, and their former names."""
    return tuple(dict.fromkeys(name for column in source.schema for name in (column, *source.names_of(column)[1:])))


def either(columns: Sequence[list[Any]]) -> list[Any]:
    """The first value that is there, of each row."""
    first, *others = columns
    for other in others:
        first = [there if one is None else one for one, there in zip(first, other, strict=True)]
    return first


def first_of(columns: Sequence[Converted]) -> Converted:
    """The first value that is there, of each row, and the faults of the column that it would be of."""
    first, *others = columns
    for other in others:
        absent = np.asarray(first.array.is_null())
        faults = dict(first.faults)
        for reason, rows in other.faults.items():
            faults[reason] = (rows & absent) | faults.get(reason, False)
        first = Converted(pc.coalesce(first.array, other.array), faults)
    return first
