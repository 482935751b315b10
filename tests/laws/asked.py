"""The oracle, asked about a feature as it is declared: what stands between a declaration and nested loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from forebay.language.aggregations import Aggregation
from forebay.language.durations import duration_us
from forebay.language.types import AnyType, DecimalType
from forebay.language.view import WindowedView
from tests.oracle import oracle


def asked(
    view: WindowedView, feature: Aggregation, text: str | None, triples: Sequence[Any], entity: Any, at_us: int
) -> tuple[Any, str]:
    """(value in stored units, status) of a feature's window for an entity; `triples` are the oracle's events."""
    kind, window = view.column(feature.of), feature.window(text)
    found: tuple[Any, str] = oracle(
        type(feature).__name__,
        triples,
        entity,
        at_us,
        window.length_us,
        window.hop_us,
        of=feature.of is not None,
        scale=kind.scale if isinstance(kind, DecimalType) else 0,
        ttl_us=view.ttl_us,
        default=feature.output(kind).units(feature.default),
        parameters=stored_parameters(feature, kind),
    )
    return found


def stored_parameters(feature: Aggregation, column: AnyType | None) -> dict[str, Any]:
    """The arguments of an aggregation of a column that are its own, in stored units."""
    own = feature.parameters(column)
    if "half_life" in own:
        return {"half_life_us": duration_us(own["half_life"])}
    return {"edges": [column.units(edge) for edge in own["edges"]]} if column and "edges" in own else own
