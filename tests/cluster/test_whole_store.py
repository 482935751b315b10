"""What looks at all keys looks at all primaries: what is held of a view, comparing two, removing one; and what is
deployed, whose keys have no slot.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from forebay.client.comparison import compare_views
from forebay.deploy.registry import Registry
from forebay.deploy.removal import online_holdings, remove_online
from forebay.deploy.unstreamed import _mark
from forebay.instants import MINUTE_US
from forebay.language.definitions import Definitions
from forebay.offline.documents import open_documents
from forebay.online.active import Active
from forebay.online.cluster import Cluster
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from forebay.online.scan import held, scan_view, some_entities
from forebay.online.signs import Sign, Signs
from tests.cluster.conftest import Steps
from tests.stores.conftest import Killed
from tests.stores.online_world import (
    MIDNIGHT_US,
    Order,
    ever,
    lane_of,
    publish,
    recent,
    stretch,
    values,
)
from tests.stores.online_world import read as read_values

PEOPLE = [f"u{n}" for n in range(150)]
ORDERS = [Order(person, MIDNIGHT_US - 600 * MINUTE_US + n * MINUTE_US, n, n) for n, person in enumerate(PEOPLE)]


@pytest.fixture
def filled(client: Cluster, namespace: str) -> Cluster:
    """Both views streamed and published."""
    lane = lane_of(client, namespace)
    lane.commit([stretch(ORDERS)])
    lane.close()
    for view in (recent, ever):
        publish(client, namespace, ORDERS, MIDNIGHT_US, view)
    return client


def test_all_primaries_are_looked_through(filled: Cluster, namespace: str) -> None:
    blobs = [blob for some in scan_view(filled, namespace, recent.key) for blob in some]
    assert {(blob.entity, blob.kind) for blob in blobs} == {(person, kind) for person in PEOPLE for kind in "pb"}
    assert sorted(some_entities(filled, namespace, recent.key, 1_000, 1_000)) == sorted(PEOPLE)
    assert held(filled, namespace, recent.key, ["u3", "nobody", "u77"]) == [True, False, True]
    found = online_holdings(filled, namespace, recent.key)
    assert (found.keys, found.beside) == ({"b": 150, "p": 150}, 64 * 2 + published(filled, namespace))


def published(client: Cluster, namespace: str) -> int:
    """The slots that say who has a batch blob."""
    keys = Keys(namespace)
    return sum(blob is not None for blob in client.mget(keys.slots("published", recent.key, range(64))))


def test_two_views_are_compared_on_live_entities(filled: Cluster, namespace: str) -> None:
    found = compare_views(filled, namespace, recent, ever, sample=1_000, now_us=MIDNIGHT_US)
    assert (found.entities, found.lacking) == (150, ())
    shared = {one.name: one.share_equal for one in found.features}
    assert (len(shared), set(shared.values())) == (3, {1.0})  # the windows of 24 hours


def test_a_view_is_removed_from_all_primaries_and_a_removal_that_dies_is_finished(
    filled: Cluster, namespace: str, steps: Steps
) -> None:
    before = values(read_values(filled, namespace, PEOPLE, MIDNIGHT_US), ever)
    steps.kill(300, arrived=True)
    with pytest.raises(Killed):
        remove_online(filled, namespace, recent.key)
    steps.clear()
    filled.delete(Keys(namespace).lease(recent.key))
    remove_online(filled, namespace, recent.key)
    left = online_holdings(filled, namespace, recent.key)
    assert (left.keys, left.beside) == ({}, 0)
    assert values(read_values(filled, namespace, PEOPLE, MIDNIGHT_US), ever) == before


def test_what_is_deployed_is_one_manifest_and_what_is_active_comes_after_it(
    client: Cluster, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, registry = Keys(namespace), Registry(open_documents(str(tmp_path)), client, namespace)
    put, puts = Registry._put, list[str]()

    def dying(to: Registry, key: str, *rest: object) -> None:
        if puts:
            raise OSError("killed")
        puts.append(key)
        put(to, key, *rest)  # type: ignore[arg-type]  # whatever it is given

    monkeypatch.setattr(Registry, "_put", dying)
    with pytest.raises(OSError, match="killed"):
        registry.apply(Definitions.of(recent))
    assert (puts, client.get(keys.active())) == ([keys.manifest()], None)
    monkeypatch.setattr(Registry, "_put", put)
    assert registry.apply(Definitions.of(recent)).number == 1
    assert Active.decode(client.get(keys.active())).number == 1
    assert registry.apply(Definitions.of(recent, ever)).number == 2
    assert (registry._read_online().number, Active.decode(client.get(keys.active())).number) == (2, 2)


def test_signs_of_life_are_written_and_new_views_are_marked_in_every_slot(client: Cluster, namespace: str) -> None:
    signs = Signs(client, namespace)
    signs.write("shop", Sign(3, 10, 20))
    assert signs.read("shop") == [Sign(3, 10, 20)]
    assert _mark(client, Keys.of(client, namespace), recent.key, {"0": 7})
    found = client.mget(Keys(namespace, apart=True).progress(recent.key, range(64)))
    assert {Progress.decode(blob).targets["0"] for blob in found} == {7}
