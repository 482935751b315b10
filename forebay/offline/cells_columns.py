"""Cells of tiles as typed columns, and back: a list of structs for each ragged partial.

firsts_<k>_<c>, lasts_<k>_<c>         list of {ts: timestamp, id: text, value: the column's type}
hashes_<k>_<c>                        list of {hash: bigint}, the 64 bits of the hash
values_<cap>_<c>                      list of {value: the column's type, count: bigint}; saturated: count −1
bins_<c>, between_<edges>_<c>         list of {bin: int, count: bigint}
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.algebra.partials import Partial
from forebay.algebra.ragged import Ragged
from forebay.core.layout import Layout
from forebay.ingest.batch import INSTANT, stored_type
from forebay.ingest.convert import decimal_array
from forebay.ingest.select import fixed_bytes, stored_column
from forebay.language.types import AnyType

Array = npt.NDArray[Any]


def cells_type(layout: Layout, partial: Partial) -> pa.DataType:
    """The Arrow type of the cells of a partial."""
    kind = layout.columns[partial.column]
    return pa.list_(pa.struct([(name, _type(kind, name)) for name in layout.cell(partial).names or ()]))


def cells_to_arrow(layout: Layout, partial: Partial, ragged: Ragged) -> pa.Array:
    """The cells of each row as a list."""
    target = cells_type(layout, partial)
    kind, names = layout.columns[partial.column], layout.cell(partial).names or ()
    columns = [_to_arrow(kind, name, np.ascontiguousarray(ragged.cells[name])) for name in names]
    structs = pa.StructArray.from_arrays(columns, fields=list(target.value_type))
    return pa.ListArray.from_arrays(pa.array(ragged.edges.astype(np.int32)), structs)


def cells_from_arrow(layout: Layout, partial: Partial, array: pa.Array) -> Ragged:
    """The cells of each row of a column of lists."""
    kind, cell = layout.columns[partial.column], layout.cell(partial)
    structs = pc.list_flatten(array)
    cells = np.empty(len(structs), cell)
    for name in cell.names or ():
        cells[name] = _from_arrow(kind, name, cell[name], pc.struct_field(structs, name))
    return Ragged(np.asarray(pc.list_value_length(array).fill_null(0)).astype(np.int64), cells)


def _type(kind: AnyType, name: str) -> pa.DataType:
    own = {"ts": INSTANT, "id": pa.string(), "bin": pa.int32(), "value": stored_type(kind)}
    return own.get(name, pa.int64())


def _to_arrow(kind: AnyType, name: str, values: Array) -> pa.Array:
    target = _type(kind, name)
    if values.dtype.kind == "S":
        return pa.array(values.astype(object), pa.binary()).cast(pa.string())
    if pa.types.is_decimal(target):
        return decimal_array(values, np.ones(len(values), np.bool_), target.scale)
    return pa.array(values.view(np.int64) if name == "hash" else values, target)


def _from_arrow(kind: AnyType, name: str, stored: np.dtype[Any], array: pa.Array) -> Array:
    if name == "value":
        return stored_column(kind, array.cast(stored_type(kind))).values
    if name == "id":
        return fixed_bytes(array, stored.itemsize)
    plain = np.asarray(array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array)
    return plain.view(np.uint64) if name == "hash" else plain
