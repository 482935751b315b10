"""An offline store is of one namespace: another one reads and writes nothing in it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.errors import ConfigError
from forebay.offline.documents import open_documents
from forebay.offline.ownership import NAME, Owner
from forebay.offline.tables import OfflineStore
from forebay.offline.training_table import TrainingTable
from forebay.settings import Settings
from tests.backfill.shop import sales
from tests.backfill.world import NOW, day, sale
from tests.client.test_versions import OLD
from tests.client.two_versions import FIRST, Shop


def test_another_namespace_is_refused_before_anything_is_read_or_written(
    home: Path, online_url: str, namespace: str, offline_url: str
) -> None:
    mine = Shop(Settings(home, online_url, offline_url, namespace=namespace))
    mine.apply(FIRST)
    mine.archive(OLD)
    other = Shop(replace(mine.settings, namespace=f"{namespace}-b"))
    for act in (
        lambda: other.apply(FIRST),
        lambda: other.registry.restore(),
        lambda: other.archive(OLD),
        lambda: other.offline.archive(sales).scan(["user_id"]),
        lambda: TrainingTable(other.offline.location, FIRST).claimed(),
        lambda: other.offline.repairs().append([("sales", "2024-01-01", "late")], NOW),
    ):
        with pytest.raises(ConfigError, match=f"belongs to namespace '{namespace}'.*of its own"):
            act()
    assert len(mine.offline.archive(sales).scan(["user_id"])) == len(OLD)


def test_whoever_makes_the_first_table_has_it(home: Path, online_url: str, namespace: str, place: str) -> None:
    shop = Shop.at(home, online_url, namespace, place)
    assert shop.offline.archive(sales).size() is None, "a look claims nothing"
    assert open_documents(shop.settings.offline_url).read(NAME) is None
    shop.archive([sale(0, day(0))])
    assert open_documents(shop.settings.offline_url).read(NAME) == namespace.encode()
    with pytest.raises(ConfigError):
        OfflineStore(replace(shop.settings, namespace="other")).archive(sales).size()
    assert OfflineStore(shop.settings.offline_url).archive(sales).size() is not None, "a path alone opens anything"


def test_of_two_that_begin_together_one_has_it(tmp_path: Path) -> None:
    owners = [Owner(str(tmp_path), name) for name in ("a", "b")]
    for owner in owners:
        owner.check()
    owners[1].claim()
    with pytest.raises(ConfigError, match="belongs to namespace 'b'"):
        owners[0].claim()
    pickle.loads(pickle.dumps(owners[1])).claim()
