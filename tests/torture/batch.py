"""Batch beside the torture: a file of history, and folds and publications while everything is hit.

Lives here: a thread that does what the assets do (`fold_dates`, `publish_view`), over and over, and what it does at the
end: fold the dates that were marked or never folded, and publish. What a store that is away costs it is one turn.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.errors import FencedError, StoreUnavailableError
from forebay.instants import DAY_US, day_text, day_us, floor_us
from forebay.language.view import WindowedView
from forebay.offline.loading import load
from forebay.online.connection import connect_online
from forebay.online.slot_state import read_cut, read_cuts
from tests.simulation.shop import Customers, Event, Shop
from tests.torture.ground import HISTORY_DAYS, Ground
from tests.torture.producer import BUYERS, SHOPS
from tests.torture.watch import Watch

PAUSE_S = (2.0, 8.0)
EVENTS = 300
"""Of the history of each source."""
RATE = 20_000


class Batch(threading.Thread):
    """Folds and publishes until it is told to stop; what it raises is its `error`."""

    def __init__(self, ground: Ground, watch: Watch, seed: int, counts: Counter[str]) -> None:
        super().__init__(name="batch", daemon=True)
        self._ground, self._watch, self._counts = ground, watch, counts
        self._chance, self._enough = random.Random(f"{seed}: batch"), threading.Event()
        self._online = connect_online(ground.settings)
        self.history: dict[str, list[Event]] = {}
        self.error: BaseException | None = None

    def load(self) -> None:
        """Load the history of each source: events of whole days that are older than anything that is streamed."""
        customers = Customers(self._chance, BUYERS, SHOPS)
        for shop in self._ground.shops:
            start_us = shop.source.history_start_us
            day = [start_us + self._chance.randrange(DAY_US) for _ in range(EVENTS)]
            events = [customers.event(ts) for ts in day]
            with tempfile.TemporaryDirectory(prefix="history-") as folder:
                file = Path(folder) / "history.ndjson"
                file.write_bytes(b"".join(event.line() + b"\n" for event in events))
                loaded = load(self._ground.store.archive(shop.source), file)
            assert (loaded.rows, loaded.dead) == (EVENTS, 0)
            self.history[shop.source.name] = events
            for view in shop.all_views:
                self._publish(view, start_us, start_us + DAY_US)

    def run(self) -> None:
        """A turn, a pause."""
        try:
            while not self._enough.wait(self._chance.uniform(*PAUSE_S)):
                self._turn()
        except Exception as error:  # noqa: BLE001  whatever it is, the run fails with it
            self.error = error

    def stop(self) -> None:
        """Publish no more. Raises what was found."""
        self._enough.set()
        self.join()
        self.check()

    def check(self) -> None:
        """Raise what was found."""
        if self.error is not None:
            raise self.error

    def repair(self) -> None:
        """Fold and publish what is marked or was never folded; after it nothing is behind that is not marked."""
        for shop in self._ground.shops:
            marked = set(self._ground.store.repairs().scan(shop.source.name)["day"].to_pylist())
            for view in shop.all_views:
                self._repair(shop, view, marked)

    def _turn(self) -> None:
        view = self._chance.choice(self._ground.views)
        start_us, end_us = view.source.history_start_us, _midnight_us()
        first_us = start_us + self._chance.randrange((end_us - start_us) // DAY_US) * DAY_US
        last_us = first_us + DAY_US * self._chance.randint(1, HISTORY_DAYS)
        try:
            self._publish(view, first_us, min(last_us, end_us))
            self._counts["published"] += 1
        except (StoreUnavailableError, FencedError):
            self._counts["published in vain"] += 1

    def _publish(self, view: WindowedView, start_us: int, end_us: int) -> None:
        """As the assets do."""
        online, namespace, store = self._online, self._ground.settings.namespace, self._ground.store
        fold_dates(store, view, start_us, end_us)
        before = {cut.cut_us for cut in read_cuts(online, namespace, view)}
        with self._watch.publishing(view.key) as stayed:
            cut_us = publish_view(online, namespace, store, view, rate=RATE).cut_us
            if cut_us is None or before == {cut_us}:  # of every slot: one that broke off may have moved some
                stayed.set()
        self._counts["cuts moved"] += not stayed.is_set()

    def _repair(self, shop: Shop, view: WindowedView, marked: set[str]) -> None:
        store, archived = self._ground.store, self._ground.store.archive(shop.source).events_by_date()
        days = [day_text(us) for us in range(shop.source.history_start_us, _midnight_us(), DAY_US)]
        cut_us = read_cut(self._online, self._ground.settings.namespace, view)
        folded = store.tiles(view).folded()
        open_ = {day for day in days if day not in folded or day_us(day) >= cut_us}
        for day, first in store.tiles(view).behind(archived).items():
            known = any(first <= mark <= day for mark in marked) or day in open_
            assert known, f"{view.key}: {day} is behind, and nothing is marked"
            open_ |= {day} & {*days}
        for day in sorted(open_ | (marked & {*days})):
            self._publish(view, day_us(day), day_us(day) + DAY_US)
        behind = set(store.tiles(view).behind(archived)) & {*days}
        assert not behind, f"{view.key}: {sorted(behind)} are behind after they were folded"


def _midnight_us() -> int:
    return floor_us(time.time_ns() // 1000, DAY_US)
