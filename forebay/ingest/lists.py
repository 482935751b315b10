"""A column of lists becomes a `List` or `Vector`: what it holds follows the rules of `convert`, and is never null.

A list with one value that breaks its rule is a fault as a whole, and null.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.lists import element, is_list
from forebay.core.values import arrow_type
from forebay.ingest.batch import TOO_LARGE, WRONG_TYPE
from forebay.ingest.convert import Converted, convert
from forebay.language.types import LIST_LENGTH_MAX, FeatureType, ListType, VectorType

Mask = npt.NDArray[np.bool_]


def convert_feature(kind: FeatureType, column: pa.Array | pa.ChunkedArray) -> Converted:
    """A column of any Arrow type as the declared type of a feature."""
    return _convert_lists(kind, column) if isinstance(kind, ListType | VectorType) else convert(kind, column)


def _convert_lists(kind: ListType | VectorType, column: pa.Array | pa.ChunkedArray) -> Converted:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    valid, target = np.asarray(array.is_valid()), arrow_type(kind)
    if not is_list(array.type):
        faults = {WRONG_TYPE: valid} if valid.any() else {}
        return Converted(pa.nulls(len(array), target), faults)
    lengths = np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64)
    held = convert(element(kind), pc.list_flatten(array))
    rows = np.repeat(np.arange(len(array)), lengths)
    faults = {reason: _any(rows[mask], len(array)) for reason, mask in held.faults.items()}
    good = valid & ~np.any([*faults.values(), ~valid], axis=0)
    wrong = good & _any(rows[~np.asarray(held.array.is_valid())], len(array))
    long = valid & (lengths > LIST_LENGTH_MAX)
    if isinstance(kind, VectorType):
        wrong, long = wrong | (valid & (lengths != kind.length)), valid & False
    for reason, mask in ((WRONG_TYPE, wrong), (TOO_LARGE, long)):
        if mask.any():
            faults[reason] = mask | faults.get(reason, False)
            good &= ~mask
    return Converted(_lists(kind, held.array, lengths, good), faults)


def _lists(kind: ListType | VectorType, held: pa.Array, lengths: npt.NDArray[np.int64], good: Mask) -> Any:
    """The lists that are good, and null for the others."""
    held = held.filter(pa.array(np.repeat(good, lengths)))
    ends = np.cumsum(np.where(good, lengths, 0))
    edges = pa.array(np.concatenate(([0], ends)).astype(np.int32))
    of = held.cast(arrow_type(element(kind)))
    made = pa.ListArray.from_arrays(edges, of, mask=None if good.all() else pa.array(~good))
    return made.cast(arrow_type(kind))


def _any(rows: npt.NDArray[np.intp], count: int) -> Mask:
    mask = np.zeros(count, np.bool_)
    mask[rows] = True
    return mask
