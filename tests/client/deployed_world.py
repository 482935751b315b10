"""The small world of the laws, deployed: its events in both stores, by the real writers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import redis

from forebay import BatchView, Decimal, Feature, FeatureService, Int64, String, TableSource, Timestamp
from forebay.client.feature_store import FeatureStore
from forebay.core.identity import SLOTS
from forebay.core.layout import Layout
from forebay.core.tiles import fold, roll_up
from forebay.core.values import arrow_array
from forebay.ingest.arrow import conform
from forebay.ingest.batch import EventBatch
from forebay.ingest.select import Selector
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.online.lane import Lane, Stretch
from forebay.online.publish import publish_rows, publish_tiles
from forebay.settings import Settings
from tests.laws import world
from tests.laws.world import VIEW, Event, events_source

FAR_FUTURE_US = 4_000_000_000_000_000
INSTANT = pa.timestamp("us", "UTC")

profile = BatchView(
    name="profile",
    version=1,
    entity=world.user,
    sources=[TableSource("people", schema={"user": String, "at": Timestamp}, effective="at", path="people.csv")],
    partitions="none",
    ttl="2d",
    features=[
        Feature("age", Int64, default=None),
        Feature("city", String, default="nowhere"),
        Feature("balance", Decimal(2), default=0),
    ],
)
service = FeatureService("everything", version=1, features=[VIEW, profile])
DEFINITIONS = Definitions.of(service)
PROFILE_SCHEMA = pa.schema(
    [
        ("user", pa.string()),
        ("age", pa.int64()),
        ("city", pa.string()),
        ("balance", pa.decimal128(18, 2)),
        ("event_timestamp", INSTANT),
        ("created_timestamp", INSTANT),
        ("partition_start", INSTANT),
    ]
)


class World:
    """One deployment of the world: what is streamed, archived and published is up to the test."""

    def __init__(self, online_url: str, home: Path, namespace: str, offline_url: str | None = None) -> None:
        self.settings = Settings(home, online_url, offline_url or str(home / "offline"), namespace=namespace)
        self.redis = redis.Redis.from_url(online_url)
        self.offline = OfflineStore(self.settings)
        self.store = FeatureStore(self.settings, DEFINITIONS)
        self.offset = 0

    def archive(self, events: Sequence[Event], arrived_at_us: int = FAR_FUTURE_US) -> EventBatch:
        """Put events into the archive, as one more stretch of a partition."""
        batch, dead = conform(events_source, "0", self.offset, as_table(events), FAR_FUTURE_US)
        assert not dead
        self.offset = batch.next_offset
        self.offline.archive(events_source).append([batch], arrived_at_us=arrived_at_us)
        return batch

    def stream(self, batch: EventBatch) -> None:
        """Apply a batch to the online store."""
        lane = Lane(self.redis, self.settings.namespace, [VIEW], range(SLOTS))
        lane.take_over()
        lane.commit([Stretch("0", batch.next_offset, None, {VIEW.key: Selector(VIEW).select(batch.table)})])
        lane.close()

    def publish(self, events: Sequence[Event], cut_us: int) -> None:
        """Fold the events before the cut and publish them."""
        layout = Layout.of(VIEW)
        chosen = world.as_events([event for event in events if event.ts < cut_us])
        tiles = roll_up(layout, fold(layout, chosen))
        publish_tiles(
            self.redis, self.settings.namespace, VIEW, chosen.keys.to_pylist(), tiles, cut_us, now_us=FAR_FUTURE_US
        )

    def publish_profile(self, rows: pa.Table) -> None:
        """Write batch rows and publish them."""
        start = np.asarray(rows["partition_start"].cast(pa.int64()))
        self.offline.rows(profile).overwrite(int(start.min()), int(start.max()) + 1, rows)
        publish_rows(self.redis, self.settings.namespace, profile, rows, now_us=FAR_FUTURE_US)

    def close(self) -> None:
        """Let go."""
        self.store.close()
        self.redis.close()


def as_table(events: Sequence[Event]) -> pa.Table:
    """Events as a producer would hand them over in Arrow."""
    columns = world.as_events(list(events)).columns
    table = {
        "event_id": pa.array([event.event_id for event in events], pa.string()),
        "user": pa.array([event.entity for event in events], pa.string()),
        "ts": pa.array([event.ts for event in events], INSTANT),
    }
    kinds = {name: world.SCHEMA[name] for name in columns}
    return pa.table(table | {name: arrow_array(kinds[name], c.values, c.valid) for name, c in columns.items()})
