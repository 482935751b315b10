"""A shop with an archive and an online store of its own: what backfill tests put in and look at."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import redis

from forebay.calls.responses import status_names
from forebay.core.events import Events
from forebay.core.layout import Layout
from forebay.core.ranges import answer_events
from forebay.core.values import FeatureColumn
from forebay.ingest.arrow import conform
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, day_us
from forebay.language.view import BatchView, WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.read import OnlineReader
from tests.backfill.shop import HISTORY_START, sales

START = day_us(HISTORY_START)
NOW = START + 1000 * DAY_US
Sale = dict[str, Any]


def day(number: int, hour: float = 0) -> int:
    """An instant: so many days and hours after history starts."""
    return START + number * DAY_US + int(hour * HOUR_US)


def sale(number: int, ts: int, user: str | None = "u1", amount: str = "1.00", weight: float | None = 1.0) -> Sale:
    """One event."""
    return {
        "event_id": f"e{number:06d}",
        "ts": ts,
        "user_id": user,
        "country": "NL",
        "shop": 7,
        "amount": Decimal(amount),
        "weight": weight,
    }


def some_sales(count: int, days: int, seed: int = 1) -> list[Sale]:
    """Sales of five users (and of nobody) over some days, some of them at the edges of hops and days."""
    chance = random.Random(seed)
    found = []
    for number in range(count):
        ts = START + chance.randrange(days * DAY_US)
        if chance.random() < 0.2:
            ts -= ts % chance.choice([MINUTE_US, HOUR_US, DAY_US])
        user = chance.choice(["u1", "u2", "u3", "ü|4", "u5", None])
        found.append(sale(number, ts, user, str(chance.randrange(-500, 5000) / 100), chance.choice([None, 0.5, 2.0])))
    return found


@dataclass
class World:
    """The stores of one test."""

    store: OfflineStore
    redis: redis.Redis
    namespace: str
    loaded: int = 0
    streamed: int = 0

    def load(self, sales_: Sequence[Sale]) -> None:
        """Put history into the archive, as `forebay load` does: no stream is behind it."""
        self._append(f"load:{0:016x}", self.loaded, sales_)
        self.loaded += len(sales_)

    def stream(self, sales_: Sequence[Sale]) -> None:
        """Put events into the archive as a stream does: they move its watermark."""
        self._append("0", self.streamed, sales_)
        self.streamed += len(sales_)

    def _append(self, partition: str, offset: int, sales_: Sequence[Sale]) -> None:
        batch, dead = conform(sales, partition, offset, pa.Table.from_pylist(list(sales_)), NOW)
        assert not dead
        self.store.archive(sales).append([batch], NOW)

    def events(self, view: WindowedView) -> Events:
        """All archived events of a view."""
        selector = Selector(view)
        return selector.select(self.store.archive(sales).scan(selector.columns))

    def expected(self, view: WindowedView, keys: Sequence[str], at_us: int) -> list[tuple[Any, ...]]:
        """The features as the training path has them: name, values, statuses."""
        events = self.events(view)
        known = events.keys.to_pylist()
        code = np.array([known.index(key) if key in known else -1 for key in keys], np.int64)
        return plain(answer_events(Layout.of(view), events, code, np.full(len(keys), at_us)))

    def online(self, view: WindowedView, keys: Sequence[str], at_us: int) -> list[tuple[Any, ...]]:
        """The features as the online store answers them."""
        read = OnlineReader(self.redis, self.namespace).read([view], {view.key: list(keys)}, at_us, at_us)
        return plain(read.views[view.key].columns)

    def online_rows(self, view: BatchView, keys: Sequence[str], at_us: int) -> list[tuple[Any, ...]]:
        """The features of a batch view as the online store answers them."""
        read = OnlineReader(self.redis, self.namespace).read([view], {view.key: list(keys)}, at_us, at_us)
        return plain(read.views[view.key].columns)


def plain(columns: Sequence[FeatureColumn]) -> list[tuple[Any, ...]]:
    """Columns as something that can be compared and read in a failure."""
    return [(column.feature.name, column.to_python(), status_names(column)) for column in columns]
