"""What the torture stands on: a broker, an online and an offline store, each a process that may be hit.

Lives here: the servers, the definitions and the settings that make one deployment of them. The broker keeps its log on
the same S3 as the offline store keeps its tables, in a bucket of its own: where S3 refuses, nothing can be produced.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import redis

from forebay import KafkaTopic
from forebay.client.feature_store import FeatureStore
from forebay.core.identity import SLOTS
from forebay.deploy.registry import Registry
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.settings import Settings
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.tansu import Tansu
from tests.infra.valkey import Valkey
from tests.simulation.shop import Shop

TOPIC, PARTITIONS = "sales", 3
FETCH_WAIT_MS = 1000
"""Within it Tansu has to list a partition's batches (tests/infra/tansu.py): at 100 ms a loaded machine got nothing."""
OF_THE_MACHINE = ("FOREBAY_", "AWS_", "BYTEWAX_")


@dataclass(frozen=True)
class Ground:
    """One deployment. `applied` and `archived` are how far each partition is in each store, by its least part."""

    s3: SeaweedFs
    valkey: Valkey
    broker: Tansu
    settings: Settings
    shop: Shop
    online: redis.Redis
    store: OfflineStore
    environment: Mapping[str, str]

    @property
    def partitions(self) -> list[str]:
        """The partitions of the log, as the stores name them."""
        return [f"{TOPIC}:{n}" for n in range(PARTITIONS)]

    def applied(self) -> dict[str, int]:
        """How far each partition is online: the least over views and slots."""
        keys = Keys(self.settings.namespace)
        names = [name for view in self.shop.views for name in keys.slots("progress", view.key, range(SLOTS))]
        blobs: list[bytes | None] = list(self.online.mget(names))
        progress = [Progress() if blob is None else Progress.decode(blob) for blob in blobs]
        return {name: min(slot.next_offset(name) for slot in progress) for name in self.partitions}

    def archived(self) -> dict[str, int]:
        """How far each partition is in the archive."""
        archive = self.store.archive(self.shop.source)
        return {name: archive.next_offset(name) for name in self.partitions}

    def tokens(self) -> set[bytes | None]:
        """The tokens of the flow that may write."""
        keys = Keys(self.settings.namespace)
        return set(self.online.mget([keys.fence(slot, self.shop.source.name) for slot in range(SLOTS)]))

    def features(self) -> FeatureStore:
        """A client."""
        return FeatureStore(self.settings, self.shop.definitions)


@contextmanager
def ground(*, dedupe: bool) -> Iterator[Ground]:
    """Everything started and deployed; gone after the block."""
    with (
        tempfile.TemporaryDirectory(prefix="forebay-") as home,
        SeaweedFs() as s3,
        Valkey(durable=True) as valkey,
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
            online, shop = connect_online(settings), Shop.make(KafkaTopic(TOPIC), dedupe)
            Registry.open(settings, online).apply(shop.definitions)
            yield Ground(s3, valkey, broker, settings, shop, online, OfflineStore(settings), dict(os.environ))
            online.close()
