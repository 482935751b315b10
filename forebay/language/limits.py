"""How large a number may be that a view sums: so large that no sum of them overflows, in whatever order it is made.

A sum that overflowed on its way would be an error in one path and a value in another one, which adds the same numbers
in another order. What is beyond its limit is refused at ingest, and null where a view derives it.
"""

from __future__ import annotations

from collections.abc import Iterable

from forebay.language.windowed_view import WindowedView

Limit = int | float
"""The largest size of a value, in stored units: an int of an exact column, a float of a Float64."""


def limits_of(view: WindowedView) -> dict[str, Limit]:
    """The limits of those columns, of the source or derived, that have one."""
    return least(
        (partial.column, limit)
        for feature in view.features
        for column in [view.column(feature.of)]
        if column is not None
        for partial in feature.partials(column)
        if (limit := partial.limit(column.storage)) is not None
    )


def least(limits: Iterable[tuple[str, Limit]]) -> dict[str, Limit]:
    """Of each column the least of its limits, which all who sum it can live with."""
    found: dict[str, Limit] = {}
    for column, limit in limits:
        found[column] = min(limit, found.get(column, limit))
    return found
