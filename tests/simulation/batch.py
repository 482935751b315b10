"""Batch in a run: folds days and publishes, and remembers what each fold read and what each publication may publish.

A publisher may die, or pause while others go on. The reference needs to know what was in its hands: a fold counts once
its tiles are committed, and from each send of a publication on, any entity may be as it was or as it is published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest
import redis

import forebay.backfill.publication
from forebay.backfill.partitions import days
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.tiles import Tiles
from forebay.errors import ForebayError
from forebay.instants import day_text, day_us
from forebay.language.view import WindowedView
from forebay.offline.archive import Archive
from forebay.offline.tables import OfflineStore
from forebay.online.keys import Keys
from forebay.online.publish import Published
from tests.simulation.expected import Attempt, Expected
from tests.simulation.faults import Faults, Killed


class Batch:
    """Publishers of one run; `say` is told how they end."""

    def __init__(self, store: OfflineStore, faults: Faults, expected: Expected, say: Callable[[str], None]) -> None:
        self._store, self._faults, self._expected, self._say = store, faults, expected, say
        self._views = (*expected.shop.views, expected.shop.visits)
        self._attempts: dict[int, Attempt] = {}
        self._folds: dict[str, dict[str, list[str]]] = {view.key: {} for view in self._views}
        self._folding: dict[int, dict[str, list[str]]] = {}

    def publish(self, view: WindowedView, start_us: int, end_us: int) -> None:
        """Fold the days of an interval, and publish."""
        publisher = object()
        self._folding[id(publisher)] = {day: [] for day in days(start_us, end_us)}
        self.expire_leases()
        try:
            with self._faults.as_actor(publisher):
                fold_dates(self._store, view, start_us, end_us)
                publish_view(self._expected.online, self._expected.namespace, self._store, view, rate=0)
        except Killed:
            self._say("publisher died")
        except ForebayError as error:
            self._say(f"publisher failed: {error}")
        finally:
            self.forget(publisher)
            del self._folding[id(publisher)]

    def expire_leases(self) -> None:
        """The leases of publishers that died, or are paused, have run out."""
        keys = Keys(self._expected.namespace)
        self._expected.online.delete(*(keys.lease(view.key) for view in self._views))

    def forget(self, actor: object) -> None:
        """Whatever an actor was publishing, it is done with."""
        self._attempts.pop(id(actor), None)

    def looking(self, actor: object) -> Callable[[], None]:
        """A look at what an operation of an actor on the online store does, even if it has ended when it arrives."""
        attempt = self._attempts.get(id(actor))

        def look() -> None:
            if attempt is not None:
                with self._faults.none():
                    self._expected.note_blobs(attempt)

        return look

    def saw(self, what: str, actor: object) -> None:
        """An operation of an actor has arrived."""
        if what == "online":
            self.looking(actor)()
        elif what.startswith("tiles/"):
            self._folds[what.removeprefix("tiles/")].update(self._folding[id(actor)])

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Remember what each fold reads, and what each publication publishes."""
        scan, publish = Archive.scan, forebay.backfill.publication.publish_tiles

        def watched(archive: Archive, columns: Any, start_us: Any = None, end_us: Any = None, *rest: Any) -> pa.Table:
            table = scan(archive, columns, start_us, end_us, *rest)
            read = self._folding.get(id(self._faults.acting[-1])) if self._faults.acting else None
            for name in table["event_id"].to_pylist() if read is not None and "event_id" in columns else ():
                read[day_text(self._expected.events[name].ts)].append(name)
            return table

        def published(
            client: redis.Redis,
            namespace: str,
            view: WindowedView,
            keys: list[str],
            tiles: Tiles,
            cut_us: int,
            **how: int,
        ) -> Published:
            self._attempts[id(self._faults.acting[-1])] = self._attempt(view, cut_us)
            found = self._expected.archive.positions().items()
            begun = {name for name, position in found if position.newest_us is not None}
            for name in self._expected.log.lines.keys() - begun:
                self._expected.excuse(view, name, cut_us)
            return publish(client, namespace, view, keys, tiles, cut_us, **how)

        patch.setattr(Archive, "scan", watched)
        patch.setattr(forebay.backfill.publication, "publish_tiles", published)

    def _attempt(self, view: WindowedView, cut_us: int) -> Attempt:
        ids: dict[str, Counter[str]] = {}
        for day, names in self._folds[view.key].items():
            for name in names if day_us(day) < cut_us else ():
                entity = self._expected.events[name].entity(view)
                if entity is not None:
                    ids.setdefault(entity, Counter())[name] += 1
        return Attempt(view, cut_us, ids)
