"""Aggregations that answer with a list: the first and last values, the most frequent ones, counts between edges."""

from __future__ import annotations

import decimal
import zlib
from itertools import pairwise
from typing import Any, ClassVar

import msgspec
import numpy as np
import numpy.typing as npt

from forebay.algebra.partials import Partial
from forebay.algebra.ragged import Ragged
from forebay.errors import DefinitionError, RequestError
from forebay.language.aggregation import Aggregation, Array, Merged, Rows
from forebay.language.arguments import check_whole, checked_list
from forebay.language.types import AnyType, FeatureType, Int64, ListType

LISTED_MAX = 256
"""Values of a FirstK or LastK: each tile of a window holds up to so many events."""
TOP_MAX, CAP_MAX = 100, 1024
"""Values of a TopK, and distinct values that it tells apart: each tile holds up to so many counts."""
EDGES_MAX = 256
"""Edges of a Histogram."""


class _EdgeEvents(Aggregation, frozen=True, kw_only=True):
    """The values at one end of a window."""

    k: int = 0
    kind: ClassVar[str] = ""
    keeps_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        check_whole(f"{type(self).__name__} {self.name!r}", "k", self.k, 1, LISTED_MAX)

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """How many."""
        return {"k": self.k}

    def output(self, column: AnyType | None) -> FeatureType:
        """A list of the type of the column."""
        return _list_of(column)

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the events at the end of the window."""
        return (*Aggregation.partials(self, column), self._partial)

    @property
    def _partial(self) -> Partial:
        return Partial(self.kind, self.of or "", str(self.k), (self.k,))

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The values, in order of (ts, id, value)."""
        return tuples(merged.cells[self._partial.name].take(rows), "value"), False


class FirstK(_EdgeEvents, frozen=True, tag="FirstK"):
    """The values of the `k` earliest events that have one, in order of time; ties by event_id. A list."""

    kind: ClassVar[str] = "firsts"


class LastK(_EdgeEvents, frozen=True, tag="LastK"):
    """The values of the `k` latest events that have one, the latest last; ties by event_id. A list."""

    kind: ClassVar[str] = "lasts"


class TopK(Aggregation, frozen=True, kw_only=True, tag="TopK"):
    """The `k` most frequent values, the most frequent first, of equally frequent ones the smaller first. A list.

    Exact while there are at most `cap` distinct values in the window; beyond it the default with `DEFAULT_ERROR`.
    """

    k: int = 0
    cap: int = 256
    keeps_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        where = f"TopK {self.name!r}"
        check_whole(where, "k", self.k, 1, TOP_MAX)
        check_whole(where, "cap", self.cap, self.k, CAP_MAX)

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """How many, and of how many."""
        return {"k": self.k, "cap": self.cap}

    def output(self, column: AnyType | None) -> FeatureType:
        """A list of the type of the column."""
        return _list_of(column)

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the counts of the values."""
        return (*Aggregation.partials(self, column), self._partial)

    @property
    def _partial(self) -> Partial:
        return Partial("values", self.of or "", str(self.cap), (self.cap,))

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The values with the largest counts, and the rows where not all values are counted."""
        ragged = merged.cells[self._partial.name].take(rows)
        cells, row = ragged.cells, np.repeat(np.arange(len(ragged)), ragged.counts)
        failed = np.zeros(len(ragged), np.bool_)
        failed[row[cells["count"] < 0]] = True
        order = _by_count(ragged, row)
        kept = order[np.arange(len(row)) - np.repeat(ragged.edges[:-1], ragged.counts) < self.k]
        return tuples(Ragged(np.minimum(ragged.counts, self.k), cells[kept]), "value"), failed


class Histogram(Aggregation, frozen=True, kw_only=True, tag="Histogram"):
    """How many values lie below the first edge, from one edge to the next, and from the last edge on. A list of Int64.

    `edges` are ascending values of the column's type; an edge belongs to what begins there.
    """

    edges: Any = ()

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        where = f"Histogram {self.name!r}"
        edges = checked_list(where, "edges", self.edges, "[10, 100, 1000]")
        if not 1 <= len(edges) <= EDGES_MAX:
            raise DefinitionError(f"{where} has {len(edges)} edges; expected 1 to {EDGES_MAX}, e.g. edges=[10, 100]")
        msgspec.structs.force_setattr(self, "edges", edges)

    def accepts(self, column: AnyType) -> bool:
        """Numbers and instants."""
        return column.ordered

    def checked(self, where: str, column: AnyType | None) -> Aggregation:
        """Itself, with its edges in the form of the column. Raises `DefinitionError`."""
        assert column is not None
        try:
            units: list[Any] = [column.units(edge) for edge in self.edges]
        except RequestError as error:
            raise DefinitionError(f"{where}: edge {error}") from None
        if None in units or any(after <= before for before, after in pairwise(units)):
            raise DefinitionError(f"{where}: edges={list(self.edges)!r} do not ascend; expected e.g. edges=[10, 100]")
        edges = tuple(column.python(edge) for edge in units)
        for declared, edge in zip(self.edges, edges, strict=True):
            if isinstance(edge, decimal.Decimal) and edge != decimal.Decimal(str(declared)):
                raise DefinitionError(
                    f"{where}: edge {declared!r} is not a {column}, which would make {edge} of it, as of values"
                )
        return msgspec.structs.replace(self, edges=edges)

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """The edges."""
        return {"edges": self.edges}

    def output(self, column: AnyType | None) -> FeatureType:
        """A list of Int64."""
        return ListType(Int64)

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the counts between the edges."""
        return (*Aggregation.partials(self, column), self._partial(column))

    def _partial(self, column: AnyType | None) -> Partial:
        assert column is not None
        units = tuple(column.units(edge) for edge in self.edges)
        return Partial("between", self.of or "", f"{zlib.crc32(repr(units).encode()):08x}", units)

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The counts, zeros among them."""
        ragged = merged.cells[self._partial(column).name].take(rows)
        counts = np.zeros((len(ragged), len(self.edges) + 1), np.int64)
        counts[np.repeat(np.arange(len(ragged)), ragged.counts), ragged.cells["bin"]] = ragged.cells["count"]
        whole = np.full(len(ragged), counts.shape[1], np.int64)
        return tuples(Ragged(whole, counts.reshape(-1).view([("count", "<i8")])), "count"), False


def _by_count(ragged: Ragged, row: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The cells of each row, the largest count first; of equal counts the first stays first, which is the smaller.

    By one number where row, count and place fit, because numbers are sorted several times faster alone.
    """
    counts, place = ragged.cells["count"], np.arange(len(row)) - np.repeat(ragged.edges[:-1], ragged.counts)
    if not len(row):
        return row
    bits = [int(array.max()).bit_length() for array in (row, counts, place)]
    if counts.min() < 0 or sum(bits) > 62:
        return np.lexsort((place, -counts, row))
    key = ((row << bits[1] | int(counts.max()) - counts) << bits[2]) | place
    within: npt.NDArray[np.intp] = np.sort(key) & ((1 << bits[2]) - 1)
    return np.repeat(ragged.edges[:-1], ragged.counts) + within


def tuples(ragged: Ragged, field: str) -> Array:
    """One field of the cells of each row as a tuple; text is decoded."""
    values = ragged.cells[field].tolist()
    if ragged.cells[field].dtype.kind == "S":
        values = [value.decode() for value in values]
    edges, out = ragged.edges.tolist(), np.empty(len(ragged), object)
    for i in range(len(out)):
        out[i] = tuple(values[edges[i] : edges[i + 1]])
    return out


def _list_of(column: AnyType | None) -> FeatureType:
    assert column is not None
    return ListType(column)
