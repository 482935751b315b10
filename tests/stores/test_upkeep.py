"""Upkeep: tables in order, garbage gone, positions and every row there, whoever writes at the same time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from forebay import Count, Entity, String, WindowedView
from forebay.errors import StoreError
from forebay.ingest.arrow import conform
from forebay.instants import DAY_US, HOUR_US
from forebay.language.definitions import Definitions
from forebay.offline import lake_table, upkeep
from forebay.offline.archive import Archive
from forebay.offline.lake_table import LakeTable
from forebay.offline.tables import OfflineStore
from tests.stores.test_offline_archive import NOW_US, SOURCE, START_US, batch, items

VIEW = WindowedView(
    "by_user", 1, Entity("user", keys={"user": String}), SOURCE, features=[Count("n", windows=["1h"], default=0)]
)
DEFINITIONS = Definitions.of(VIEW)
ORDER = ["user", "ts"]


def keep_all(store: OfflineStore, *, dry_run: bool = False) -> dict[str, upkeep.Kept]:
    kept = [upkeep.keep_up(table, order, dry_run=dry_run) for table, order in upkeep.tables(store, DEFINITIONS)]
    return {one.table: one for one in kept}


def archive_of_many(store: OfflineStore, users: int, events: int) -> Archive:
    """Two days of events in the order of time, each user's spread over all of it."""
    archive, rng = store.archive(SOURCE), np.random.default_rng(1)
    for number in range(2):
        user = rng.integers(0, users, events)
        rows = pa.table(
            {
                "event_id": pa.array([f"e{number}-{i}" for i in range(events)]),
                "user": pa.array([f"u{i:05d}" for i in user.tolist()]),
                "item": pa.array(user),
                "amount": pa.array(np.ones(events)),
                "ts": pa.array(np.sort(rng.integers(0, DAY_US, events)) + START_US + number * DAY_US).cast(
                    pa.timestamp("us", "UTC")
                ),
            }
        )
        made, dead = conform(SOURCE, f"p{number}", 0, rows, NOW_US)
        assert not dead
        archive.append([made], NOW_US)
    return archive


def row_groups(table: LakeTable, users: list[str]) -> tuple[int, int]:
    """The row groups that a look-up of some users reads, and all there are."""
    snapshot = table.snapshot()
    assert snapshot is not None
    dataset, where = snapshot.to_pyarrow_dataset(), pc.field("user").isin(pa.array(users))
    read = [part.subset(where, schema=dataset.schema).row_groups for part in dataset.get_fragments(filter=where)]
    return sum(map(len, read)), sum(len(part.row_groups) for part in dataset.get_fragments())


def test_a_look_up_reads_one_row_group_of_each_date_once_they_are_in_order(
    offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lake_table,
        "_CLUSTERED_WRITER",
        lake_table.WriterProperties(compression="ZSTD", max_row_group_size=1024),
    )
    store = OfflineStore(offline_url)
    archive = archive_of_many(store, users=500, events=8_000)
    before = archive.scan(["user", "ts", "item"], entities=pa.table({"user": ["u00042"]}))
    assert row_groups(archive.table, ["u00042"]) == (2, 2), "one large row group for each date, read as a whole"
    keep_all(store)
    read, there = row_groups(archive.table, ["u00042"])
    assert (read, there >= 16) == (2, True)
    assert row_groups(archive.table, ["u00001", "u00002"])[0] <= 4, "neighbours lie together"
    after = archive.scan(["user", "ts", "item"], entities=pa.table({"user": ["u00042"]}))
    assert after.sort_by("ts").equals(before.sort_by("ts"))
    assert archive.positions().keys() == {"p0", "p1"}
    assert keep_all(store)["events/shop"].ordered == (), "what is in order is left alone"


def test_no_row_is_lost_or_doubled_while_others_append_and_fold(offline_url: str) -> None:
    store, wanted = OfflineStore(offline_url), 30
    store.archive(SOURCE).append([batch(0, 5, "p0")], NOW_US)

    def write(partition: str) -> None:
        archive = OfflineStore(offline_url).archive(SOURCE)
        for first in range(0, wanted, 3):
            archive.append([batch(first, first + 5, partition)], NOW_US)  # overlapping, as after a restart

    def maintain() -> None:
        for _ in range(4):
            keep_all(OfflineStore(offline_url))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(write, "p0"), pool.submit(write, "p1"), pool.submit(maintain)]:
            done.result()
    keep_all(store)
    expected = sorted([*range(wanted + 2), *range(wanted + 2)])
    assert items(store) == expected
    assert {name: one.next_offset for name, one in store.archive(SOURCE).positions().items()} == {
        "p0": wanted + 2,
        "p1": wanted + 2,
    }


def test_rows_that_come_in_while_a_date_is_put_in_order_make_it_be_done_again(
    offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, interrupted = OfflineStore(offline_url), []
    store.archive(SOURCE).append([batch(0, 10)], NOW_US)
    write = lake_table.write_deltalake

    def meanwhile(table: DeltaTable, rows: pa.Table, **how: object) -> None:
        if not interrupted and how.get("mode") == "overwrite":
            interrupted.append(len(rows))
            OfflineStore(offline_url).archive(SOURCE).append([batch(10, 13)], NOW_US)
        write(table, rows, **how)  # type: ignore[call-overload]  # the arguments of the call that was taken

    monkeypatch.setattr(lake_table, "write_deltalake", meanwhile)
    kept = keep_all(store)["events/shop"]
    assert (interrupted, kept.ordered, kept.busy) == ([10], ("2024-01-01",), ())
    assert items(store) == list(range(13))


def test_a_date_that_others_never_leave_alone_is_left_for_later(
    offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = OfflineStore(offline_url)
    store.archive(SOURCE).append([batch(0, 10)], NOW_US)

    def busy(table: LakeTable, date: str, order: list[str]) -> None:
        raise StoreError("10 commits in a row met others")

    monkeypatch.setattr(LakeTable, "cluster", busy)
    kept = keep_all(store)["events/shop"]
    assert (kept.ordered, kept.busy) == ((), ("2024-01-01",))
    assert items(store) == list(range(10))


def test_positions_survive_a_checkpoint_and_the_removal_of_the_log_before_it(tmp_path: Path) -> None:
    store = OfflineStore(str(tmp_path))
    archive = store.archive(SOURCE)
    for first in range(0, 40, 10):
        archive.append([batch(first, first + 10)], NOW_US)
    archive.beat({"p0": NOW_US})
    known, watermark_us = archive.positions(), archive.watermark_us()
    table = DeltaTable(archive.table.location.at("events/shop"))
    table.alter.set_table_properties({"delta.logRetentionDuration": "interval 0 seconds"})
    log = tmp_path / "events" / "shop" / "_delta_log"
    commits = len(list(log.glob("*.json")))
    for file in log.glob("*.json"):
        os.utime(file, (1, 1))
    keep_all(store)
    assert len(list(log.glob("*.json"))) < commits
    again = OfflineStore(str(tmp_path)).archive(SOURCE)
    assert (again.positions(), again.watermark_us()) == (known, watermark_us)
    assert again.append([batch(20, 45)], NOW_US).rows == 5
    assert items(store) == list(range(45))


def test_small_files_become_few_and_garbage_goes_when_it_is_old(tmp_path: Path) -> None:
    store = OfflineStore(str(tmp_path))
    archive = store.archive(SOURCE)
    for first in range(12):
        archive.append([batch(first, first + 1)], NOW_US)
    folder = tmp_path / "events" / "shop" / "date=2024-01-01"
    killed = folder / "part-of-a-load-that-was-killed.zstd.parquet"
    killed.write_bytes(b"half")
    would = keep_all(store, dry_run=True)["events/shop"]
    assert (would.ordered, would.files_before, would.files_after, would.removed) == (("2024-01-01",), 12, 12, 0)
    assert len(list(folder.iterdir())) == 13
    done = keep_all(store)["events/shop"]
    assert (done.files_before, done.files_after, done.removed) == (12, 1, 0)
    assert killed.exists(), "somebody may be writing it"
    for file in folder.iterdir():
        os.utime(file, (1, 1))
    keep_all(store)
    assert not killed.exists()
    assert items(store) == list(range(12))


def test_streams_that_took_the_archive_go_on_after_upkeep(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    archive = store.archive(SOURCE)
    archive.take(3)
    archive.append([batch(0, 10)], NOW_US)
    keep_all(store)
    assert archive.append([batch(10, 20)], NOW_US).rows == 10
    assert archive.flow() == 3
    assert archive.events_by_date() == {"2024-01-01": 20}
    assert archive.watermark_us() == START_US + 19 * HOUR_US + 123_456
