"""How large a number may be that a view sums: so large that no sum of them overflows, in whatever order it is made.

A sum that overflowed on its way would be an error in one path and a value in another one, which adds the same numbers
in another order. What is beyond its bound is refused at ingest, and null where a view derives it.
"""

from __future__ import annotations

from forebay.language.windowed_view import WindowedView

Bound = int | float
"""The largest size of a value, in stored units: an int of an exact column, a float of a Float64."""


def bounds_of(view: WindowedView) -> dict[str, Bound]:
    """The bounds of those columns, of the source or derived, that have one: the least that some feature asks for."""
    bounds: dict[str, Bound] = {}
    for feature in view.features:
        column = view.column(feature.of)
        if column is not None:
            for partial in feature.partials(column):
                bound = partial.bound(column.storage)
                if bound is not None:
                    bounds[partial.column] = min(bound, bounds.get(partial.column, bound))
    return bounds
