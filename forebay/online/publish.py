"""Publishing: batch tiles and batch rows of a view into the online store, whole.

What is given is all that batch knows of the view; an entity that isn't in it has nothing from now on. The caller
chooses the cut (never past the stream's watermark less its lateness); that it never goes back is seen to here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis

from forebay.core import codec
from forebay.core.identity import slots_of
from forebay.core.layout import PENDING, Layout
from forebay.core.rows import Rows, newest
from forebay.core.tiles import Tiles, expire
from forebay.errors import RequestError, StoreError
from forebay.instants import duration_text, instant_text
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.online.expiry import lifetimes_s
from forebay.online.keys import BATCH, ROW, Keys
from forebay.online.lane import wall_clock_us
from forebay.online.progress import Cut
from forebay.online.publication import Publication
from forebay.online.resp import set_commands
from forebay.online.row_blob import pack_rows
from forebay.settings import PUBLISH_RATE

PACK_ENTITIES = 2048
"""Entities that are packed at a time, which bounds memory."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Published:
    """How many entities have a blob or row now, how many were deleted, and the cut (of a windowed view)."""

    rows: int
    deleted: int
    cut_us: int | None = None


def publish_tiles(
    client: redis.Redis,
    namespace: str,
    view: WindowedView,
    keys: Sequence[str],
    tiles: Tiles,
    cut_us: int,
    *,
    now_us: int | None = None,
    rate: int = PUBLISH_RATE,
) -> Published:
    """Publish the tiles of every ring of all entities: `tiles.code` indexes `keys`, every tile starts before the cut.

    Raises `StoreError` for a cut behind the current one, `FencedError` where another publisher is at it,
    `RequestError` for tiles that cannot be published.
    """
    layout = Layout.of(view)
    keys, slots, tiles = _publishable(layout, keys, tiles, cut_us)
    with Publication(client, namespace, view.key, rate=rate) as publication:
        if cut_us < publication.finished.cut_us:
            raise StoreError(
                f"View {view.key!r} is published up to {instant_text(publication.finished.cut_us)}; "
                f"one up to {instant_text(cut_us)} would lose what streams have dropped. Publish up to there or later."
            )
        deleted = publication.begin(keys, slots)
        cut = Cut(cut_us, publication.finished.publication + 1)
        setting = _Setting(Keys(namespace), view, BATCH, now_us, publication.clock_ms())
        publication.write(_tile_commands(setting, layout, keys, slots, tiles, cut))
        publication.finish(BATCH, cut)
    return Published(len(keys), deleted, cut_us)


def publish_rows(
    client: redis.Redis,
    namespace: str,
    view: BatchView,
    table: pa.Table,
    *,
    now_us: int | None = None,
    rate: int = PUBLISH_RATE,
) -> Published:
    """Publish the newest row of every entity: by `event_timestamp`, of equal ones by `created_timestamp`.

    `table` has the view's key columns, features, `event_timestamp` and `created_timestamp`. Raises `FencedError` where
    another publisher is at it.
    """
    rows = Rows.of(view, table)
    slots = slots_of(rows.keys)
    order = np.argsort(slots, kind="stable")
    entities, slots, chosen = [rows.keys[place] for place in order.tolist()], slots[order], newest(rows)[order]
    with Publication(client, namespace, view.key, rate=rate) as publication:
        deleted = publication.begin(entities, slots)
        setting = _Setting(Keys(namespace), view, ROW, now_us, publication.clock_ms())
        publication.write(
            setting.commands(
                entities[some], slots[some], pack_rows(view, rows, chosen[some]), rows.event_us[chosen[some]]
            )
            for some in _pieces(len(entities))
        )
        publication.finish(ROW, None)
    return Published(len(entities), deleted)


def _publishable(layout: Layout, keys: Sequence[str], tiles: Tiles, cut_us: int) -> tuple[list[str], Ints, Tiles]:
    """Entities by slot, their slots, and the tiles by entity that a window can need at or after the cut, checked."""
    view, hop_us = layout.view.key, layout.hops_us[-1]
    if cut_us % hop_us:
        raise RequestError(
            f"View {view!r} cannot be cut at {instant_text(cut_us)}: tiles of {duration_text(hop_us)} would lie on "
            "both sides. Cut at a midnight (UTC)."
        )
    if len(set(keys)) != len(keys):
        raise RequestError(f"View {view!r}: an entity is named twice in the keys of its tiles; merge its tiles")
    wrong = (tiles.records["start"] >= cut_us) | (tiles.records["ring"] == PENDING)
    if wrong.any():
        start = int(tiles.records["start"][wrong][0])
        raise RequestError(
            f"View {view!r}: a tile at {instant_text(start)} is pending or not before the cut {instant_text(cut_us)}; "
            "roll up and filter the tiles first"
        )
    tiles = expire(layout, tiles, np.full(len(keys), cut_us, np.int64))
    having = np.flatnonzero(np.bincount(tiles.code, minlength=len(keys)))
    entities = [keys[row] for row in having.tolist()]
    slots = slots_of(entities)
    order = np.argsort(slots, kind="stable")
    place = np.zeros(len(keys), np.int64)
    place[having[order]] = np.arange(len(order))
    tiles = tiles.recoded(place[tiles.code])
    if (np.diff(tiles.code) < 0).any():
        tiles = tiles.take(np.argsort(tiles.code, kind="stable"))
    return [entities[row] for row in order.tolist()], slots[order], tiles


@dataclass(frozen=True)
class _Setting:
    """What is the same for all values of a publication; `clock_ms` is the server's."""

    keys: Keys
    view: AnyView
    kind: str
    now_us: int | None
    clock_ms: int

    def commands(self, entities: Sequence[str], slots: Ints, blobs: Sequence[bytes], newest_us: Ints) -> pa.BinaryArray:
        """A SET for each entity; the value goes when nothing can need it."""
        heads, tail = self.keys.parts(self.view.key, self.kind)
        lifetimes = lifetimes_s(self.view, newest_us, wall_clock_us() if self.now_us is None else self.now_us)
        expires_ms = None if lifetimes is None else self.clock_ms + 1000 * lifetimes
        names, values = pa.array(entities, pa.string()), pa.array(blobs, pa.binary())
        return set_commands(pa.array(heads).take(pa.array(slots)), names, tail, values, expires_ms)


def _tile_commands(
    setting: _Setting, layout: Layout, entities: Sequence[str], slots: Ints, tiles: Tiles, cut: Cut
) -> Iterator[pa.BinaryArray]:
    for some in _pieces(len(entities)):
        low, high = np.searchsorted(tiles.code, (some.start, some.stop))
        mine, count = tiles.between(low, high), len(entities[some])
        mine = mine.recoded(mine.code - some.start)
        blobs = codec.pack(layout, mine, count, kind=codec.BATCH, commit=cut.publication, cut_us=cut.cut_us)
        yield setting.commands(entities[some], slots[some], blobs, codec.newest_of(mine, count))


def _pieces(count: int) -> Iterator[slice]:
    return (slice(first, first + PACK_ENTITIES) for first in range(0, count, PACK_ENTITIES))
