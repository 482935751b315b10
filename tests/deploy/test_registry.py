"""The registry, on a folder and on S3, with a real Redis."""

from __future__ import annotations

import concurrent.futures
import threading
from pathlib import Path

import pytest
import redis

from forebay.deploy.plan import Plan
from forebay.deploy.registry import Registry
from forebay.errors import FencedError, PlanRefusedError, StoreUnavailableError
from forebay.language.definitions import Definitions
from forebay.language.manifest import from_manifest, to_manifest
from forebay.offline.documents import open_documents
from tests.deploy.test_plan import AGE, FRAUD, SPEND, but

CODE = Definitions.of(FRAUD)


@pytest.fixture
def online(online_url: str) -> redis.Redis:
    return redis.Redis.from_url(online_url)


@pytest.fixture
def registry(offline_url: str, online: redis.Redis, namespace: str) -> Registry:
    return Registry(open_documents(offline_url), online, namespace)


def test_what_is_applied_is_deployed_in_both_stores(
    registry: Registry, offline_url: str, online: redis.Redis, namespace: str
) -> None:
    assert registry.current() is None
    applied = registry.apply(CODE)
    assert applied.number == 1
    assert applied.plan.added
    stored = open_documents(offline_url).read("registry/manifest-000001.json")
    assert stored is not None
    assert online.get(f"{namespace}:manifest") == stored
    current = registry.current()
    assert current is not None
    assert to_manifest(current) == stored
    assert current.views == from_manifest(to_manifest(CODE)).views


def test_applying_again_does_nothing(registry: Registry) -> None:
    registry.apply(CODE)
    again = registry.apply(CODE)
    assert (again.number, again.plan.empty) == (1, True)
    assert again.to_dict()["applied"] is False


def test_each_change_is_a_deployment_of_its_own(registry: Registry) -> None:
    registry.apply(CODE)
    assert registry.apply(Definitions.of(but(FRAUD, owner="me"))).number == 2
    assert registry.apply(Definitions.of(SPEND, AGE)).number == 3
    current = registry.current()
    assert current is not None
    assert list(current.retired) == ["service:fraud@1"]


def test_a_refused_plan_changes_nothing(registry: Registry) -> None:
    registry.apply(CODE)
    with pytest.raises(PlanRefusedError, match=r"declare version=2 beside it"):
        registry.apply(Definitions.of(but(SPEND, where=None), AGE))
    current = registry.current()
    assert current is not None
    assert current.number == 1


def test_of_concurrent_applies_one_is_deployed_and_the_others_are_told(
    offline_url: str, online_url: str, namespace: str
) -> None:
    def apply(owner: str) -> str:
        own = Registry(open_documents(offline_url), redis.Redis.from_url(online_url), namespace)
        barrier.wait()
        try:
            return f"{own.apply(Definitions.of(but(FRAUD, owner=owner))).number}"
        except FencedError:
            return "told"

    barrier = threading.Barrier(4)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(apply, "abcd"))
    numbers = sorted(int(outcome) for outcome in outcomes if outcome != "told")
    assert numbers == list(range(1, len(numbers) + 1))
    newest = open_documents(offline_url).read(f"registry/manifest-{numbers[-1]:06d}.json")
    assert redis.Redis.from_url(online_url).get(f"{namespace}:manifest") == newest


def test_what_is_prepared_for_new_views_comes_before_they_are_deployed_and_again_where_it_fails(
    registry: Registry,
) -> None:
    """
    apply    plan ── prepare ✗           plan ── prepare ── manifest
    """
    prepared: list[list[str]] = []

    def prepare(plan: Plan) -> None:
        assert registry.current() is None
        prepared.append([change.key for change in plan.added])
        if len(prepared) == 1:
            raise StoreUnavailableError("S3 is away")

    with pytest.raises(StoreUnavailableError):
        registry.apply(CODE, prepare=prepare)
    assert registry.current() is None
    assert registry.apply(CODE, prepare=prepare).number == 1
    assert len(prepared) == 2
    assert prepared[0] == prepared[1]
    assert FRAUD.key in prepared[0]
    assert registry.apply(CODE, prepare=prepare).plan.empty


def test_an_apply_that_was_cut_short_is_finished_by_the_next(
    registry: Registry, online: redis.Redis, namespace: str
) -> None:
    registry.apply(CODE)
    online.delete(f"{namespace}:manifest")
    assert registry.apply(CODE).number == 1
    assert online.get(f"{namespace}:manifest") is not None


def test_an_offline_store_that_lost_its_registry_gets_it_back(
    tmp_path: Path, online: redis.Redis, namespace: str
) -> None:
    registries = [Registry(open_documents(str(tmp_path / name)), online, namespace) for name in ("old", "new")]
    registries[0].apply(CODE)
    assert registries[1].apply(CODE).plan.empty
    assert (tmp_path / "new/registry/manifest-000001.json").exists()


def test_an_older_manifest_never_replaces_a_newer_one_in_redis(
    registry: Registry, online: redis.Redis, namespace: str
) -> None:
    registry.apply(CODE)
    newer = to_manifest(Definitions(number=9))
    online.set(f"{namespace}:manifest", newer)
    registry._write_online(Definitions(number=8))
    assert online.get(f"{namespace}:manifest") == newer


def test_a_redis_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    dead = redis.Redis(host="127.0.0.1", port=9, socket_connect_timeout=1)
    with pytest.raises(StoreUnavailableError, match=r"127\.0\.0\.1:9"):
        Registry(open_documents(str(tmp_path)), dead, "x").current()
