"""Values that are lists: tuples of stored values in an array of objects, and lists in Arrow.

May live here: how `List` and `Vector` values change between the two. What a list holds looks as it does in a column of
its own, so the caller brings what turns those into Arrow and back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.language.types import AnyType, Float64, ListType, VectorType

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]


def objects(values: Sequence[Any]) -> Array:
    """An array of objects, one for each value, whatever these are."""
    array = np.empty(len(values), object)
    for i, value in enumerate(values):
        array[i] = value
    return array


def element(kind: ListType | VectorType) -> AnyType:
    """The type of what a list holds."""
    return kind.of if isinstance(kind, ListType) else Float64


def to_arrow(
    kind: ListType | VectorType, values: Array, valid: Mask, flat: Callable[[AnyType, Array], pa.Array]
) -> Any:
    """An Arrow list (of fixed size for a Vector) of tuples; `flat` makes a column of all that they hold."""
    of, size = element(kind), kind.length if isinstance(kind, VectorType) else None
    blank = (0.0,) * (size or 0)
    rows = [value if ok else blank for value, ok in zip(values.tolist(), valid.tolist(), strict=True)]
    held: list[Any] = [one for row in rows for one in row]
    if of.storage.startswith("S"):
        held = [one.encode() for one in held]
    column = flat(of, objects(held) if of.storage == "O" else np.array(held, of.storage))
    mask = None if valid.all() else pa.array(~valid)
    if size is not None:
        return pa.FixedSizeListArray.from_arrays(column, size, mask=mask)
    edges = np.concatenate(([0], np.cumsum([len(row) for row in rows], dtype=np.int64))).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(edges), column, mask=mask)


def from_arrow(array: pa.Array, flat: Callable[[pa.Array], Array]) -> tuple[Array, Mask]:
    """Tuples of an Arrow list, and which of them are there; `flat` makes stored values of all that they hold."""
    valid = np.asarray(array.is_valid())
    held = flat(pc.list_flatten(array)).tolist()
    ends = np.cumsum(np.asarray(pc.list_value_length(array).fill_null(0)), dtype=np.int64).tolist()
    rows = [tuple(held[first:last]) for first, last in zip([0, *ends], ends, strict=False)]
    return objects([tuple(map(_text, row)) for row in rows]), valid


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists or vectors."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def list_texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Each list as JSON: decimals are numbers, instants ISO 8601."""
    encoder = msgspec.json.Encoder(decimal_format="number")
    texts = [None if value is None else encoder.encode(value).decode() for value in column.to_pylist()]
    return pa.array(texts, pa.string())


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value
