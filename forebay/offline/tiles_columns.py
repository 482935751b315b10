"""Tiles as typed columns, and back: the same partials in tables that any reader of Parquet understands.

    present_<c>                 bigint
    total_<c>, squares_<c>      decimal(38, scale), decimal(38, 2·scale): the bytes of an INT128; of a Float64, double
    moments_<c>, …__m2          double
    lowest_<c>, highest_<c>     the column's type
    earliest_<c>, latest_<c>    the column's type, with …__ts (timestamp) and …__id (text)
    fading_…_<c>                double, with …__ts (timestamp)
    what has cells              a list of structs (`forebay.offline.cells_columns`)

Where a tile has no value of a column (`present_<c>` is 0), extremes, first and last values and the instant of a fading
sum are null: their identities (infinities, first and last instants) have no other meaning outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.algebra.int128 import INT128
from forebay.algebra.partials import FADING, Partial
from forebay.core.identity import parse_entity_keys
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, merge
from forebay.errors import DefinitionError
from forebay.ingest.batch import INSTANT, stored_type
from forebay.ingest.convert import decimal_array, units_of
from forebay.ingest.select import fixed_bytes
from forebay.instants import DAY_US, day_text
from forebay.language.types import AnyType, DecimalType
from forebay.offline.cells_columns import cells_from_arrow, cells_to_arrow, cells_type
from forebay.offline.data_files import DATE

ENTITY_KEY, HOP_US, START = "entity_key", "hop_us", "tile_start"
EVENTS, NEWEST = "tile_events", "tile_newest"
Array = npt.NDArray[Any]


def tiles_schema(layout: Layout) -> pa.Schema:
    """The columns of the tiles of a view."""
    keys = [(name, stored_type(kind)) for name, kind in layout.view.entity.keys.items()]
    head = [(ENTITY_KEY, pa.string()), (HOP_US, pa.int64()), (START, INSTANT), (EVENTS, pa.int64()), (NEWEST, INSTANT)]
    fields = [(name, _type(partial, name, layout)) for partial, name in _fields(layout)]
    fields += [(partial.name, cells_type(layout, partial)) for partial in layout.ragged]
    names = [name for name, _ in (*head, *fields)]
    for key, _ in keys:
        if key in names:
            raise DefinitionError(
                f"View {layout.view.key!r}: its tiles have a column {key!r} that is no key of "
                f"{layout.view.entity.name!r}; rename the key"
            )
    return pa.schema([*keys, *head, *fields, (DATE, pa.string())])


def to_table(layout: Layout, entities: pa.StringArray, tiles: Tiles) -> pa.Table:
    """Tiles as rows; their codes index the `entities`."""
    records, schema = tiles.records, tiles_schema(layout)
    code = pa.array(tiles.code)
    parsed = parse_entity_keys(layout.view.entity, entities)
    columns: dict[str, Any] = {name: column.take(code) for name, column in parsed.items()}
    columns[ENTITY_KEY] = entities.take(code)
    columns[HOP_US] = pa.array(np.array(layout.hops_us, np.int64)[records["ring"]])
    columns[START] = pa.array(records["start"], INSTANT)
    columns[EVENTS] = pa.array(records["events"])
    columns[NEWEST] = pa.array(records["newest"], INSTANT)
    for partial, name in _fields(layout):
        absent = records[partial.present] == 0
        sentinel = _has_no_zero(partial, name)
        columns[name] = _to_arrow(records[name], schema.field(name).type, absent if sentinel else None)
    for partial in layout.ragged:
        columns[partial.name] = cells_to_arrow(layout, partial, tiles.cells[partial.name])
    columns[DATE] = _dates(records["start"])
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def from_table(layout: Layout, table: pa.Table) -> tuple[list[str], Tiles]:
    """The entities and tiles of rows, whatever their order; tiles of one (entity, hop, start) are merged."""
    coded = _whole(table[ENTITY_KEY]).dictionary_encode()
    records = np.zeros(len(table), layout.record)
    records["start"] = np.asarray(_whole(table[START]).cast(pa.int64()))
    records["ring"] = np.searchsorted(layout.hops_us, np.asarray(_whole(table[HOP_US])))
    records["events"] = np.asarray(_whole(table[EVENTS]))
    records["newest"] = np.asarray(_whole(table[NEWEST]).cast(pa.int64()))
    for partial in layout.partials:
        zeros = layout.zero(partial, 1)
        for name in layout.fields[partial]:
            records[name] = _from_arrow(_whole(table[name]), layout.record[name], zeros[name][0])
    code = np.asarray(coded.indices).astype(np.int64)
    cells = {one.name: cells_from_arrow(layout, one, _whole(table[one.name])) for one in layout.ragged}
    return coded.dictionary.to_pylist(), merge(layout, code, records, cells)


def _fields(layout: Layout) -> Iterator[tuple[Partial, str]]:
    return ((partial, name) for partial in layout.partials for name in layout.fields[partial])


def _has_no_zero(partial: Partial, name: str) -> bool:
    """Whether the identity of a field is a sentinel."""
    if partial.kind in FADING:
        return name.endswith("__ts")
    return partial.kind in ("lowest", "highest", "earliest", "latest")


def _type(partial: Partial, name: str, layout: Layout) -> pa.DataType:
    if name == f"{partial.name}__ts":
        return INSTANT
    if partial.kind in FADING:
        return pa.float64()
    kind = layout.columns[partial.column]
    if name == f"{partial.name}__id":
        return pa.string()
    if _has_no_zero(partial, name):
        return stored_type(kind)
    field = layout.record[name]
    if field == INT128:
        return pa.decimal128(38, _scale(kind) * (2 if partial.kind == "squares" else 1))
    return pa.float64() if field.kind == "f" else pa.int64()


def _scale(kind: AnyType) -> int:
    return kind.scale if isinstance(kind, DecimalType) else 0


def _to_arrow(values: Array, target: pa.DataType, absent: npt.NDArray[np.bool_] | None) -> pa.Array:
    values = np.ascontiguousarray(values)
    if values.dtype == INT128:
        return pa.Array.from_buffers(target, len(values), [None, pa.py_buffer(values)])
    if absent is not None and not absent.any():
        absent = None
    if pa.types.is_decimal(target):
        valid = np.ones(len(values), np.bool_) if absent is None else ~absent
        return decimal_array(np.where(valid, values, 0), valid, target.scale)
    if values.dtype.kind == "S":
        text = _texts(values)
        return text if absent is None else pc.if_else(pa.array(absent), pa.scalar(None, pa.string()), text)
    return pa.array(values, target, mask=absent)


def _texts(values: Array) -> pa.Array:
    """Fixed bytes as text, without the NULs that fill them up."""
    width = values.dtype.itemsize
    fixed = pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(values)])
    return pc.ascii_rtrim(fixed.cast(pa.binary()).cast(pa.string()), "\0")


def _from_arrow(array: pa.Array, field: np.dtype[Any], zero: Any) -> Array:
    if field == INT128:
        words = (
            np.frombuffer(array.buffers()[1], INT128, array.offset + len(array)) if len(array) else np.empty(0, INT128)
        )
        return words[array.offset :]
    valid = np.asarray(array.is_valid())
    if field.kind == "S":
        values: Array = fixed_bytes(array.fill_null(""), field.itemsize)
    elif pa.types.is_decimal(array.type):
        values = units_of(array)
    else:
        plain = array.cast(pa.int64()) if pa.types.is_timestamp(array.type) else array
        values = np.asarray(plain.fill_null(False if pa.types.is_boolean(plain.type) else 0))
    return values if valid.all() else np.where(valid, values.astype(field), zero)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.chunks
    return chunks[0] if len(chunks) == 1 else pa.concat_arrays(chunks) if chunks else pa.array([], column.type)


def _dates(starts: Array) -> pa.Array:
    """The UTC date in which each tile starts."""
    days, inverse = np.unique(starts - starts % DAY_US, return_inverse=True)
    return pa.array([day_text(us) for us in days.tolist()], pa.string()).take(pa.array(inverse.reshape(-1)))
