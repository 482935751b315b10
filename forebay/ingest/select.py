"""From the events of a source to those of one view: `where`, derived columns, keys, and NumPy columns for the core.

Stream and backfill both come through here, so an event is in a view for both or for neither. Derived columns follow the
rules of ingest (`convert`): rounded half-even, null where they do not fit. A view without expressions needs no DuckDB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.algebra.int128 import VARIANCE_UNITS_MAX
from forebay.core.events import Column, Events
from forebay.core.identity import KEY_BYTES_MAX, entity_keys
from forebay.core.layout import Layout
from forebay.errors import FormatError
from forebay.ingest.batch import EVENT_ID, SOURCE_OFFSET, stored_type
from forebay.ingest.convert import convert, units_of, whole_numbers
from forebay.language.types import AnyType, BoolType, DecimalType, Int64Type, StringType
from forebay.language.view import WindowedView

if TYPE_CHECKING:
    from forebay.ingest.expressions import Expressions

Mask = npt.NDArray[np.bool_]


class Selector:
    """Selects the events of one view out of batches of its source. Belongs to one thread.

    Raises `DefinitionError` for an expression that is not a function of one event.
    """

    def __init__(self, view: WindowedView) -> None:
        self.view = view
        self._layout = Layout.of(view)
        self._expressions = _expressions(view)
        computed = self._expressions.columns if self._expressions else []
        needed = {*view.entity.keys, view.source.timestamp, *self._layout.columns, *computed}
        self.columns: list[str] = [
            *(name for name in view.source.schema if name in needed and name != EVENT_ID),
            EVENT_ID,
            SOURCE_OFFSET,
        ]
        self._squared = {p.column for p in self._layout.partials if p.kind == "squares"}
        self._id_bytes = view.source.event_id_bytes

    def select(self, table: pa.Table) -> Events:
        """The view's events among the rows of a table that has at least `columns`."""
        table = self._computed(table)
        keys = entity_keys(self.view.entity, {name: table[name] for name in self.view.entity.keys})
        keep = pc.and_(keys.is_valid(), pc.less_equal(pc.binary_length(keys), KEY_BYTES_MAX)).fill_null(False)
        if pc.min(keep).as_py() is False:
            table, keys = table.filter(keep), keys.filter(keep)
        coded = keys.dictionary_encode()
        table = table.combine_chunks()
        return Events(
            keys=coded.dictionary.to_pylist(),
            code=np.asarray(coded.indices).astype(np.int64),
            ts=np.asarray(_one(table[self.view.source.timestamp]).cast(pa.int64())),
            ids=self._ids(_one(table[EVENT_ID])),
            offset=np.asarray(_one(table[SOURCE_OFFSET])),
            columns={name: self._column(name, kind, _one(table[name])) for name, kind in self._layout.columns.items()},
        )

    def _computed(self, table: pa.Table) -> pa.Table:
        """The rows for which `where` is true, with the derived columns."""
        if self._expressions is None:
            return table
        from forebay.ingest.expressions import naive_as_utc, where_mask

        results = self._expressions.evaluate(table)
        for name, derived in self.view.derived.items():
            result = naive_as_utc(results[f"derived column {name!r}"])
            table = table.append_column(pa.field(name, stored_type(derived.type)), _derived(derived.type, result))
        return table.filter(pa.array(where_mask(results["where"]))) if "where" in results else table

    def _column(self, name: str, kind: AnyType, array: pa.Array) -> Column:
        column = stored_column(kind, array)
        if name in self._squared and isinstance(kind, DecimalType | Int64Type):
            fits = (column.values <= VARIANCE_UNITS_MAX) & (column.values >= -VARIANCE_UNITS_MAX)
            return Column(column.values, column.valid & fits)
        return column

    def _ids(self, array: pa.Array) -> npt.NDArray[Any]:
        if len(array) and pc.max(pc.binary_length(array)).as_py() > self._id_bytes:
            raise FormatError(
                f"Source {self.view.source.name!r} holds an event_id longer than {self._id_bytes} bytes, "
                "which it declares now; widen max_bytes of its event_id again"
            )
        return fixed_bytes(array, self._id_bytes)


def stored_column(kind: AnyType, array: pa.Array) -> Column:
    """The stored form of a column of events: storage units and a mask. Text without a bound is only ever counted."""
    valid = np.asarray(array.is_valid())
    if isinstance(kind, DecimalType):
        return Column(units_of(array), valid)
    if isinstance(kind, StringType):
        if kind.max_bytes is None:
            return Column(np.empty(len(array), object), valid)
        fits = np.asarray(pc.less_equal(pc.binary_length(array), kind.max_bytes).fill_null(False))
        if not fits.all():
            array = pc.if_else(pa.array(fits), array, "")
        return Column(fixed_bytes(array, kind.max_bytes), valid & fits)
    if pa.types.is_timestamp(array.type):
        array = array.cast(pa.int64())
    blank = False if isinstance(kind, BoolType) else 0
    return Column(np.asarray(array.fill_null(blank) if array.null_count else array).astype(kind.storage), valid)


def fixed_bytes(array: pa.Array, width: int) -> npt.NDArray[Any]:
    """Text of at most `width` bytes as an array of S{width}."""
    if not len(array):
        return np.empty(0, f"S{width}")
    padded = pc.ascii_rpad(array, width, "\0")
    return np.frombuffer(padded.buffers()[2], f"S{width}", len(padded), offset=padded.offset * width)


def _expressions(view: WindowedView) -> Expressions | None:
    if view.where is None and not view.derived:
        return None
    from forebay.ingest.expressions import Expressions  # DuckDB is loaded only for those who need it

    return Expressions(view)


def _derived(kind: AnyType, result: pa.ChunkedArray) -> pa.Array:
    """A computed column as its declared type; what does not fit is null."""
    array = pa.concat_arrays(result.chunks) if result.num_chunks else pa.array([], result.type)
    return (whole_numbers(array) if isinstance(kind, Int64Type) else convert(kind, array)).array


def _one(column: pa.ChunkedArray) -> pa.Array:
    chunks = column.chunks
    if len(chunks) == 1:
        return chunks[0]
    return pa.concat_arrays(chunks) if chunks else pa.array([], column.type)


def check_expressions(view: WindowedView) -> None:
    """Raise `DefinitionError` unless each expression of a view is a function of one event and has the declared type."""
    if view.where is not None or view.derived:
        from forebay.ingest import expressions

        expressions.check_expressions(view)
