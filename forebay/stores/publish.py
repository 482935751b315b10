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
from forebay.stores.expiry import lifetimes_s
from forebay.stores.keys import BATCH, ROW, Keys
from forebay.stores.lane import wall_clock_us
from forebay.stores.progress import Cut
from forebay.stores.publication import Publication
from forebay.stores.row_blob import pack_rows
from forebay.stores.wire import pack

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
) -> Published:
    """Publish the tiles of every ring of all entities: `tiles.code` indexes `keys`, every tile starts before the cut.

    Raises `StoreError` for a cut behind the current one, `FencedError` where another publisher is at it,
    `RequestError` for tiles that cannot be published.
    """
    layout = Layout.of(view)
    tiles = _publishable(layout, keys, tiles, cut_us)
    with Publication(client, namespace, view.key) as publication:
        if cut_us < publication.finished.cut_us:
            raise StoreError(
                f"View {view.key!r} is published up to {instant_text(publication.finished.cut_us)}; "
                f"one up to {instant_text(cut_us)} would lose what streams have dropped. Publish up to there or later."
            )
        rows = np.unique(tiles.code)
        deleted = publication.begin([keys[row] for row in rows.tolist()])
        cut = Cut(cut_us, publication.finished.publication + 1)
        now = wall_clock_us() if now_us is None else now_us
        publication.write(_tile_commands(Keys(namespace), layout, keys, tiles, rows, cut, now))
        publication.finish(BATCH, cut)
    return Published(len(rows), deleted, cut_us)


def publish_rows(
    client: redis.Redis, namespace: str, view: BatchView, table: pa.Table, *, now_us: int | None = None
) -> Published:
    """Publish the newest row of every entity: by `event_timestamp`, of equal ones by `created_timestamp`.

    `table` has the view's key columns, features, `event_timestamp` and `created_timestamp`. Raises `FencedError` where
    another publisher is at it.
    """
    rows = Rows.of(view, table)
    chosen = newest(rows)
    now = wall_clock_us() if now_us is None else now_us
    with Publication(client, namespace, view.key) as publication:
        deleted = publication.begin(rows.keys)
        publication.write(_row_commands(Keys(namespace), view, rows, chosen, now))
        publication.finish(ROW, None)
    return Published(len(rows.keys), deleted)


def _publishable(layout: Layout, keys: Sequence[str], tiles: Tiles, cut_us: int) -> Tiles:
    """The tiles that a window can need at or after the cut, checked and sorted by entity."""
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
    if (np.diff(tiles.code) < 0).any():
        tiles = tiles.take(np.argsort(tiles.code, kind="stable"))
    return expire(layout, tiles, np.full(len(keys), cut_us, np.int64))


def _tile_commands(
    keys: Keys, layout: Layout, entities: Sequence[str], tiles: Tiles, rows: Ints, cut: Cut, now_us: int
) -> Iterator[bytes]:
    for first in range(0, len(rows), PACK_ENTITIES):
        mine = rows[first : first + PACK_ENTITIES]
        low, high = np.searchsorted(tiles.code, (mine[0], mine[-1] + 1))
        some = Tiles(np.searchsorted(mine, tiles.code[low:high]), tiles.records[low:high])
        blobs = codec.pack(layout, some, len(mine), kind=codec.BATCH, commit=cut.publication, cut_us=cut.cut_us)
        names = [entities[row] for row in mine.tolist()]
        yield from _set_commands(keys, layout.view, BATCH, names, blobs, codec.newest_of(some, len(mine)), now_us)


def _row_commands(keys: Keys, view: BatchView, rows: Rows, newest: Ints, now_us: int) -> Iterator[bytes]:
    for first in range(0, len(newest), PACK_ENTITIES):
        mine = newest[first : first + PACK_ENTITIES]
        names = rows.keys[first : first + PACK_ENTITIES]
        yield from _set_commands(keys, view, ROW, names, pack_rows(view, rows, mine), rows.event_us[mine], now_us)


def _set_commands(
    keys: Keys,
    view: AnyView,
    kind: str,
    entities: Sequence[str],
    blobs: Sequence[bytes],
    newest_us: Ints,
    now_us: int,
) -> list[bytes]:
    names = keys.many(view.key, entities, slots_of(entities).tolist(), kind)
    lifetimes = lifetimes_s(view, newest_us, now_us)
    if lifetimes is None:
        return [pack(("SET", name, blob)) for name, blob in zip(names, blobs, strict=True)]
    return [
        pack(("SET", name, blob, "EX", lifetime)) for name, blob, lifetime in zip(names, blobs, lifetimes, strict=True)
    ]
