"""Arguments that aggregations have of their own: without these they cannot be made."""

from __future__ import annotations

from typing import Any

from forebay.language.aggregations import Aggregation
from forebay.language.types import AnyType, TimestampType

OWN: dict[str, dict[str, Any]] = {
    "FirstK": {"k": 2},
    "LastK": {"k": 3},
    "CountDistinct": {"k": 16},
    "Quantile": {"q": 0.9},
    "TopK": {"k": 2, "cap": 4},
    "Histogram": {"edges": [-1, 0, 2]},
    "DecayedCount": {"half_life": "45m"},
    "DecayedSum": {"half_life": "45m"},
}


def own_arguments(kind: type[Aggregation], column: AnyType | None = None) -> dict[str, Any]:
    """The arguments of an aggregation of a column of some type."""
    if kind.__name__ == "Histogram" and isinstance(column, TimestampType):
        return {"edges": ["1970-01-01T00:00:00Z", "2000-01-01T00:00:00Z"]}
    return OWN.get(kind.__name__, {})
