"""A shop in which a second version of a view, and of the service on it, stands beside the first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import redis

from forebay import Count, FeatureService, Last, Sum, WindowedView
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.client.feature_store import FeatureStore
from forebay.core.identity import SLOTS
from forebay.deploy.registry import Registry
from forebay.ingest.arrow import conform
from forebay.ingest.batch import EventBatch
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, moment
from forebay.language.definitions import AnyDefinition, Definitions
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.lane import Lane, Stretch
from forebay.settings import Settings
from tests.backfill.shop import sales, user
from tests.backfill.world import NOW, START, Sale


def version(number: int, where: str | None = None, **more: Any) -> WindowedView:
    """The view, in a version that counts only some of the sales."""
    features = [
        Count("bought", windows=["24h", None], default=0),
        Sum("spent", of="amount", windows=["24h", None], default=0),
        Last("last_amount", of="amount", windows=[None], default=None),
    ]
    return WindowedView("user_sales", version=number, entity=user, source=sales, features=features, where=where, **more)


V1, V2 = version(1), version(2, "amount > 0")
FIRST = FeatureService("shop", version=1, features=[V1])
SECOND = FeatureService("shop", version=2, features=[V2])


@dataclass
class Shop:
    """The stores of one test, with the real writers: stream, backfill, publication, registry."""

    settings: Settings
    redis: redis.Redis = field(init=False)
    offline: OfflineStore = field(init=False)
    store: FeatureStore = field(init=False)
    offset: int = 0

    def __post_init__(self) -> None:
        self.redis, self.offline = connect_online(self.settings), OfflineStore(self.settings)
        self.store = FeatureStore(self.settings)

    @classmethod
    def at(cls, home: Path, online_url: str, namespace: str, place: str) -> Shop:
        """A shop whose offline store is at a place."""
        return cls(Settings(home, online_url, place, namespace=namespace))

    @property
    def registry(self) -> Registry:
        """What is deployed."""
        return Registry.open(self.settings, self.redis)

    def apply(self, *definitions: AnyDefinition) -> int:
        """Deploy, and ask anew; the number of the manifest."""
        self.store = FeatureStore(self.settings)
        return self.registry.apply(Definitions.of(*definitions)).number

    def archive(self, some: Sequence[Sale]) -> EventBatch:
        """Put sales into the archive, as one more stretch of a partition."""
        batch, dead = conform(sales, "0", self.offset, pa.Table.from_pylist(list(some)), NOW)
        assert not dead
        self.offset = batch.next_offset
        self.offline.archive(sales).append([batch], NOW)
        return batch

    def stream(self, some: Sequence[Sale], *views: WindowedView) -> None:
        """Archive sales and apply them online, to all views in one flow."""
        self.apply_online(self.archive(some), *views)

    def apply_online(self, batch: EventBatch, *views: WindowedView) -> None:
        """What a flow of some views does with a batch."""
        lane = Lane(self.redis, self.settings.namespace, views, range(SLOTS))
        lane.take_over()
        events = {view.key: Selector(view).select(batch.table) for view in views}
        lane.commit([Stretch("0", batch.next_offset, None, events)])
        lane.close()

    def backfill(self, view: WindowedView, days: int) -> int | None:
        """Fold some days from the start of history and publish them; the cut."""
        fold_dates(self.offline, view, START, START + days * DAY_US)
        return publish_view(self.redis, self.settings.namespace, self.offline, view).cut_us

    def online(self, features: Any, users: Sequence[str], at_us: int) -> dict[str, list[Any]]:
        """Values and statuses as a model reads them."""
        read = self.store.get_online_features(features, entity_rows={"user_id": list(users)}, at=at_us)
        return {**read.to_dict(), "statuses": [read.statuses[name] for name in read.features]}

    def training(self, features: Any, users: Sequence[str], at_us: int) -> dict[str, list[Any]]:
        """The same from the offline store."""
        spine = {"user_id": list(users), "event_timestamp": [moment(at_us)] * len(users)}
        found = self.store.get_historical_features(spine, features=features, with_statuses=True).to_arrow()
        names = [name for name in found.column_names if f"{name}__status" in found.column_names]
        values = {name: found[name].to_pylist() for name in ["user_id", *names]}
        return {**values, "statuses": [found[f"{name}__status"].to_pylist() for name in names]}
