"""Fold the archive into tiles: the stream's fold, run over whole days.

    archive, some days at a time → select → fold → roll up → tiles/<view>, exactly those dates, one commit

Days are folded in chunks, so that memory is bounded by the events of a chunk; hops divide a day, so no tile lies
across two. Each date is recorded as folded in the same commit, with the number of archived events that were folded:
a date without events is known to be empty, and one that has got more events since is known to be behind. So is the
archive's watermark of that moment: of a date that it had passed, only late events can be missing. Tiles that are made
of another view's (`forebay.backfill.reuse`) come with the counts and the watermarks of that view's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from forebay.backfill.dates import EventsOfDates, SessionsOfDates
from forebay.backfill.partitions import days
from forebay.backfill.reuse import reuse_of, tiles_from
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles, fold, roll_up
from forebay.errors import RequestError
from forebay.instants import DAY_US, day_us, instant_text
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore

EVENTS_MAX = 2_000_000
"""Archived events that are folded at once: some hundred bytes each while they are columns."""


@dataclass(frozen=True)
class Folded:
    """What a fold read and wrote; `reused` are dates whose tiles were made of another view's."""

    dates: int
    events: int
    rows: int
    entities: int
    bytes: int
    seconds: float
    reused: int = 0


def fold_dates(
    store: OfflineStore, view: WindowedView, start_us: int, end_us: int, others: Iterable[WindowedView] = ()
) -> Folded:
    """Replace a view's tiles of the UTC dates in `[start, end)` by the fold of what the archive holds of them.

    Of days of which one of `others` has tiles that serve, these are taken over (`forebay.backfill.reuse`), completed by
    what they lack.
    One commit: either all of the dates are replaced or none. Raises `RequestError` unless the range is one of whole
    dates.
    """
    began = time.perf_counter()
    if start_us % DAY_US or end_us % DAY_US or start_us >= end_us:
        raise RequestError(
            f"View {view.key!r}: [{instant_text(start_us)}, {instant_text(end_us)}) is no range of UTC dates; "
            "tiles are folded by whole dates"
        )
    layout, archive = Layout.of(view), store.archive(view.source)
    watermark_us = archive.watermark_us()  # before the events: those below it less the lateness are then among them
    reader = EventsOfDates(archive, view) if view.sessions is None else SessionsOfDates(archive, view)
    wanted = set(days(start_us, end_us))
    donor, taken = reuse_of(store, view, others, reader.dates, watermark_us, wanted) or (None, dict[str, int]())
    entities = Entities()
    parts: list[Tiles] = []
    completed = 0
    for first_us, last_us, reused in _chunks(reader.dates, taken, start_us, end_us):
        made = tiles_from(store, donor, view, first_us, last_us) if reused and donor else None
        if made is None:
            taken = {day: count for day, count in taken.items() if day not in set(days(first_us, last_us))}
            events = reader.read(first_us, last_us)
            keys, tiles = events.keys.to_pylist(), roll_up(layout, fold(layout, events))
        else:
            keys, tiles, completed = made.keys, made.tiles, completed + made.events
        parts.append(tiles.recoded(entities.codes(keys)[tiles.code]))
    tiles = joined(layout, parts)
    folded, since = reader.folded(days(start_us, end_us))
    seen = {} if watermark_us is None else dict.fromkeys(folded, watermark_us)
    if donor:
        folded |= taken
        seen |= {day: us for day, us in store.tiles(donor.view).watermarks_us().items() if day in taken}
    store.tiles(view).overwrite(start_us, end_us, entities.keys, tiles, folded, seen, since)
    return Folded(
        len(folded),
        reader.events + completed,
        len(tiles),
        len(entities.keys),
        tiles.records.nbytes,
        time.perf_counter() - began,
        len(taken),
    )


class Entities:
    """Entities of several lists under one numbering."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}

    @property
    def keys(self) -> list[str]:
        """All of them, in the order of their codes."""
        return list(self._codes)

    def codes(self, keys: list[str]) -> npt.NDArray[np.int64]:
        """The codes of some, new or known."""
        return np.fromiter((self._codes.setdefault(key, len(self._codes)) for key in keys), np.int64, len(keys))


def joined(layout: Layout, parts: list[Tiles]) -> Tiles:
    """Tiles of distinct dates or rings under one numbering, sorted by entity."""
    if not parts:
        return Tiles.empty(layout)
    together = Tiles.joined(parts)
    return together.take(np.argsort(together.code, kind="stable"))


def _chunks(
    events: Mapping[str, int], taken: Mapping[str, int], start_us: int, end_us: int
) -> Iterator[tuple[int, int, bool]]:
    """Runs of dates whose events are folded together, or whose tiles are taken over together (True).

    Dates without events are left out at both ends.
    """
    first_us, size, reused = start_us, 0, False
    for day in days(start_us, end_us):
        us, count = day_us(day), events.get(day, 0)
        if size and (size + count > EVENTS_MAX or (day in taken) != reused):
            yield first_us, us, reused
            first_us, size = us, 0
        size += count
        reused = day in taken if size == count else reused
    if size:
        yield first_us, end_us, reused
