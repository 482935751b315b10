"""Aggregations that answer approximately, with a stated error, and with the same bits in every path.

Each is a function of the events in the window alone: neither their order nor how they were cut into tiles is in it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from forebay.algebra.bins import middles_of
from forebay.algebra.partials import Partial
from forebay.errors import DefinitionError
from forebay.language.aggregation import Aggregation, Array, Merged, Numeric, Rows, scale_of
from forebay.language.arguments import check_whole
from forebay.language.types import AnyType, FeatureType, Float64, Float64Type, Int64

ENTRIES_MIN, ENTRIES_MAX = 16, 4096
"""Hashes of a CountDistinct: 8 bytes each, in every tile that has so many."""
PARTS = 1_000_000
"""A quantile is counted in millionths, so that its rank is exact."""


class CountDistinct(Aggregation, frozen=True, kw_only=True, tag="CountDistinct"):
    """How many distinct values: exact up to `k`, beyond it an estimate with a relative standard error of 1/√(k − 1).

    A trimmed theta sketch: of the hashes of all values the k + 1 smallest are kept, and the largest of them says how
    dense they lie. Int64. Source: Dasgupta, Lang, Rhodes, Thaler, "A Framework for Estimating Stream Expression
    Cardinalities" (2016).
    """

    k: int = 1024
    keeps_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        check_whole(f"CountDistinct {self.name!r}", "k", self.k, ENTRIES_MIN, ENTRIES_MAX)

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """How many hashes are kept."""
        return {"k": self.k}

    def output(self, column: AnyType | None) -> FeatureType:
        """Int64."""
        return Int64

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the smallest hashes."""
        return (*Aggregation.partials(self, column), self._partial)

    @property
    def _partial(self) -> Partial:
        return Partial("hashes", self.of or "", str(self.k), (self.k,))

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The number of hashes, or k over the share of all hashes that lie below the next one."""
        ragged = merged.cells[self._partial.name].take(rows)
        distinct = ragged.counts.copy()
        trimmed = np.flatnonzero(distinct > self.k)
        bound = ragged.cells["hash"][ragged.edges[trimmed] + self.k].astype(np.float64)
        distinct[trimmed] = np.rint(self.k * 2.0**64 / bound).astype(np.int64)
        return distinct, False


class Quantile(Numeric, frozen=True, kw_only=True, tag="Quantile"):
    """The value of rank ⌊q·(n − 1)⌋ among the n values in ascending order, to within 0.8 % of itself. Float64.

    Values are counted in fixed logarithmic bins (`forebay.algebra.bins`); the answer is the middle of a bin. Whole
    numbers below 128 (units of a Decimal) are exact. Below 2^-40 all is 0; from 2^64 on it is `DEFAULT_ERROR`.
    """

    q: float = 0.5

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        where, q = f"Quantile {self.name!r}", self.q
        if isinstance(q, bool) or not isinstance(q, int | float) or not 0 <= q <= 1:
            raise DefinitionError(f"{where}: q={q!r} is no share; expected a number from 0 to 1, e.g. q=0.5")
        if q != round(q * PARTS) / PARTS:
            raise DefinitionError(f"{where}: q={q!r} is finer than a millionth; write {round(q, 6)!r}")

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """The share of values below it."""
        return {"q": float(self.q)}

    def output(self, column: AnyType | None) -> FeatureType:
        """Float64."""
        return Float64

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the counts of the bins."""
        return (*Aggregation.partials(self, column), Partial("bins", self.of or ""))

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The middle of the bin of the rank."""
        ragged, count = merged.cells[f"bins_{self.of}"].take(rows), merged.present(self.of)[rows]
        rank = round(self.q * PARTS) * (count - 1) // PARTS
        sums = np.cumsum(ragged.cells["count"])
        before = np.concatenate(([0], sums))[ragged.edges[:-1]]
        chosen = np.searchsorted(sums, before + rank, "right")
        whole = not isinstance(column, Float64Type)
        values = middles_of(ragged.cells["bin"][chosen], whole=whole) / 10.0 ** scale_of(column)
        failed = np.isnan(values)
        return np.where(failed, 0.0, values), failed
