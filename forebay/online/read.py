"""The online read: features of entities of several views at one instant, from one MGET.

What it decides, beyond what the core does:

    instant    `at`, or the latest of the wall clock, the newest event in what is read + 1 µs and the cuts: a producer's
               clock that runs ahead cannot break the law
    early      `at` must be after the newest event applied to an entity, and not before its cut: earlier instants are
               history's, because tiles hold what came after them or have dropped what they need
    stale      a present value whose view is behind by more than its freshness: instant − max(watermark, cut) >
               freshness. A source without a stream is never behind; one whose stream never ran is as fresh as its cut
    missing    a value whose window reaches events that were loaded into the archive and are not online (`Cut`): what is
               present is stale, and a default may be none: `UNAVAILABLE`
    overdue    a present value whose cut is behind by more than its view's retention is stale as well, right as it is
    filling    a view whose slot has targets that are not reached yet (`forebay.online.progress`) gives its defaults,
               `UNAVAILABLE`; one that was filled from a start on answers no instant before that
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import redis

from forebay.core.answer import answer
from forebay.core.codec import NO_CUT
from forebay.core.identity import slots_of
from forebay.core.layout import Layout
from forebay.core.rows import finish_rows
from forebay.core.values import FeatureColumn, Status
from forebay.errors import InstantTooEarlyError, RequestError
from forebay.ingest.sessions import Sessionizers
from forebay.instants import instant_text
from forebay.language.view import AnyView, BatchView, WindowedView
from forebay.online.connection import translated
from forebay.online.keys import BATCH, PENDING, ROW, STREAM, Keys
from forebay.online.progress import Cut, Progress
from forebay.online.row_blob import unpack_rows
from forebay.online.seam import join, overdue

KEYS_MAX = 200_000
"""Online keys of one read: the server serves nobody else meanwhile."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Blobs = Sequence[bytes | None]


@dataclass(frozen=True, eq=False)
class ViewRead:
    """The features of one view, row i of the i-th key, and what is behind each row: commit number, cut, watermark,
    whether the cut is overdue, and up to where archived events are missing.

    A batch view has no commits, cuts or watermarks, and nothing is missing: they are 0 and NO_CUT, and never overdue.
    """

    columns: list[FeatureColumn]
    commits: Ints
    cuts: Ints
    watermarks: Ints
    overdue: Bools
    missing: Ints


@dataclass(frozen=True)
class OnlineRead:
    """What one read found: the instant that it is of, and each view by its key."""

    instant_us: int
    views: dict[str, ViewRead]


class OnlineReader:
    """Reads features from the online store of a namespace; safe to share between threads, as its client is."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self._client, self._keys = client, Keys.of(client, namespace)
        self._sessionizers = Sessionizers()

    def read(
        self,
        views: Sequence[AnyView],
        keys: Mapping[str, Sequence[str | None]],
        at_us: int | None,
        now_us: int,
        names: Mapping[str, Sequence[str]] | None = None,
    ) -> OnlineRead:
        """The features (`names` by view key; default: all) of entities (`keys` by view key; `None` gets defaults).

        Raises `InstantTooEarlyError` for an `at_us` that only history can answer, and `StoreUnavailableError`.
        """
        asked = [_asked(self._keys, view, _Entities(keys[view.key], self._keys), self._sessionizers) for view in views]
        found = self._get([name for one in asked for name in one.names])
        edges = np.cumsum([0, *(len(one.names) for one in asked)]).tolist()
        for one, low, high in zip(asked, edges, edges[1:], strict=False):
            one.load(found[low:high])
        if at_us is None:
            instant_us = max([now_us, *(one.earliest_us for one in asked)])
        else:
            instant_us = at_us
            for one in asked:
                one.check(at_us)
        read = {one.view.key: one.answer(instant_us, (names or {}).get(one.view.key)) for one in asked}
        return OnlineRead(instant_us, read)

    def _get(self, names: list[str]) -> Blobs:
        if len(names) > KEYS_MAX:
            raise RequestError(f"One read of {len(names)} online keys; at most {KEYS_MAX}. Ask for fewer entities.")
        if not names:
            return []
        with translated(self._client):
            blobs: Any = self._client.mget(names)
        return list(blobs)


def _numbered(values: Sequence[int]) -> tuple[list[int], Ints]:
    """The distinct ones among some values, and which of them each is."""
    places = {value: place for place, value in enumerate(dict.fromkeys(values))}
    return list(places), np.array([places[value] for value in values], np.int64)


class _Entities:
    """The distinct entities of a request's rows; rows without a key are one entity more, of which nothing is stored."""

    def __init__(self, keys: Sequence[str | None], names: Keys) -> None:
        codes: dict[str, int] = {}
        for key in keys:
            if key is not None:
                codes.setdefault(key, len(codes))
        self.keys = list(codes)
        self.count, self.row_count = len(codes) + (None in keys), len(keys)
        rows = [len(codes) if key is None else codes[key] for key in keys]
        self._rows = None if rows == list(range(self.count)) else np.array(rows, np.int64)
        slots = slots_of(self.keys)
        self.slots = slots.tolist()
        self.distinct, self.of_slot = _numbered(self.slots)
        self.tellers, self.of_teller = _numbered(names.tellers(slots).tolist())

    def per_row(self, of_entities: Ints, blank: int) -> Ints:
        """A value per row from one per keyed entity."""
        values = of_entities if self.count == len(of_entities) else np.append(of_entities, blank)
        return values if self._rows is None else values[self._rows]

    def spread(self, column: FeatureColumn) -> FeatureColumn:
        """The rows of a column that has one per entity."""
        return column if self._rows is None else column.take(self._rows)


class _AskedTiles:
    """A windowed view in a read."""

    def __init__(self, keys: Keys, view: WindowedView, entities: _Entities, sessionizers: Sessionizers) -> None:
        self.view, self._entities, self._layout = view, entities, Layout.of(view)
        self._sessionizers = sessionizers
        self.names = [
            name
            for kind in (STREAM, PENDING, BATCH)
            for name in keys.many(view.key, entities.keys, entities.slots, kind)
        ]
        self.names += keys.slots("progress", view.key, entities.tellers)
        self.names += keys.slots("cut", view.key, entities.distinct)

    def load(self, blobs: Blobs) -> None:
        """Take what was found under `names`."""
        count, tellers = len(self._entities.keys), len(self._entities.tellers)
        progress = [
            Progress() if blob is None else Progress.decode(blob) for blob in blobs[3 * count : 3 * count + tellers]
        ]
        cuts = [Cut.decode(blob) for blob in blobs[3 * count + tellers :]]
        of_slot, of_teller = self._entities.of_slot, self._entities.of_teller
        self._commits = np.array([known.commit for known in progress], np.int64)[of_teller]
        self._watermarks = np.array([known.watermark_us for known in progress], np.int64)[of_teller]
        self._filling = np.array([bool(known.targets) for known in progress], np.bool_)[of_teller]
        self._since = np.array([known.since_us for known in progress], np.int64)[of_teller]
        self._joined = join(
            self._layout,
            blobs[:count],
            blobs[count : 2 * count],
            blobs[2 * count : 3 * count],
            np.array([cut.cut_us for cut in cuts], np.int64)[of_slot],
        )
        self._missing = np.array([cut.missing_us for cut in cuts], np.int64)[of_slot]

    @property
    def earliest_us(self) -> int:
        """The first instant that is after everything found and not before any cut or start."""
        cut_us, since_us = (int(some.max(initial=NO_CUT)) for some in (self._joined.cuts_us, self._since))
        return max(int(self._joined.newest_us.max(initial=NO_CUT)) + 1, cut_us, since_us)

    def check(self, at_us: int) -> None:
        """Raise `InstantTooEarlyError` unless what was found answers this instant."""
        whys = (
            (self._joined.newest_us, self._joined.newest_us >= at_us, "its newest event is of"),
            (self._joined.cuts_us, self._joined.cuts_us > at_us, "it is published up to"),
            (self._since, self._since > at_us, "it was filled from a start on, which is"),
        )
        early = np.logical_or.reduce([of for _, of, _ in whys])
        if not early.any():
            return
        entity = int(np.argmax(early))
        why = next(f"{why} {instant_text(int(us[entity]))}" for us, of, why in whys if of[entity])
        raise _too_early(self.view, self._entities.keys[entity], at_us, why)

    def answer(self, instant_us: int, names: Sequence[str] | None) -> ViewRead:
        """Its features at an instant."""
        entities, joined = self._entities, self._joined
        instants = np.full(entities.count, instant_us, np.int64)
        tiles = joined.tiles_at(self._layout, self._sessionizers, instant_us)
        if self._filling.any():
            tiles = tiles.take(~self._filling[tiles.code])
        columns = [entities.spread(column) for column in answer(self._layout, tiles, instants, names)]
        cuts, watermarks = entities.per_row(joined.cuts_us, NO_CUT), entities.per_row(self._watermarks, NO_CUT)
        late = overdue(self.view, cuts, instant_us)
        stale = late | self._behind(np.maximum(watermarks, cuts), instant_us)
        if stale.any():
            for column in columns:
                column.status[stale & (column.status == Status.PRESENT)] = Status.STALE
        missing = entities.per_row(self._missing, NO_CUT)
        if (missing != NO_CUT).any():
            self._mark_missing(columns, missing, instant_us)
        if self._filling.any():
            filling = entities.per_row(self._filling.astype(np.int64), 0) == 1
            for column in columns:
                column.status[filling] = Status.UNAVAILABLE
        return ViewRead(columns, entities.per_row(self._commits, 0), cuts, watermarks, late, missing)

    def _mark_missing(self, columns: Sequence[FeatureColumn], missing_us: Ints, instant_us: int) -> None:
        """Let no value whose window reaches missing events pass for the truth."""
        windows = {output.name: output.window for output in self._layout.outputs}
        for column in columns:
            edge_us, status = windows[column.feature.name].start_us(instant_us), column.status
            lacking = missing_us > (NO_CUT if edge_us is None else edge_us)
            unknown = (status == Status.DEFAULT_MISSING) | (status == Status.DEFAULT_EXPIRED)
            status[lacking & unknown] = Status.UNAVAILABLE
            status[lacking & (status == Status.PRESENT)] = Status.STALE

    def _behind(self, reached_us: Ints, instant_us: int) -> Bools:
        """Which rows, reached up to these instants, are behind by more than the view's `freshness`."""
        freshness_us = self.view.freshness_us
        if freshness_us is None or self.view.source.stream is None:
            return np.zeros(len(reached_us), np.bool_)
        return reached_us < instant_us - freshness_us


class _AskedRows:
    """A batch view in a read."""

    def __init__(self, keys: Keys, view: BatchView, entities: _Entities) -> None:
        self.view, self._entities = view, entities
        self.names = keys.many(view.key, entities.keys, entities.slots, ROW)

    def load(self, blobs: Blobs) -> None:
        """Take what was found under `names`."""
        self._columns, self._event_us = unpack_rows(self.view, [*blobs, None][: self._entities.count])

    @property
    def earliest_us(self) -> int:
        """The first instant at which every row found holds."""
        return int(self._event_us.max(initial=NO_CUT))

    def check(self, at_us: int) -> None:
        """Raise `InstantTooEarlyError` unless what was found answers this instant."""
        early = self._event_us > at_us
        if early.any():
            entity = int(np.argmax(early))
            why = f"its row is of {instant_text(int(self._event_us[entity]))}"
            raise _too_early(self.view, self._entities.keys[entity], at_us, why)

    def answer(self, instant_us: int, names: Sequence[str] | None) -> ViewRead:
        """Its features at an instant."""
        instants = np.full(self._entities.count, instant_us, np.int64)
        finished = finish_rows(self.view, self._columns, self._event_us, instants, names)
        none = np.full(self._entities.row_count, NO_CUT, np.int64)
        columns = [self._entities.spread(column) for column in finished]
        return ViewRead(columns, np.zeros_like(none), none, none, np.zeros(len(none), np.bool_), none)


def _asked(keys: Keys, view: AnyView, entities: _Entities, sessionizers: Sessionizers) -> _AskedTiles | _AskedRows:
    if isinstance(view, BatchView):
        return _AskedRows(keys, view, entities)
    return _AskedTiles(keys, view, entities, sessionizers)


def _too_early(view: AnyView, entity: str, at_us: int, why: str) -> InstantTooEarlyError:
    return InstantTooEarlyError(
        f"View {view.key!r} cannot be read online at {instant_text(at_us)} for entity {entity!r}: {why}. "
        "The online store answers later instants; for this one use feature_history or get_historical_features."
    )
