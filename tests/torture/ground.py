"""What the torture stands on: two logs, an online and an offline store, each a process that may be hit.

    sales    a Kafka topic           on the same S3 as the offline store: where it refuses, nothing can be produced
    tills    chunked Redis Streams   in a Valkey of their own, trimmed behind the archive

The online store is a Valkey, or a cluster of three.

Lives here: the servers, the definitions and the settings that make one deployment of them. Both logs have the same
views, one of sessions among them, and one flow reads both.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import redis

from forebay import KafkaTopic, RedisStream
from forebay.client.feature_store import FeatureStore
from forebay.core.identity import SLOTS
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, day_text
from forebay.language.definitions import Definitions
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.slot_state import read_progress
from forebay.settings import Settings
from streaming.redis_log import partition_name
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.tansu import Tansu
from tests.infra.valkey import Valkey
from tests.infra.valkey_cluster import ValkeyCluster
from tests.simulation.shop import Shop

TOPIC, PARTITIONS = "sales", 3
STREAM, STREAMS = "tills", 2
FETCH_WAIT_MS = 1000
"""Within it Tansu has to list a partition's batches (tests/infra/tansu.py): at 100 ms a loaded machine got nothing."""
HISTORY_DAYS = 4
"""Days before today on which history starts: events are dated up to two days back."""
OF_THE_MACHINE = ("FOREBAY_", "AWS_", "BYTEWAX_")


@dataclass(frozen=True)
class Ground:
    """One deployment. `applied` and `archived` are how far each partition is in each store, by its least part."""

    s3: SeaweedFs
    valkey: Valkey | ValkeyCluster
    broker: Tansu
    streams: Valkey
    settings: Settings
    sales: Shop
    tills: Shop
    online: redis.Redis
    store: OfflineStore
    environment: Mapping[str, str]

    @property
    def cluster(self) -> ValkeyCluster | None:
        """The online store, where it is a cluster."""
        return self.valkey if isinstance(self.valkey, ValkeyCluster) else None

    @property
    def servers(self) -> Sequence[Valkey]:
        """The servers of the online store."""
        return [self.valkey] if isinstance(self.valkey, Valkey) else self.valkey.primaries

    def restart(self, server: Valkey) -> None:
        """Bring back a server of the online store that was killed."""
        server.restart()
        if self.cluster is not None:
            self.cluster.await_agreed()

    @property
    def shops(self) -> tuple[Shop, Shop]:
        """Both."""
        return self.sales, self.tills

    @property
    def views(self) -> list[WindowedView]:
        """All views of both, those of sessions too."""
        return [view for shop in self.shops for view in shop.all_views]

    @property
    def partitions(self) -> dict[str, list[str]]:
        """The partitions of each source, as the stores name them."""
        stream = self.tills.source.stream
        assert isinstance(stream, RedisStream)
        return {
            self.sales.source.name: [f"{TOPIC}:{n}" for n in range(PARTITIONS)],
            self.tills.source.name: [partition_name(stream, n) for n in range(STREAMS)],
        }

    def applied(self) -> dict[str, int]:
        """How far each partition is online: the least over views and slots."""
        found = dict[str, int]()
        for shop in self.shops:
            views = [read_progress(self.online, self.settings.namespace, view) for view in shop.all_views]
            progress = [slot for slots in views for slot in slots]
            for name in self.partitions[shop.source.name]:
                found[name] = min(slot.next_offset(name) for slot in progress)
        return found

    def archived(self) -> dict[str, int]:
        """How far each partition is in the archive."""
        archives = {shop.source.name: self.store.archive(shop.source) for shop in self.shops}
        return {name: archives[source].next_offset(name) for source, names in self.partitions.items() for name in names}

    def tokens(self) -> set[bytes | None]:
        """The tokens of the flow that may write."""
        keys = Keys(self.settings.namespace)
        names = [keys.fence(slot, shop.source.name) for shop in self.shops for slot in range(SLOTS)]
        return set(self.online.mget(names))

    def features(self) -> FeatureStore:
        """A client."""
        return FeatureStore(self.settings, definitions(*self.shops))


def definitions(*shops: Shop) -> Definitions:
    """What is deployed: views, services, and the views of sessions that no service has."""
    return Definitions.of(*(one for shop in shops for one in (shop.service, shop.visits)))


@contextmanager
def ground(*, dedupe: bool, cluster: bool) -> Iterator[Ground]:
    """Everything started and deployed; gone after the block."""
    with (
        tempfile.TemporaryDirectory(prefix="forebay-") as home,
        SeaweedFs() as s3,
        ValkeyCluster(durable=True) if cluster else Valkey(durable=True) as valkey,
        Valkey(durable=True) as streams,
        Tansu(s3.bucket("log"), s3.environment) as broker,
    ):
        told = dict(s3.environment) | {
            "FOREBAY_HOME": home,
            "FOREBAY_ONLINE_URL": valkey.url,
            "FOREBAY_OFFLINE_URL": f"{s3.url}/torture",
            "FOREBAY_NAMESPACE": "torture",
            "FOREBAY_KAFKA_BROKERS": broker.brokers,
            "FOREBAY_KAFKA_FETCH_WAIT_MAX_MS": str(FETCH_WAIT_MS),
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith(OF_THE_MACHINE)}
        with mock.patch.dict(os.environ, {**kept, **told}, clear=True):
            broker.create(TOPIC, PARTITIONS)
            settings = Settings.from_env()
            since = day_text(time.time_ns() // 1000 - HISTORY_DAYS * DAY_US)
            sales = Shop.make(KafkaTopic(TOPIC), dedupe, history_start=since)
            chunked = RedisStream(STREAM, partitions=STREAMS, url=streams.url, chunked=True, trim=True)
            tills = Shop.make(chunked, dedupe, "_tills", since)
            online = connect_online(settings)
            Registry.open(settings, online).apply(definitions(sales, tills))
            store = OfflineStore(settings)
            yield Ground(s3, valkey, broker, streams, settings, sales, tills, online, store, dict(os.environ))
            online.close()
