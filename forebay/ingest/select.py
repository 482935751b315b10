"""From the events of a source to those of one view: `where`, derived columns, keys, and NumPy columns for the core.

Stream and backfill both come through here, so an event is in a view for both or for neither. Derived columns follow the
rules of ingest (`convert`): rounded half-even, null where they do not fit. A view without expressions needs no DuckDB.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.answer import partials_of
from forebay.core.events import Column, Events, always, unused
from forebay.core.identity import KEY_BYTES_MAX, entity_keys
from forebay.core.layout import Layout
from forebay.core.lookup import KeyLookup
from forebay.core.texts import lengths_of
from forebay.errors import FormatError
from forebay.ingest.batch import EVENT_ID, SOURCE_OFFSET, stored_type
from forebay.ingest.convert import convert, units_of, whole_numbers
from forebay.language.limits import Limit, limits_of
from forebay.language.types import AnyType, BoolType, DecimalType, Float64Type, Int64Type, StringType
from forebay.language.view import WindowedView

if TYPE_CHECKING:
    from forebay.ingest.expressions import Expressions

Mask = npt.NDArray[np.bool_]
FEW = 256
"""Up to so many texts are numbered, or brought to one width, one by one: a kernel takes longer to be called."""
ROW_NUMBER = "__row_number"
"""A column of numbers of rows, which no source has."""


class Selector:
    """Selects the events of one view out of batches of its source. Belongs to one thread.

    Of a view of sessions it selects the events that these are made of: entities, instants and positions, nothing else.

    With `features`, only what these are computed from: no positions, and ids only where they can decide a value (the
    others are all the same). With `position`, another column of the archive than the source's offset is the events'
    position. With `late_ids`, ids that decide only between events of one entity and instant are left out: it is
    `numbered` then, and wants the numbers of rows in a column `ROW_NUMBER`, which become the events' positions. Raises
    `DefinitionError` for an expression that is not a function of one event.
    """

    def __init__(
        self,
        view: WindowedView,
        features: Sequence[str] | None = None,
        position: str | None = None,
        *,
        late_ids: bool = False,
    ) -> None:
        self.view = view
        layout = Layout.of(view)
        self._expressions = None if view.sessions else expressions_of(view)
        computed = self._expressions.columns if self._expressions else []
        partials = layout.partials if features is None else partials_of(layout, features)
        partials = () if view.sessions else partials
        self._columns = {name: kind for name, kind in layout.columns.items() if name in {p.column for p in partials}}
        self._position = SOURCE_OFFSET if features is None else position
        ordering = [partial for partial in partials if partial.is_ordered]
        self.numbered = late_ids and bool(ordering) and not any(partial.is_ragged for partial in ordering)
        self._ordered = view.sessions is None and (features is None or bool(ordering)) and not self.numbered
        needed = {*view.entity.keys, view.source.timestamp, *self._columns, *computed}
        self.columns: list[str] = [
            *(name for name in view.source.schema if name in needed and name != EVENT_ID),
            *([EVENT_ID] if self._ordered or EVENT_ID in needed else []),
            *([self._position] if self._position else []),
        ]
        self._position = ROW_NUMBER if self.numbered else self._position
        self._read = {view.source.timestamp, EVENT_ID, self._position, *self._columns}
        self._limits = limits_of(view)
        self._id_bytes = view.source.event_id_bytes

    def select(self, table: pa.Table) -> Events:
        """The view's events among the rows of a table that has at least `columns`."""
        table = self.computed(table)
        keys, code = self._coded({name: table[name] for name in self.view.entity.keys})
        return self._events(self._kept(table, code), keys, code[code >= 0])

    def select_of(self, lookup: KeyLookup, table: pa.Table, others_max: float = 0.0) -> Iterator[Events]:
        """As `select` of a table that is `computed`, of some entities, in pieces: its parts needn't be joined for it.

        Up to a share `others_max` of events of others may stay, as of one more entity, whose name is empty.
        """
        code = lookup.places({name: table[name] for name in self.view.entity.keys})
        if np.count_nonzero(code < 0) > len(code) * others_max:
            table, code = self._kept(table, code), code[code >= 0]
        code = np.where(code < 0, len(lookup.keys), code)
        keys, first = lookup.others, 0
        for part in [pa.Table.from_batches([batch]) for batch in table.to_batches()] or [table]:
            yield self._events(part, keys, code[first : first + len(part)])
            first += len(part)

    def _kept(self, table: pa.Table, code: npt.NDArray[np.int64]) -> pa.Table:
        if not len(code) or code.min() >= 0:
            return table
        table = table.drop_columns([name for name in table.column_names if name not in self._read])
        return table.filter(pa.array(code >= 0))

    def _events(self, table: pa.Table, keys: pa.StringArray, code: npt.NDArray[np.int64]) -> Events:
        return Events(
            keys=keys,
            code=code,
            ts=int64_of(table[self.view.source.timestamp]),
            ids=self.ids(_one(table[EVENT_ID])) if self._ordered else unused("S1", len(table)),
            offset=int64_of(table[self._position]) if self._position else unused("<i8", len(table)),
            columns={name: self._column(name, kind, _one(table[name])) for name, kind in self._columns.items()},
        )

    def _coded(self, columns: Mapping[str, pa.ChunkedArray]) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
        """The distinct keys, and which of them each row has; −1 where one is null or too long to be stored."""
        texts = entity_keys(self.view.entity, columns)
        lengths = lengths_of(texts)
        if lengths.max(initial=0) > KEY_BYTES_MAX:
            texts = pc.if_else(pa.array(lengths <= KEY_BYTES_MAX), texts, None)
        return _enumerated(texts)

    def computed(self, table: pa.Table) -> pa.Table:
        """The rows for which `where` is true, with the derived columns. One thread may do this, `select_of` many."""
        return computed(self.view, self._expressions, table)

    def _column(self, name: str, kind: AnyType, array: pa.Array) -> Column:
        column = stored_column(kind, array)
        return within(column, self._limits[name]) if name in self._limits else column

    def ids(self, array: pa.Array) -> npt.NDArray[Any]:
        """Event ids as the core takes them. Raises `FormatError` for one that is longer than declared."""
        if lengths_of(array).max(initial=0) > self._id_bytes:
            raise FormatError(
                f"Source {self.view.source.name!r} holds an event_id longer than {self._id_bytes} bytes, "
                "which it declares now; widen max_bytes of its event_id again"
            )
        return fixed_bytes(array, self._id_bytes)


def computed(view: WindowedView, expressions: Expressions | None, table: pa.Table) -> pa.Table:
    """The rows for which a view's `where` is true, with its derived columns."""
    if expressions is None:
        return table
    from forebay.ingest.expressions import naive_as_utc, where_mask

    results = expressions.evaluate(table)
    for name, derived in view.derived.items():
        result = naive_as_utc(results[f"derived column {name!r}"])
        table = table.append_column(pa.field(name, stored_type(derived.type)), _derived(derived.type, result))
    return table.filter(pa.array(where_mask(results["where"]))) if "where" in results else table


def within(column: Column, limit: Limit) -> Column:
    """A column that is summed, without the values that are too large for that."""
    if not len(column.values) or (column.values.max() <= limit and column.values.min() >= -limit):
        return column
    return Column(column.values, column.valid & (column.values <= limit) & (column.values >= -limit))


def stored_column(kind: AnyType, array: pa.Array) -> Column:
    """The stored form of a column of events: storage units and a mask. Text without a bound is only ever counted."""
    valid = np.asarray(array.is_valid()) if array.null_count else always(len(array))
    if isinstance(kind, DecimalType):
        return Column(np.ascontiguousarray(units_of(array)), valid)
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
    values = np.asarray(array.fill_null(blank) if array.null_count else array).astype(kind.storage)
    if isinstance(kind, Float64Type):
        values += 0.0  # a zero has no sign: of two, a minimum would be whichever came first
    return Column(values, valid)


def _enumerated(texts: pa.StringArray) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """The distinct texts in the order in which they come, and which of them each row has; −1 of a null."""
    if len(texts) <= FEW:
        rows, places = texts.to_pylist(), dict[str, int]()
        code = [-1 if text is None else places.setdefault(text, len(places)) for text in rows]
        keys = texts if len(places) == len(rows) else pa.array(places, pa.string(), size=len(places))
        return keys, np.array(code, np.int64)
    coded = texts.dictionary_encode()
    indices = coded.indices.fill_null(-1) if coded.indices.null_count else coded.indices
    return coded.dictionary, np.asarray(indices).astype(np.int64)


def fixed_bytes(array: pa.Array, width: int) -> npt.NDArray[Any]:
    """Text of at most `width` bytes as an array of S{width}; none is null."""
    if len(array) <= FEW:
        return np.array(array.view(pa.binary()).to_pylist(), f"S{width}")
    padded = pc.ascii_rpad(array, width, "\0")
    return np.frombuffer(padded.buffers()[2], f"S{width}", len(padded), offset=padded.offset * width)


def expressions_of(view: WindowedView) -> Expressions | None:
    """The expressions of a view; `None` where it has none."""
    if view.where is None and not view.derived:
        return None
    from forebay.ingest.expressions import Expressions  # DuckDB is loaded only for those who need it

    return Expressions(view)


def _derived(kind: AnyType, result: pa.ChunkedArray) -> pa.Array:
    """A computed column as its declared type; what does not fit is null."""
    array = pa.concat_arrays(result.chunks) if result.num_chunks else pa.array([], result.type)
    return (whole_numbers(array) if isinstance(kind, Int64Type) else convert(kind, array)).array


def int64_of(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """A column of int64, or of instants in microseconds, where they are; none is null."""
    return np.asarray(_one(column).view(pa.int64()))


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
