"""Aggregations in which an event counts the less the older it is: it halves every half-life."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from forebay.algebra.partials import Partial, faded
from forebay.errors import DefinitionError
from forebay.instants import duration_text
from forebay.language.aggregation import Aggregation, Array, Merged, Rows, scale_of
from forebay.language.durations import declared_us
from forebay.language.types import AnyType, FeatureType, Float64


class _Decayed(Aggregation, frozen=True, kw_only=True):
    """A sum over events of something · 2^(−(T − ts) / half_life)."""

    half_life: str = ""
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        Aggregation.__post_init__(self)
        if not isinstance(self.half_life, str) or not self.half_life:
            raise DefinitionError(
                f"{type(self).__name__} {self.name!r} names no half-life; say after how long an event counts half, "
                "e.g. half_life='1h'"
            )
        self._half_life_us()

    def _half_life_us(self) -> int:
        us = declared_us(f"{type(self).__name__} {self.name!r}: half_life", self.half_life)
        assert us is not None
        return us

    def parameters(self, column: AnyType | None) -> dict[str, Any]:
        """The half-life."""
        return {"half_life": duration_text(self._half_life_us())}

    def output(self, column: AnyType | None) -> FeatureType:
        """Float64."""
        return Float64

    def partials(self, column: AnyType | None) -> tuple[Partial, ...]:
        """Present, and the sum as of the newest event."""
        return (*Aggregation.partials(self, column), self._partial)

    @property
    def _partial(self) -> Partial:
        us = self._half_life_us()
        return Partial(self.kind, self.of or "", duration_text(us), (us,))

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The sum as of the instant."""
        name = self._partial.name
        fields = {suffix: merged.fields[name + suffix][rows] for suffix in ("", "__ts")}
        values = faded(fields, merged.instant[rows], self._half_life_us())
        return values, ~np.isfinite(values)


class DecayedCount(_Decayed, frozen=True, tag="DecayedCount"):
    """How many events, or with `of` how many values that are not null, each halved every `half_life`. Float64."""

    kind: ClassVar[str] = "fading_count"
    of_required: ClassVar[bool] = False


class DecayedSum(_Decayed, frozen=True, tag="DecayedSum"):
    """The sum of values, each halved every `half_life` since its event. Float64."""

    kind: ClassVar[str] = "fading_total"

    def accepts(self, column: AnyType) -> bool:
        """Numbers only."""
        return column.summable

    def compute(self, merged: Merged, rows: Rows, column: AnyType | None) -> tuple[Array, Any]:
        """The sum as of the instant, in whole units of a Decimal."""
        values, failed = _Decayed.compute(self, merged, rows, column)
        return values / 10.0 ** scale_of(column), failed
