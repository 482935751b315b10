"""A flip: the bare name of a service means another version, for every client, at once and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forebay import FeatureService
from forebay.client import deployed
from forebay.client.feature_store import FeatureStore
from forebay.deploy.filled import check_filled
from forebay.deploy.plan import make_plan
from forebay.errors import FencedError, FormatError, PlanRefusedError, RequestError, UnknownNameError
from forebay.language.definitions import Definitions
from forebay.language.manifest import from_manifest, to_manifest
from forebay.online.active import Active
from forebay.online.keys import Keys
from tests.backfill.world import day
from tests.client.test_versions import AT, NEW, OLD, USERS
from tests.client.two_versions import FIRST, SECOND, V1, V2, Shop
from tests.places import everywhere


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, place: str) -> Shop:
    return Shop.at(home, online_url, namespace, place)


@everywhere
def test_a_new_version_beside_the_first_changes_nothing_until_the_flip(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that runs all along follows apply, flip and flip back; each read names the version that it got."""
    monkeypatch.setattr(deployed, "REREAD_AFTER_S", 0.0)
    shop.apply(FIRST)
    client = FeatureStore(shop.settings)

    def read() -> tuple[str | None, Any]:
        got = client.get_online_features("shop", entity_rows={"user_id": USERS}, at=AT)
        return got.metadata["service"], got.to_dict()["bought_lifetime"]

    shop.stream([*OLD, *NEW], V1)
    assert read() == ("shop@1", [3, 1, 1, 0])
    shop.apply(FIRST, SECOND)
    shop.stream([], V1, V2)
    assert read() == ("shop@1", [3, 1, 1, 0])
    flipped = shop.registry.flip("shop", 2)
    assert (flipped.before, flipped.after, flipped.number) == (1, 2, 3)
    assert read() == ("shop@2", [0, 0, 0, 0]), "the stream has not replayed for the second view"
    assert client.get_online_features("shop@1", entity_rows={"user_id": USERS}, at=AT).service == "shop@1"
    assert shop.registry.flip("shop", 1).before == 2
    assert read() == ("shop@1", [3, 1, 1, 0])
    client.close()


def test_a_client_looks_at_most_once_a_second_and_then_follows(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(deployed.time, "monotonic", lambda: now[0])
    shop.apply(FIRST)
    client = FeatureStore(shop.settings)
    assert client.get_online_features("shop", entity_rows={"user_id": USERS}).service == "shop@1"
    shop.apply(FIRST, SECOND)
    shop.registry.flip("shop", 2)
    now[0] += 0.9
    assert client.get_online_features("shop", entity_rows={"user_id": USERS}).service == "shop@1"
    now[0] += 0.2
    assert client.get_online_features("shop", entity_rows={"user_id": USERS}).service == "shop@2"
    client.close()


@everywhere
def test_training_follows_the_active_version_too(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.archive([*OLD, *NEW])
    shop.registry.flip("shop", 2)
    assert shop.training("shop", USERS, AT) == shop.training("shop@2", USERS, AT) != shop.training("shop@1", USERS, AT)


def test_a_flip_is_a_deployment_in_both_stores_that_an_apply_keeps(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.registry.flip("shop", 2)
    assert shop.registry.flip("shop", 2).number == 2, "it is active already"
    for key in (Keys(shop.settings.namespace).active(), Keys(shop.settings.namespace).manifest()):
        shop.redis.delete(key)
    restored = shop.registry.restore()
    assert restored is not None
    assert (restored.number, restored.active, restored.active_service("shop")) == (2, {"shop": 2}, "shop@2")
    found = shop.redis.get(Keys(shop.settings.namespace).active())
    assert isinstance(found, bytes)
    assert Active.decode(found) == Active(2, {"shop": 2})
    third = FeatureService("shop", version=3, features=[V2])
    assert shop.apply(FIRST, SECOND, third) == 3
    current = shop.registry.current()
    assert current is not None
    assert current.active == {"shop": 2}
    assert from_manifest(to_manifest(current)).active == {"shop": 2}


def test_of_two_flips_at_the_same_time_one_is_told_to_look_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.apply(FIRST, SECOND)
    late, seen = shop.registry, shop.registry.current()
    shop.registry.flip("shop", 2)
    monkeypatch.setattr(late, "current", lambda: seen)
    with pytest.raises(FencedError, match="has just deployed manifest 2"):
        late.flip("shop", 2)


def test_what_is_not_deployed_cannot_become_active(shop: Shop) -> None:
    with pytest.raises(UnknownNameError, match="no service 'shop@2'"):
        shop.registry.flip("shop", 2)
    shop.apply(FIRST)
    with pytest.raises(UnknownNameError, match="There is 'shop@1'"):
        shop.registry.flip("shop", 2)


def test_the_active_version_cannot_be_removed_beside_another(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    with pytest.raises(PlanRefusedError, match="forebay flip shop --to 2"):
        shop.apply(SECOND, V1)
    shop.registry.flip("shop", 2)
    shop.apply(SECOND, V1)
    plan = make_plan(Definitions.of(V1, V2), shop.registry.current())
    assert ([change.key for change in plan.removed], plan.refused) == (["shop@2"], ()), "a service as a whole can go"


def test_a_version_of_which_nothing_is_online_is_refused_by_name(shop: Shop) -> None:
    shop.apply(FIRST, SECOND)
    shop.stream(OLD, V1)
    code = shop.registry.current()
    assert code is not None
    check_filled(shop.redis, shop.settings.namespace, code, "shop@1")
    with pytest.raises(RequestError, match="nothing of user_sales@2 is in the online store"):
        check_filled(shop.redis, shop.settings.namespace, code, "shop@2")
    assert shop.backfill(V2, 2) == day(1)
    check_filled(shop.redis, shop.settings.namespace, code, "shop@2")


def test_what_is_no_list_of_active_versions_is_refused() -> None:
    with pytest.raises(FormatError, match="run `forebay apply` again"):
        Active.decode(b"[]")
