"""Retiring a view: all that is stored of it goes, nothing of another does, and its version stays taken.

v1   apply ── stream, backfill, publish, history ── removed from the code ── retire ── nothing
v2   apply ── stream, backfill, publish ──────────────────────────────────────────── as it was
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from forebay.backfill.publication import publish_view
from forebay.core.identity import SLOTS
from forebay.deploy import removal
from forebay.deploy.removal import remove_online, remove_tables
from forebay.deploy.retirement import SILENT_US, Retired, Retirement, plan_retirement, retire
from forebay.errors import FencedError, PlanRefusedError, RequestError, UnknownNameError
from forebay.history.finished import write_history
from forebay.instants import DAY_US
from forebay.online.keys import Keys
from forebay.online.lease import Lease
from forebay.online.signs import Sign, Signs
from forebay.settings import Settings
from tests.backfill.shop import user
from tests.backfill.world import NOW, START, day, sale
from tests.client.deployed_world import PROFILE_SCHEMA, profile
from tests.client.test_versions import AT, NEW, OLD, USERS
from tests.client.two_versions import FIRST, SECOND, V1, V2, Shop, version

MANY = [sale(100 + number, day(0, number / 100), f"m{number}") for number in range(300)]


@pytest.fixture
def shop(home: Path, online_url: str, namespace: str, place: str) -> Shop:
    """Two versions in both stores; the first is removed from what is deployed."""
    return begun(Shop.at(home, online_url, namespace, place))


@pytest.fixture
def any_shop(home: Path, online_url: str, namespace: str, offline_url: str) -> Shop:
    """The same on a folder, and on S3."""
    return begun(Shop(Settings(home, online_url, offline_url, namespace=namespace)))


def begun(made: Shop) -> Shop:
    made.apply(FIRST, SECOND)
    made.stream([*OLD, *MANY, *NEW], V1, V2)
    for view in (V1, V2):
        made.backfill(view, 2)
        made.offline.streamed(view).append([], {"0/0": (0, made.offset)})
    write_history(made.offline, version(1, history="6h"), START, START + DAY_US, now_us=NOW)
    made.redis.set(f"{made.settings.namespace}:{{05}}:fence:{V1.key}", b"who filled it beside the flow")
    made.registry.flip("shop", 2)
    made.apply(SECOND, V1)
    made.apply(SECOND)
    return made


def planned(shop: Shop, view: str = V1.key, now_us: int = NOW) -> Retirement:
    """What retiring would remove."""
    return plan_retirement(
        shop.registry, shop.redis, shop.settings.namespace, shop.offline.location, view, now_us=now_us
    )


def run(shop: Shop) -> Retired:
    """Retire the first version."""
    return retire(shop.redis, shop.settings.namespace, shop.offline.location, planned(shop))


def left(shop: Shop, view: str) -> list[str]:
    """All that any store has under the name of a view."""
    keys = [name.decode() for name in shop.redis.scan_iter(f"{shop.settings.namespace}:*") if view in name.decode()]
    return sorted([*keys, *(table.path for table in planned_tables(shop, view))])


def planned_tables(shop: Shop, view: str) -> list[removal.TableHoldings]:
    return removal.table_holdings(shop.offline.location, view)


def test_what_is_counted_is_removed_and_nothing_of_another_version(any_shop: Shop) -> None:
    shop = any_shop
    second, other = shop.online(SECOND.key, USERS, AT), left(shop, V2.key)
    found = planned(shop)
    assert found.online.keys == {"b": 302, "p": 303}
    assert (found.online.beside > SLOTS, found.online.bytes > 1_000) == (True, True)
    assert [table.path for table in found.tables] == [f"{kind}/{V1.key}" for kind in ("tiles", "streamed", "history")]
    assert all(table.files > 1 and table.bytes > 100 for table in found.tables)
    done = run(shop)
    assert (done.keys, done.files) == (605, found.to_dict()["files"])
    assert left(shop, V1.key) == []
    assert left(shop, V2.key) == other
    assert shop.online(SECOND.key, USERS, AT) == second == shop.training(SECOND.key, USERS, AT)
    assert (planned(shop).empty, run(shop).keys, run(shop).files) == (True, 0, 0)


def test_a_dry_run_removes_nothing(shop: Shop) -> None:
    before = left(shop, V1.key)
    assert planned(shop) == planned(shop)
    assert left(shop, V1.key) == before


@pytest.mark.parametrize("steps", [0, 1, 3])
def test_a_run_that_dies_is_finished_by_the_next(shop: Shop, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """It dies at some step of the scan, and then while it removes the files of a table, after the end of its log."""
    monkeypatch.setattr("forebay.online.scan.STEP_KEYS", 100)
    commit, count = Lease.commit, iter(range(1_000))

    def dying(lease: Lease, slot: int, commands: list[bytes]) -> None:
        if next(count) >= steps:
            raise OSError("killed")
        commit(lease, slot, commands)

    monkeypatch.setattr(Lease, "commit", dying)
    with pytest.raises(OSError, match="killed"):
        run(shop)
    monkeypatch.setattr(Lease, "commit", commit)
    remove_online(shop.redis, shop.settings.namespace, V1.key)
    files = shop.offline.location.files()
    files.delete_file(
        max(name for name, _ in removal._files(shop.offline.location, f"tiles/{V1.key}") if "_log" in name)
    )
    assert run(shop).files > 0
    assert left(shop, V1.key) == []


def test_a_view_that_is_deployed_is_not_retired(shop: Shop) -> None:
    with pytest.raises(RequestError, match=r"it is deployed, and shop@2 pins it. To retire it, once no model asks"):
        planned(shop, V2.key)
    shop.apply(V2)
    with pytest.raises(RequestError, match=r"it is deployed. To retire it, remove the view from the definitions"):
        planned(shop, V2.key)
    with pytest.raises(UnknownNameError, match=r"Did you mean 'user_sales@1'\?"):
        planned(shop, "user_sale@1")


def test_a_view_that_a_running_stream_writes_is_not_retired(shop: Shop) -> None:
    signs = Signs(shop.redis, shop.settings.namespace)
    signs.write("sales", Sign(7, NOW, NOW, views=(V1.key, V2.key)))
    with pytest.raises(RequestError, match=r"running stream of 'sales' writes it \(seen 3 s ago\).*Restart the stream"):
        planned(shop, now_us=NOW + 3_000_000)
    assert not planned(shop, now_us=NOW + SILENT_US).empty, "it died long ago"
    signs.write("sales", Sign(7, NOW, NOW, views=(V1.key, V2.key), ended_us=NOW))
    assert not planned(shop).empty, "it has ended"
    signs.write("sales", Sign(8, NOW, NOW, views=(V2.key,)))
    assert not planned(shop).empty, "the next one does not write it"


def test_a_view_that_is_being_published_is_waited_for(shop: Shop) -> None:
    namespace = shop.settings.namespace
    lease = Lease(shop.redis, Keys(namespace).lease(V1.key), V1.key, 0, 0.0)
    lease.open()
    before = left(shop, V1.key)
    with pytest.raises(FencedError, match="is being published by another process"):
        remove_online(shop.redis, namespace, V1.key, wait_s=0.0)
    assert left(shop, V1.key) == before
    lease.close()
    assert remove_online(shop.redis, namespace, V1.key, wait_s=0.0) == 605


def test_its_version_cannot_come_back_as_something_else_and_can_as_itself(shop: Shop) -> None:
    run(shop)
    with pytest.raises(PlanRefusedError, match="was deployed before with another computation"):
        shop.apply(SECOND, version(1, "amount > 1"))
    shop.apply(FIRST, SECOND)
    assert shop.online(["user_sales@1:bought_lifetime"], USERS, AT)["bought_lifetime"] == [0, 0, 0, 0]
    shop.backfill(V1, 2)
    shop.apply_online(shop.archive([]), V1, V2)
    assert shop.online(FIRST.key, USERS, day(2)) == shop.training(FIRST.key, USERS, day(2))


def test_a_batch_view_is_retired_with_its_rows(shop: Shop) -> None:
    row = {"user": "ann", "age": 4, "event_timestamp": START, "created_timestamp": START, "partition_start": START}
    rows = pa.Table.from_pylist([row], PROFILE_SCHEMA).rename_columns({"user": "user_id"})
    view = msgspec.structs.replace(profile, entity=user)
    shop.apply(SECOND, view)
    shop.offline.rows(view).overwrite(START, START + DAY_US, rows)
    publish_view(shop.redis, shop.settings.namespace, shop.offline, view)
    shop.apply(SECOND)
    found = planned(shop, view.key)
    assert (found.online.keys, [table.path for table in found.tables]) == ({"r": 1}, [f"features/{view.key}"])
    done = retire(shop.redis, shop.settings.namespace, shop.offline.location, found)
    assert (done.keys, left(shop, view.key)) == (1, [])
    assert remove_tables(shop.offline.location, view.key) == 0
