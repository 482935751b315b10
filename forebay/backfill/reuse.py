"""Tiles of a view from those of another one: a new version, or a view beside it, without reading the archive again.

    spend@1   hops   15m, 1h         counts, sums                     donor
    spend@2   hops       1h, 6h      counts, sums (hence means)       each tile is some donor's tiles, merged

The tiles of a donor serve where they are of the same events (source, entity, condition, derived columns), hold every
partial that the view needs, and have a hop that divides the view's finest. A day is reused if the donor was folded from
just as many events of it as the archive holds now; another one is folded anew. Whatever lacks a partial is folded anew
as a whole: keys and instants, most of what a fold reads, would be read for it anyway.

Lives here: which tiles can be reused, and reading them. Merging partials is exact but for floats, which round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, roll_up
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_columns import HOP_US, from_table, tiles_schema


@dataclass(frozen=True)
class Donor:
    """A view whose tiles of one hop become another's."""

    view: WindowedView
    hop_us: int


def donor_of(view: WindowedView, others: Iterable[WindowedView]) -> Donor | None:
    """The view among others whose tiles serve best: those of the coarsest hop, which are fewest."""
    found = [donor for other in others if (donor := _donor(view, other)) is not None]
    return max(found, key=lambda donor: (donor.hop_us, donor.view.key), default=None)


def reusable_days(
    store: OfflineStore, donor: Donor, archived: Mapping[str, int], watermark_us: int | None
) -> dict[str, int]:
    """The days whose tiles can be taken over, each with the events that they were folded from.

    After a stream has run, a day must also be known to have been folded under a watermark of it.
    """
    tiles = store.tiles(donor.view)
    seen = tiles.watermarks_us()
    return {
        day: events
        for day, events in tiles.folded().items()
        if events == archived.get(day, 0) and (watermark_us is None or day in seen)
    }


def tiles_from(
    store: OfflineStore, donor: Donor, view: WindowedView, start_us: int, end_us: int
) -> tuple[list[str], Tiles]:
    """The entities and the tiles of every ring of a view in `[start, end)`, by the donor's."""
    layout = Layout.of(view)
    rows = store.tiles(donor.view).rows(donor.hop_us, start_us, end_us).select(tiles_schema(layout).names)
    place = rows.column_names.index(HOP_US)
    hops = np.full(len(rows), layout.hops_us[0], np.int64)
    keys, tiles = from_table(layout, rows.set_column(place, HOP_US, [hops]))
    tiles.records["start"] -= tiles.records["start"] % layout.hops_us[0]
    return keys, roll_up(layout, tiles)


def _donor(view: WindowedView, other: WindowedView) -> Donor | None:
    if other.key == view.key or view.sessions is not None or other.sessions is not None:
        return None
    same_events = (view.source, view.entity.keys, view.where) == (other.source, other.entity.keys, other.where)
    if not same_events or any(other.derived.get(name) != one for name, one in view.derived.items()):
        return None
    mine, theirs = tiles_schema(Layout.of(view)), tiles_schema(Layout.of(other))
    if any(field not in theirs for field in mine):
        return None
    hops = [hop_us for hop_us in Layout.of(other).hops_us if Layout.of(view).hops_us[0] % hop_us == 0]
    return Donor(other, max(hops)) if hops else None
