"""Tiles of a view from those of another one: a new version, or a view beside it, without reading the archive again.

    spend@1   hops   15m, 1h         counts, sums                     donor
    spend@2   hops       1h, 6h      counts, sums (hence means)       each tile is some donor's tiles, merged

The tiles of a donor serve where they are of the same events (source, entity, condition, derived columns), hold some
partial that the view needs, and have a hop that divides the view's finest. A day is reused if the donor was folded from
just as many events of it as the archive holds now; another one is folded anew. What the donor lacks is folded from the
archive, alone, and laid beside what it has: tiles of the same events are tiles of the same entities and instants, and
where they are not, somebody added events meanwhile, and the day is folded anew.

    needed     events  total_amount  present_amount  highest_amount
    donor         ■          ■              ■                            15m
    folded        ■                         ■               ■            15m, of the columns that these take
    together      ■          ■              ■               ■

Lives here: which tiles can be reused, reading and completing them. Merging partials is exact but for floats, which
round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import pyarrow as pa

from forebay.algebra.partials import Partial
from forebay.backfill.dates import EventsOfDates
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, merge, roll_up
from forebay.instants import duration_text
from forebay.language.aggregations import Count
from forebay.language.limits import limits_of
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_columns import HOP_US, from_table, tiles_schema


@dataclass(frozen=True)
class Donor:
    """A view whose tiles of one hop become another's, but for the partials that it lacks."""

    view: WindowedView
    hop_us: int
    lacking: tuple[Partial, ...] = ()


def donors_of(view: WindowedView, others: Iterable[WindowedView]) -> list[Donor]:
    """The views among others whose tiles serve, the best first: it lacks least, and has the coarsest hop, so the fewest
    tiles.
    """
    found = [donor for other in others if (donor := _donor(view, other)) is not None]
    return sorted(found, key=lambda donor: (-len(donor.lacking), donor.hop_us, donor.view.key), reverse=True)


def reuse_of(
    store: OfflineStore,
    view: WindowedView,
    others: Iterable[WindowedView],
    archived: Mapping[str, int],
    watermark_us: int | None,
    wanted: Collection[str] | None = None,
) -> tuple[Donor, dict[str, int]] | None:
    """The donor among others that has most of the days that are wanted (`None`: of all), of as many the best, and these
    days as `reusable_days`; `None` where nobody has any.

    So of two new versions that are declared together neither waits for the other, while an old one has its tiles.
    """
    found = []
    for donor in donors_of(view, others):
        days = reusable_days(store, donor, archived, watermark_us)
        found.append((donor, {day: events for day, events in days.items() if wanted is None or day in wanted}))
    best = max(found, key=lambda one: len(one[1]), default=None)
    return best if best is not None and best[1] else None


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


@dataclass(frozen=True)
class Taken:
    """Tiles of a view that were made of a donor's, and how many archived events were read to complete them."""

    keys: list[str]
    tiles: Tiles
    events: int = 0


def tiles_from(store: OfflineStore, donor: Donor, view: WindowedView, start_us: int, end_us: int) -> Taken | None:
    """The tiles of every ring of a view in `[start, end)`, by the donor's; `None`: those are of other events by now."""
    layout = Layout.of(view)
    if not donor.lacking:
        keys, tiles = _finest(store, donor, layout, start_us, end_us)
        return Taken(keys, roll_up(layout, tiles))
    there, lacking = _parts(view, donor.lacking)
    keys, mine = _finest(store, donor, Layout.of(there), start_us, end_us)
    reader = EventsOfDates(store.archive(view.source), lacking)
    events = reader.read(start_us, end_us)
    found = events.keys.to_pylist()
    if set(keys) != set(found):
        return None
    places = {key: code for code, key in enumerate(keys)}
    codes = np.fromiter((places[key] for key in found), np.int64, len(found))
    other = fold(Layout.of(lacking), events)
    together = _together(layout, mine, _sorted(other.recoded(codes[other.code])))
    return None if together is None else Taken(keys, roll_up(layout, together), reader.events)


def _finest(store: OfflineStore, donor: Donor, layout: Layout, start_us: int, end_us: int) -> tuple[list[str], Tiles]:
    """The donor's tiles as those of the finest ring of a layout, of which it has all partials."""
    rows = store.tiles(donor.view).rows(donor.hop_us, start_us, end_us).select(tiles_schema(layout).names)
    place, hop_us = rows.column_names.index(HOP_US), layout.hops_us[0]
    keys, tiles = from_table(layout, rows.set_column(place, HOP_US, [np.full(len(rows), hop_us, np.int64)]))
    tiles.records["start"] -= tiles.records["start"] % hop_us
    return keys, merge(layout, tiles.code, tiles.records, tiles.cells)


def _parts(view: WindowedView, lacking: Iterable[Partial]) -> tuple[WindowedView, WindowedView]:
    """The view by the features of which a donor has all partials, and by the others; both in the view's finest hop."""
    missing, hop = set(lacking), duration_text(Layout.of(view).hops_us[0])
    names = {feature.name for feature in view.features}
    pace = Count(
        next(f"hops{n}" for n in range(len(names) + 1) if f"hops{n}" not in names), windows=[hop], hop=hop, default=0
    )
    needs = [not missing.isdisjoint(feature.partials(view.column(feature.of))) for feature in view.features]
    there = [feature for feature, lacks in zip(view.features, needs, strict=True) if not lacks]
    others = [feature for feature, lacks in zip(view.features, needs, strict=True) if lacks]
    return (
        msgspec.structs.replace(view, features=[*there, pace]),
        msgspec.structs.replace(view, features=[*others, pace]),
    )


def _together(layout: Layout, mine: Tiles, other: Tiles) -> Tiles | None:
    """Tiles with the fields of both; `None` where they are not of the same events."""
    same = len(mine) == len(other) and (mine.code == other.code).all()
    if not same or any((mine.records[name] != other.records[name]).any() for name in ("start", "events", "newest")):
        return None
    records = np.zeros(len(mine), layout.record)
    for name in layout.record.names or ():
        records[name] = (mine if name in (mine.records.dtype.names or ()) else other).records[name]
    return Tiles(mine.code, records, {one.name: {**other.cells, **mine.cells}[one.name] for one in layout.ragged})


def _sorted(tiles: Tiles) -> Tiles:
    return tiles.take(np.lexsort((tiles.records["start"], tiles.code)))


def _donor(view: WindowedView, other: WindowedView) -> Donor | None:
    if other.key == view.key or view.sessions is not None or other.sessions is not None:
        return None
    same_events = (view.source, view.entity.keys, view.where) == (other.source, other.entity.keys, other.where)
    if not same_events or any(other.derived.get(name) != one for name, one in view.derived.items()):
        return None
    layout, lacking = Layout.of(view), _lacking(Layout.of(view), Layout.of(other))
    there = _parts(view, lacking)[0] if lacking else view
    hops = [hop_us for hop_us in Layout.of(other).hops_us if layout.hops_us[0] % hop_us == 0]
    if not hops or (lacking and not Layout.of(there).partials):
        return None
    return Donor(other, max(hops), lacking)


def _lacking(layout: Layout, theirs: Layout) -> tuple[Partial, ...]:
    """The partials of a layout that tiles of another one do not have, or have of other values.

    A column that is summed is without the values that are too large for that, in each of its partials.
    """
    schema, limits, other = tiles_schema(theirs), limits_of(layout.view), limits_of(theirs.view)
    missing = {partial for partial in layout.partials if not _has(schema, layout, partial)}
    unlike = {column for column in {*limits, *other} if limits.get(column) != other.get(column)}
    unlike |= {partial.column for partial in missing if partial.column in limits}
    return tuple(partial for partial in layout.partials if partial in missing or partial.column in unlike)


def _has(theirs: pa.Schema, layout: Layout, partial: Partial) -> bool:
    """Whether tiles have a partial, in the same types."""
    mine = tiles_schema(layout)
    names = [partial.name] if partial.is_ragged else layout.fields[partial]
    return all(name in theirs.names and theirs.field(name) == mine.field(name) for name in names)
