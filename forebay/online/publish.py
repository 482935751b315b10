"""Publishing: batch tiles and batch rows of a view into the online store, whole.

What is given is all that batch knows of the view; an entity that isn't in it has nothing from now on. The caller
chooses the cut (never past the stream's watermark less its lateness); that it never goes back is seen to here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import redis

from forebay.core import codec
from forebay.core.codec import NO_CUT
from forebay.core.identity import slots_of
from forebay.core.layout import Layout
from forebay.core.rows import Rows, newest
from forebay.core.tiles import Tiles, group_starts
from forebay.errors import StoreError
from forebay.instants import instant_text
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.online.chosen import Chosen, by_slot
from forebay.online.expiry import keep_us, lifetimes_s
from forebay.online.keys import BATCH, ROW, Keys
from forebay.online.lane import wall_clock_us
from forebay.online.progress import Cut
from forebay.online.publication import Publication
from forebay.online.resp import Commands, Scattered, set_commands
from forebay.online.row_columns import blob_columns
from forebay.online.slot_state import read_cuts
from forebay.settings import PUBLISH_RATE

PACK_ENTITIES, PACK_BYTES = 4096, 1 << 21
"""What is packed at a time, of the one or the other: enough for what an array operation costs by itself, little memory,
and not so much that who sends waits for the interpreter."""

LIFETIMES_ALIKE = 8
"""Lifetimes are alike where the logarithm (base e) of one is less than an eighth more than that of the other."""

Ints = npt.NDArray[np.int64]
Values = Sequence[pa.Array] | Scattered
T = TypeVar("T")


@dataclass(frozen=True)
class Published:
    """How many entities have a blob or row now, how many were deleted, the number of the publication, and the cut (of
    a windowed view).
    """

    rows: int
    deleted: int
    number: int
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
    missing: Callable[[], int] = lambda: NO_CUT,
    after: int = 0,
    check: Callable[[], None] = lambda: None,
) -> Published:
    """Publish the tiles of every ring of all entities: `tiles.code` indexes `keys`, every tile starts before the cut.

    `missing`, asked once all is written, tells up to where archived events will be missing online. The number of the
    publication is greater than `after`, and than that of any that the online store knows of. `check` is called between
    columns of some thousand entities; what it raises ends the publication, unfinished.
    Raises `StoreError` for a cut behind the current one, `FencedError` where another publisher is at it,
    `RequestError` for tiles that cannot be published.
    """
    layout = Layout.of(view)
    chosen = Chosen.of(layout, keys, tiles, cut_us)
    with Publication(client, namespace, view.key, rate=rate) as publication:
        if cut_us < publication.finished.cut_us:
            raise StoreError(
                f"View {view.key!r} is published up to {instant_text(publication.finished.cut_us)}; "
                f"one up to {instant_text(cut_us)} would lose what streams have dropped. Publish up to there or later."
            )
        publication.begin(chosen.entities, chosen.slots)
        cut = Cut(cut_us, publication.next_number(after))
        setting = _Setting.of(publication, Keys(namespace), view, BATCH, now_us)
        publication.write(_checked(_tile_commands(setting, layout, chosen, cut), check))
        deleted = publication.finish(BATCH, replace(cut, missing_us=missing()))
    return Published(len(chosen.entities), deleted, cut.publication, cut_us)


def _checked(columns: Iterator[T], check: Callable[[], None]) -> Iterator[T]:
    for column in columns:
        check()
        yield column


def mark_missing(client: redis.Redis, namespace: str, view: WindowedView, missing: Callable[[], int]) -> None:
    """Let readers of a view know up to where archived events are missing online, or that none are any more.

    Under the lease of its publisher, so that what a publication under way has not seen is not forgotten: `missing` is
    asked under it, too. Raises `FencedError` where another process goes on publishing.
    """
    marked = any(cut.missing_us != NO_CUT for cut in read_cuts(client, namespace, view))
    if marked or missing() != NO_CUT:
        with Publication(client, namespace, view.key) as publication:
            publication.mark(missing())


def publish_rows(
    client: redis.Redis,
    namespace: str,
    view: BatchView,
    table: pa.Table,
    *,
    now_us: int | None = None,
    rate: int = PUBLISH_RATE,
    after: int = 0,
) -> Published:
    """Publish the newest row of every entity: by `event_timestamp`, of equal ones by `created_timestamp`.

    `table` has the view's key columns, features, `event_timestamp` and `created_timestamp`. `after` as in
    `publish_tiles`. Raises `FencedError` where another publisher is at it.
    """
    rows = Rows.of(view, table)
    chosen, slots = newest(rows), slots_of(rows.keys)
    order = by_slot(slots, rows.event_us[chosen])
    with Publication(client, namespace, view.key, rate=rate) as publication:
        publication.begin(rows.keys, slots)
        setting = _Setting.of(publication, Keys(namespace), view, ROW, now_us)
        publication.write(
            setting.column(
                rows.keys.take(pa.array(some)),
                slots[some],
                blob_columns(view, rows, chosen[some]),
                rows.event_us[chosen[some]],
            )
            for some in pieces(order, np.zeros(len(order), np.int64))
        )
        cut = Cut(publication=publication.next_number(after))
        deleted = publication.finish(ROW, cut)
    return Published(len(order), deleted, cut.publication)


@dataclass(frozen=True)
class _Setting:
    """What is the same for all values of a publication.

    `clock_ms` is the server's; `together` is how many keys one of its commands may set.
    """

    keys: Keys
    view: AnyView
    kind: str
    now_us: int
    clock_ms: int
    together: int

    @classmethod
    def of(cls, publication: Publication, keys: Keys, view: AnyView, kind: str, now_us: int | None) -> _Setting:
        """That of a publication under way, now by default."""
        now_us = wall_clock_us() if now_us is None else now_us
        together = publication.together(expiring=keep_us(view) is not None)
        return cls(keys, view, kind, now_us, publication.clock_ms(), together)

    def column(self, entities: pa.Array, slots: Ints, values: Values, newest_us: Ints) -> tuple[Commands, Ints]:
        """What sets a value for each entity, and the slot of each."""
        return self._commands(entities, slots, values, newest_us), slots

    def _commands(self, entities: pa.Array, slots: Ints, values: Values, newest_us: Ints) -> Commands:
        """Set a value for each entity; it goes when nothing can need it, or up to an eighth of that later."""
        heads, tail = self.keys.parts(self.view.key, self.kind)
        lifetimes = lifetimes_s(self.view, newest_us, self.now_us)
        begins = None if self.together == 1 else firsts(slots, lifetimes, self.together)
        expires_ms = None if lifetimes is None else self.clock_ms + 1000 * lifetimes
        if not isinstance(values, Scattered):
            return set_commands(heads, slots, entities, tail, values, expires_ms, begins)
        from forebay.online.packing import set_scattered

        return set_scattered(heads, slots, entities, tail, values, expires_ms, begins)


def firsts(slots: Ints, kept_s: Ints | None, together: int) -> Ints:
    """Where commands begin that set values of one slot which are kept for about as long."""
    alike = [slots] if kept_s is None else [slots, np.floor(np.log(kept_s) * LIFETIMES_ALIKE)]
    starts = group_starts(*alike)
    sizes = np.diff(np.append(starts, len(slots)))
    place = np.arange(len(slots)) - np.repeat(starts, sizes)
    return np.flatnonzero(place % together == 0)


def _tile_commands(setting: _Setting, layout: Layout, chosen: Chosen, cut: Cut) -> Iterator[tuple[Commands, Ints]]:
    for some in pieces(chosen.order, chosen.counts * layout.event_bytes):
        values, entities = _blobs(layout, chosen, some, cut), chosen.entities.take(pa.array(some))
        yield setting.column(entities, chosen.slots[some], values, chosen.newest_us[some])


def _blobs(layout: Layout, chosen: Chosen, some: Ints, cut: Cut) -> Values:
    """The values of some entities: joined from where they lie by compiled loops, or gathered first."""
    newest_us = chosen.newest_us[some]
    of_all = {"kind": codec.BATCH, "commit": cut.publication, "cut_us": cut.cut_us}
    if not chosen.compiled:
        return codec.pack_columns(layout, chosen.tiles_of(some), newest_us, **of_all)
    headers = codec.pack_headers(layout, newest_us, **of_all)
    return Scattered(headers, chosen.tiles.records, *chosen.rows_of(some))


def pieces(order: Ints, sizes: Ints) -> Iterator[Ints]:
    """Entities to be packed together, in order, of which entity i takes `sizes[i]` bytes; at least one.

    Small pieces first: the server has nothing to do until the first is packed.
    """
    edges = np.append(0, np.cumsum(sizes[order]))
    first, share = 0, 1 / 16
    while first < len(order):
        last = int(np.searchsorted(edges, edges[first] + share * PACK_BYTES, "right")) - 1
        last = max(first + 1, min(last, first + int(share * PACK_ENTITIES), len(order)))
        yield order[first:last]
        first, share = last, min(2 * share, 1)
