"""Publish what batch knows of a view to the online store, and move the cut.

    days since history began  ■ ■ ■ ■ ■ ■ ■ □ ■ ■      ■ folded, and from all that the archive holds of it
    gapless until                            ^
    the stream's watermark − lateness            ^     (where a stream has run)
    the cut                            midnight ^      the earlier of the two, never behind the present one; and where
                                                       the present one is while the stream has begun a partition of
                                                       which the archive holds nothing

History begins on `history_start`, or before it, on the first day that the archive holds: where it was raised past
archived events, a cut that passed them would hide their stream tiles, and no batch tile would count them.

A day is folded when the tiles table says so, atomically with the tiles: an empty day is known to be empty, and a day
that was folded before its last events had arrived is not yet done. Such a day stops the cut. A day that lacks nothing
but events later than their lateness, and is marked for repair, doesn't: up to its repair the law has that one
exception, and holding back all that follows would be worse.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import redis

from forebay.backfill.gaps import gap, mark_gap
from forebay.backfill.newest import newest_rows
from forebay.backfill.tiles import Entities, joined
from forebay.core.codec import NO_CUT
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, merge
from forebay.instants import DAY_US, day_text, day_us, floor_us, instant_text
from forebay.language.source import EventSource
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.offline.archive import first_kept, least_watermark_us
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_table import TilesTable
from forebay.online.lane import wall_clock_us
from forebay.online.publish import publish_rows, publish_tiles
from forebay.online.slot_state import read_cut, read_progress
from forebay.settings import PUBLISH_RATE

DATES_SHOWN_MAX = 10
TILES_MAX = 1_000_000
"""Tiles of a lifetime that are read at once."""


@dataclass(frozen=True)
class Reported:
    """What a publication did: entities with a blob or row, entities deleted, the cut, and why it is where it is.

    `behind` are days whose tiles lack events; `missing` says what is archived and not online (of a windowed view).
    """

    rows: int
    deleted: int
    cut_us: int | None
    remark: str
    behind: tuple[str, ...]
    seconds: float
    missing: str | None = None


def publish_view(
    client: redis.Redis,
    namespace: str,
    store: OfflineStore,
    view: AnyView,
    *,
    rate: int = PUBLISH_RATE,
    check: Callable[[], None] = lambda: None,
) -> Reported:
    """Publish all that is materialized of a view, at most `rate` values a second (0: as fast as the server takes them).

    `check` is called every few thousand entities of a windowed view; what it raises ends the publication, unfinished.
    Raises `FencedError` where another process is publishing it.
    """
    began, publications = time.perf_counter(), store.publications(view)
    last = publications.last()
    if isinstance(view, BatchView):
        newest = newest_rows(store, view)
        published = publish_rows(client, namespace, view, newest.rows, rate=rate, after=last)
        publications.note(published.number)
        remark = f"{published.rows} entities have a row; {newest.looked_at:,} rows were looked at"
        return Reported(published.rows, published.deleted, None, remark, (), time.perf_counter() - began)
    present_us = read_cut(client, namespace, view)
    cut_us, remark, behind = choose_cut(store, view, present_us, lambda: begun_online(client, namespace, view))
    if cut_us is None:
        mark_gap(client, namespace, store, view)
        return Reported(0, 0, None, remark, behind, time.perf_counter() - began, str(gap(store, view, present_us)))
    keys, tiles = tiles_before(store, view, cut_us)
    still = partial(gap, store, view, cut_us)
    done = publish_tiles(
        client,
        namespace,
        view,
        keys,
        tiles,
        cut_us,
        rate=rate,
        missing=lambda: still().until_us,
        after=last,
        check=check,
    )
    publications.note(done.number)
    mark_repairs(store, view, cut_us)
    return Reported(done.rows, done.deleted, cut_us, remark, behind, time.perf_counter() - began, str(still()))


def begun_online(client: redis.Redis, namespace: str, view: WindowedView) -> set[str]:
    """The source partitions of which the stream has applied an event of any entity."""
    known = [slot.partitions.items() for slot in read_progress(client, namespace, view)]
    return {name for partitions in known for name, one in partitions if one.newest_us != NO_CUT}


def choose_cut(
    store: OfflineStore, view: WindowedView, present_us: int, begun: Callable[[], set[str]]
) -> tuple[int | None, str, tuple[str, ...]]:
    """The next cut (`None`: there is nothing to publish), why it is there, and the days whose tiles are behind.

    `begun` tells the partitions of which events were applied online. One of which the archive has nothing yet holds the
    cut back: nobody knows how old its events are.
    """
    source = view.source
    archive = store.archive(source)
    positions = archive.positions()  # before the counts: what made the watermark is then among the counted events
    watermark_us = least_watermark_us(positions.values())
    unknown = begun() - {name for name, position in positions.items() if position.newest_us is not None}
    tiles, archived = store.tiles(view), archive.events_by_date()
    since = tiles.behind(archived)
    behind = tuple(since)
    late = _but_for_late_events(store, tiles, view, present_us, since) if behind else set()
    done = tiles.folded().keys() - (set(behind) - late)
    retained_us = archive.retained_us()
    began_us = _began_us(source, archived, retained_us)
    gap_us = began_us if retained_us is None else max(retained_us, began_us)
    while day_text(gap_us) in done:
        gap_us += DAY_US
    cut_us, remark = gap_us, f"{day_text(gap_us)} is the first day that is not folded"
    if day_text(gap_us) in behind:
        remark = f"{day_text(gap_us)} has got events since it was folded: materialize it again"
    if gap_us < source.history_start_us:
        remark = f"{remark}; {_raised(source, began_us)}"
    if watermark_us is not None and watermark_us - source.lateness_us < cut_us:
        cut_us = floor_us(watermark_us - source.lateness_us, DAY_US)
        remark = f"the stream's watermark is {instant_text(watermark_us)}, less {source.lateness} for late events"
    if unknown:
        cut_us = min(cut_us, max(present_us, began_us))
        remark = f"the stream has begun partition {min(unknown)!r}, of which the archive holds nothing yet"
    cut_us = max(cut_us, present_us)
    if retained_us is not None and (lacks := _lacks(view, cut_us, retained_us)):
        return None, f"nothing to publish: {remark}, and {lacks}", _shown(behind)
    if cut_us <= present_us:
        return present_us, f"{remark}; the cut stays at {instant_text(present_us)}", _shown(behind)
    if cut_us <= began_us:
        return None, f"nothing to publish of history, which starts on {day_text(began_us)}: {remark}", _shown(behind)
    return cut_us, f"cut at {instant_text(cut_us)}: {remark}", _shown(behind)


def _began_us(source: EventSource, archived: Mapping[str, int], retained_us: int | None) -> int:
    """Where history begins: no day that the archive holds is before it."""
    first = first_kept(archived, retained_us)
    return source.history_start_us if first is None else min(source.history_start_us, day_us(first))


def _raised(source: EventSource, began_us: int) -> str:
    """Why a day before `history_start` holds the cut, and what to do."""
    return (
        f"the archive holds events from {day_text(began_us)} on, before history_start {source.history_start}: set it "
        "back, apply, and materialize the days from there on"
    )


def _lacks(view: WindowedView, cut_us: int, retained_us: int) -> str | None:
    """Why a publication at a cut would be of half a window, if it would."""
    lookback_us = Layout.of(view).lookback_us
    if lookback_us is not None and cut_us - lookback_us >= retained_us:
        return None
    return f"the archive keeps events from {day_text(retained_us)} on, which windows at {day_text(cut_us)} begin before"


def _but_for_late_events(
    store: OfflineStore, tiles: TilesTable, view: WindowedView, present_us: int, since: Mapping[str, str]
) -> set[str]:
    """The days behind that are marked for repair (or a day that they are folded from is) and of which only late events
    can be missing in the tiles: the present cut has passed them, or the watermark had when they were folded.

    `since` has the days behind and the first one that each is folded from.
    """
    seen, lateness_us = tiles.watermarks_us(), view.source.lateness_us
    marked = set(store.repairs().scan(view.source.name)["day"].to_pylist())
    concerned = [day for day, first in since.items() if any(first <= mark <= day for mark in marked)]
    ends = {day: day_us(day) + DAY_US for day in concerned}
    return {day for day, end in ends.items() if end <= max(present_us, seen.get(day, NO_CUT + DAY_US) - lateness_us)}


def mark_repairs(store: OfflineStore, view: WindowedView, cut_us: int) -> None:
    """Mark the days before a published cut that have got events since they were folded, unless they are marked.

    A running stream marks what it finds to be late; this is for what arrived between the choice of the cut and its
    publication, and for history that was loaded afterwards.
    """
    name = view.source.name
    tiles, archived = store.tiles(view), store.archive(view.source).events_by_date()
    unfolded = archived.keys() - tiles.folded().keys()
    late = {day for day in unfolded | tiles.behind(archived).keys() if day_us(day) < cut_us}
    if late:
        late -= set(store.repairs().scan(name)["day"].to_pylist())
        store.repairs().append([(name, day, "before the cut") for day in sorted(late)], wall_clock_us())


def tiles_before(store: OfflineStore, view: WindowedView, cut_us: int) -> tuple[list[str], Tiles]:
    """The entities and the tiles of every ring that a window can need at or after the cut."""
    layout, table, entities = Layout.of(view), store.tiles(view), Entities()
    parts = []
    for ring, hop_us in enumerate(layout.hops_us):
        reach_us = layout.reaches_us[ring]
        if reach_us is None:
            edge_us = _edge_us(layout, ring, cut_us)
            parts.append(_settled(layout, table, hop_us, edge_us, entities))
            reach_us = cut_us - edge_us
        keys, tiles = table.read(hop_us, floor_us(cut_us - reach_us, hop_us), cut_us)
        parts.append(tiles.recoded(entities.codes(keys)[tiles.code]))
    return entities.keys, joined(layout, parts)


def _edge_us(layout: Layout, ring: int, cut_us: int) -> int:
    """Where the longest finite window of a lifetime's ring begins: before it only the lifetime counts."""
    lengths = [output.window.length_us for output in layout.outputs if output.ring == ring]
    return floor_us(cut_us - max((length for length in lengths if length is not None), default=0), layout.hops_us[ring])


def _settled(layout: Layout, table: TilesTable, hop_us: int, edge_us: int, entities: Entities) -> Tiles:
    """All tiles before an edge as one tile per entity, which the lifetime counts wherever it starts.

    They are read some days at a time, so that memory is that of the entities, however long history is.
    """
    settled = Tiles.empty(layout)
    for start_us, end_us in _runs(table.table.rows_by_date(), edge_us):
        keys, tiles = table.read(hop_us, start_us, end_us)
        if len(tiles):
            every = Tiles.joined([settled, tiles.recoded(entities.codes(keys)[tiles.code])])
            every.records["start"] = every.records["start"].min()
            settled = merge(layout, every.code, every.records, every.cells)
    return settled


def _runs(rows: Mapping[str, int], edge_us: int) -> Iterator[tuple[int, int]]:
    """Stretches of dates before an edge that hold some `TILES_MAX` rows each."""
    before = [day for day in sorted(rows) if day_us(day) < edge_us]
    while before:
        ends = np.searchsorted(np.cumsum([rows[day] for day in before]), TILES_MAX, "right")
        first, before = before[0], before[max(1, int(ends)) :]
        yield day_us(first), day_us(before[0]) if before else edge_us


def _shown(behind: tuple[str, ...]) -> tuple[str, ...]:
    more = len(behind) - DATES_SHOWN_MAX
    return behind if more <= 0 else (*behind[:DATES_SHOWN_MAX], f"and {more} more")
