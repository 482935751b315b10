"""Taking over both stores: whoever came last writes, whoever was replaced does not, wherever it had got to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import redis
from deltalake import DeltaTable

from forebay.errors import FencedError
from forebay.ingest.batch import FUTURE, DeadLetter
from forebay.offline.archive import Archive
from forebay.offline.commit import Commit
from forebay.offline.lake_table import LakeTable
from forebay.offline.loading import load
from forebay.offline.tables import OfflineStore
from forebay.online.keys import Keys
from forebay.online.lane import Lane
from forebay.online.takeover import take_over
from tests.stores.online_world import VIEWS
from tests.stores.test_offline_archive import NOW_US, SOURCE, batch, items

HALVES = (range(0, 64, 2), range(1, 64, 2))


def lanes_of(client: redis.Redis, namespace: str) -> list[Lane]:
    return [Lane(client, namespace, [*VIEWS.values()], slots) for slots in HALVES]


def test_all_slots_change_hands_at_once_and_each_take_over_has_a_greater_number(
    client: redis.Redis, namespace: str
) -> None:
    first, second = lanes_of(client, namespace), lanes_of(client, namespace)
    assert take_over(client, namespace, first, 0) == 1
    assert take_over(client, namespace, second, 0) == 2
    for lane in first:
        with pytest.raises(FencedError):
            lane.begin()
    for lane in second:
        lane.begin()


def test_a_store_that_lost_its_count_is_told_what_the_tables_have_seen(client: redis.Redis, namespace: str) -> None:
    assert take_over(client, namespace, lanes_of(client, namespace), 41) == 42
    client.delete(Keys(namespace).flows())
    assert take_over(client, namespace, [], 42) == 43


def taken(url: str, number: int) -> Archive:
    archive = OfflineStore(url).archive(SOURCE)
    archive.take(number)
    return archive


def test_a_flow_that_was_replaced_appends_nothing(offline_url: str) -> None:
    first = taken(offline_url, 1)
    first.append([batch(0, 5)], NOW_US)
    second = taken(offline_url, 2)
    for append in (lambda: first.append([batch(5, 9)], NOW_US), lambda: first.beat({"p0": NOW_US})):
        with pytest.raises(FencedError, match="Another flow took over table 'events/shop'"):
            append()
    with pytest.raises(FencedError):
        taken(offline_url, 1)
    second.append([batch(5, 7)], NOW_US)
    assert (items(OfflineStore(offline_url)), second.next_offset("p0"), second.flow()) == (list(range(7)), 7, 2)
    assert second.positions().keys() == {"p0"}


def test_a_flow_that_is_replaced_between_its_look_and_its_commit_appends_nothing(
    offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, write = taken(offline_url, 1), LakeTable._write

    def paused(table: LakeTable, snapshot: DeltaTable, commit: Commit, **how: Any) -> None:
        monkeypatch.setattr(LakeTable, "_write", write)
        taken(offline_url, 2).append([batch(0, 3)], NOW_US)
        write(table, snapshot, commit, **how)

    monkeypatch.setattr(LakeTable, "_write", paused)
    with pytest.raises(FencedError):
        first.append([batch(0, 5)], NOW_US)
    assert items(OfflineStore(offline_url)) == [0, 1, 2]


def test_the_workers_of_a_flow_do_not_meet_each_other_and_all_are_refused_once_it_is_replaced(
    offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """flow 1        take ─┬─ worker 0:  look ············ commit        look ············ commit: fenced
    worker 1               └────────────────── commit                       flow 2: take"""
    taken(offline_url, 1)
    workers = [OfflineStore(offline_url).archive(SOURCE) for _ in range(2)]
    for n, worker in enumerate(workers):
        worker.share(1, n)
    write, tries, meanwhile = LakeTable._write, list[Commit](), list[Any]()

    def paused(table: LakeTable, snapshot: DeltaTable, commit: Commit, **how: Any) -> None:
        tries.append(commit)
        if meanwhile:
            meanwhile.pop()()
        write(table, snapshot, commit, **how)

    monkeypatch.setattr(LakeTable, "_write", paused)
    meanwhile.append(lambda: workers[1].append([batch(0, 4, "p1")], NOW_US))
    workers[0].append([batch(0, 3, "p0")], NOW_US)
    assert len(tries) == 2
    meanwhile.append(lambda: taken(offline_url, 2))
    with pytest.raises(FencedError):
        workers[0].append([batch(3, 9, "p0")], NOW_US)
    with pytest.raises(FencedError):
        workers[1].append([batch(4, 9, "p1")], NOW_US)
    found = OfflineStore(offline_url).archive(SOURCE).positions()
    assert {name: one.next_offset for name, one in found.items()} == {"p0": 3, "p1": 4}


def test_a_file_can_be_loaded_whoever_took_the_table(offline_url: str, tmp_path_factory: Any) -> None:
    flow = taken(offline_url, 3)
    file = tmp_path_factory.mktemp("load") / "history.ndjson"
    file.write_bytes(b'{"event_id":"x","user":"u","item":100,"amount":1,"ts":"2024-01-02T00:00:00Z"}\n')
    assert load(OfflineStore(offline_url).archive(SOURCE), file).rows == 1
    flow.append([batch(0, 2)], NOW_US)
    assert items(OfflineStore(offline_url)) == [0, 1, 100]


def test_the_letters_of_each_source_are_taken_apart(offline_url: str) -> None:
    def letter(source: str, offset: int) -> DeadLetter:
        return DeadLetter(source, "p", offset, FUTURE, "", b"", 0)

    store = OfflineStore(offline_url)
    first, other, second = store.dead_letters(), store.dead_letters(), store.dead_letters()
    first.take("shop", 1)
    other.take("bank", 2)
    second.take("shop", 3)
    with pytest.raises(FencedError):
        first.append([letter("shop", 0)], NOW_US)
    other.append([letter("bank", 0)], NOW_US)
    second.append([letter("shop", 5)], NOW_US)
    found: Mapping[str, list[Any]] = store.dead_letters().scan().to_pydict()
    assert sorted(zip(found["source"], found["source_offset"], strict=True)) == [("bank", 0), ("shop", 5)]
    assert (first.flow("shop"), first.flow("bank"), first.flow("none")) == (3, 2, 0)
