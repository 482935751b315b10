"""Upkeep: tables in order, garbage gone, positions and every row there, whoever writes at the same time."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from forebay import Count, Entity, Int64, String, WindowedView
from forebay.backfill.tiles import fold_dates
from forebay.core.identity import buckets_of
from forebay.core.layout import Layout
from forebay.errors import StoreError
from forebay.ingest.arrow import conform
from forebay.ingest.batch import INSTANT
from forebay.instants import DAY_US, HOUR_US
from forebay.language.definitions import Definitions
from forebay.offline import lake_table, shards, upkeep
from forebay.offline.archive import Archive
from forebay.offline.clustering import Clustering, Hashes, dataset_of, near
from forebay.offline.lake_table import LakeTable
from forebay.offline.tables import OfflineStore
from forebay.offline.tiles_columns import HOP_US, START
from tests.stores.test_offline_archive import NOW_US, SOURCE, START_US, batch, items

VIEW = WindowedView(
    "by_user", 1, Entity("user", keys={"user": String}), SOURCE, features=[Count("n", windows=["1h"], default=0)]
)
DEFINITIONS = Definitions.of(VIEW)


USER = Clustering(("user",), last=("ts",))


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


def row_groups(table: LakeTable, hashes: Hashes, where: pc.Expression | None = None) -> tuple[int, int]:
    """The row groups that a read of some hashes touches, and all there are."""
    snapshot = table.snapshot()
    assert snapshot is not None
    dataset = dataset_of(snapshot)
    where = near(dataset, where, hashes)
    assert where is not None
    read = [part.subset(where, schema=dataset.schema).row_groups for part in dataset.get_fragments()]
    return sum(map(len, read)), sum(len(part.row_groups) for part in dataset.get_fragments())


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    writer = lake_table.WriterProperties(compression="ZSTD", max_row_group_size=1024)
    monkeypatch.setattr(lake_table, "_CLUSTERED_WRITER", writer)
    monkeypatch.setattr(shards, "CLUSTERED_GROUP_ROWS", 1024)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lake_table, "CLUSTERED_FILE_BYTES", 64 * 1024)


def by_ts(rows: pa.Table) -> pa.Table:
    return rows.sort_by([("ts", "ascending"), ("item", "ascending")])


@pytest.mark.usefixtures("small_groups")
def test_a_look_up_reads_one_row_group_of_each_date_once_they_are_in_order(
    offline_url: str, reads: dict[str, int]
) -> None:
    store = OfflineStore(offline_url)
    archive = archive_of_many(store, users=500, events=40_000)
    columns, asked = ["user", "ts", "item", "event_id"], pa.table({"user": ["u00042"]})

    def look_up() -> tuple[pa.Table, int]:
        reads.clear()
        rows = archive.scan(columns, entities=asked)
        return by_ts(rows.filter(pc.equal(rows["user"], "u00042"))), sum(reads.values())

    before, bytes_before = look_up()
    assert bytes_before
    keep_all(store)
    after, bytes_after = look_up()
    assert after.equals(before)
    assert len(after) > 100
    read, there = row_groups(archive.table, USER.of({"user": asked["user"]}))
    assert (read, there) == (2, 80), "one of each date"
    assert bytes_after < bytes_before / 2, "of which most are the footers of files"
    assert archive.positions().keys() == {"p0", "p1"}
    assert keep_all(store)["events/shop"].ordered == (), "what is in order is left alone"


@pytest.mark.usefixtures("small_groups")
def test_a_look_up_of_tiles_reads_two_row_groups_of_each_date_once_they_are_in_order(
    offline_url: str, reads: dict[str, int]
) -> None:
    store = OfflineStore(offline_url)
    user = Entity("user", keys={"user": String})
    view = WindowedView("by_user", 1, user, SOURCE, features=[Count("n", windows=["1h", "7d"], default=0)])
    archive_of_many(store, users=500, events=20_000)
    fold_dates(store, view, START_US, START_US + 2 * DAY_US)
    table = store.tiles(view).table
    hop_us = Layout.of(view).hops_us[0]
    (by,) = (by for one, by in upkeep.tables(store, Definitions.of(view)) if one.path == table.path and by)
    hashes, where = by.of({"user": pa.array(["u00042"])}), pc.field(HOP_US) == hop_us

    def look_up() -> tuple[pa.Table, int]:
        reads.clear()
        rows = table.reading(table.schema.names, where, None, hashes).table()
        mine = rows.filter(pc.equal(rows["user"], "u00042"))
        return mine.sort_by(START), sum(reads.values())

    before, bytes_before = look_up()
    upkeep.keep_up(table, by)
    after, bytes_after = look_up()
    assert after.equals(before)
    assert len(after) > 50
    read, there = row_groups(table, hashes, where)
    assert there > 40
    assert read == 4, "one of each date, and one in which the next hop begins"
    assert bytes_after < bytes_before / 2, "of which most are the footers of files"


@pytest.mark.usefixtures("small_groups", "small_files")
def test_a_shard_of_entities_reads_only_its_files(offline_url: str, reads: dict[str, int]) -> None:
    store = OfflineStore(offline_url)
    archive = archive_of_many(store, users=500, events=40_000)
    keep_all(store)
    parts = archive.shards(["user"], 8, pc.field("ts") >= pa.scalar(0, INSTANT), None, START_US + 2 * DAY_US, 10_000)
    every = archive.scan(["user", "event_id"])
    files = len(archive.table.files_of())
    assert files >= 16
    sizes, found, touched = [], [], []
    for number in range(8):
        reads.clear()
        rows = pa.concat_tables([rows for _, rows in parts.file(number).pieces(["user", "event_id"])])
        assert set(buckets_of(pc.unique(rows["user"]), 8)) == {number}
        sizes.append(sum(reads.values()))
        found.append(rows)
        hashes = USER.shard(number, 8)
        read, there = row_groups(archive.table, hashes)
        assert read <= there / 4
        touched.append(len(parts.files()[number]))
    assert sum(touched) <= files + 2 * 8, "each file once, and again for each edge of a shard within it"
    assert pa.concat_tables(found).sort_by("event_id").equals(every.sort_by("event_id")), "each row is in one shard"
    reads.clear()
    archive.table.files_with([USER.shard(0, 8)], pc.field("ts") >= pa.scalar(0, INSTANT))
    footers = sum(reads.values())
    reads.clear()
    list(archive.table.reading(["user", "event_id"], pc.field("ts") >= pa.scalar(0, INSTANT)).row_groups())
    whole = sum(reads.values()) - footers
    assert max(sizes) - footers < whole / 3, "of eight shards"
    assert sum(size - footers for size in sizes) < 2 * whole
    assert parts.times_read() < 1.2


@pytest.mark.usefixtures("small_groups")
def test_rows_that_came_in_since_and_dates_in_no_order_are_found_by_look_ups_and_shards(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    store.archive(SOURCE).append([batch(0, 60)], NOW_US)  # three dates
    archive = store.archive(SOURCE)
    users = pc.unique(archive.scan(["user"])["user"])
    archive.table.cluster("2024-01-02", USER)
    archive.append([batch(60, 75), batch(30, 40, "late")], NOW_US)
    every = archive.scan(["user", "item", "ts"])
    assert set(pc.unique(every["ts"].cast(pa.date32())).to_pylist()) == {date(2024, 1, day) for day in (1, 2, 3, 4)}
    for user in users.to_pylist():
        rows = archive.scan(["user", "item", "ts"], entities=pa.table({"user": [user]}))
        mine = by_ts(rows.filter(pc.equal(rows["user"], user)))
        assert mine.equals(by_ts(every.filter(pc.equal(every["user"], user))))
    parts = archive.shards(["user"], 3, pc.field("ts") >= pa.scalar(0, INSTANT), None, START_US + 9 * DAY_US, 10)
    found = [rows for number in range(3) for _, rows in parts.file(number).pieces(["user", "item", "ts"])]
    assert by_ts(pa.concat_tables(found)).equals(by_ts(every))


def test_dates_that_an_older_forebay_put_in_order_are_read_and_put_in_order_anew(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    archive = store.archive(SOURCE)
    archive.append([batch(0, 20)], NOW_US)
    rows = (
        archive.table.reading(archive.table.schema.names).table().sort_by([("user", "ascending"), ("ts", "ascending")])
    )
    archive.table.overwrite("date = '2024-01-01'", lake_table.Commit(rows, {"clustered/2024-01-01": len(rows)}))
    assert items(store) == list(range(20))
    assert keep_all(store)["events/shop"].ordered == ("2024-01-01",)
    assert items(store) == list(range(20))


def test_an_archive_is_in_order_for_the_entity_of_most_views_and_answers_for_all(offline_url: str) -> None:
    store, item = OfflineStore(offline_url), Entity("item", keys={"item": Int64})
    store.archive(SOURCE).append([batch(0, 20)], NOW_US)
    keep_all(store)
    views = [
        WindowedView(f"by_item_{n}", 1, item, SOURCE, features=[Count("n", windows=["1h"], default=0)]) for n in "ab"
    ]
    table, by = next(iter(upkeep.tables(store, Definitions.of(VIEW, *views))))
    assert by == Clustering(("item",), last=("ts",))
    archive = store.archive(SOURCE)
    for asked in ({"item": [7]}, {"user": ["u1"]}):
        rows = archive.scan(["user", "item"], entities=pa.table(asked))
        ((name, (value,)),) = asked.items()
        expected = [row for row in archive.scan(["user", "item"]).to_pylist() if row[name] == value]
        assert sorted(rows.filter(pc.equal(rows[name], value)).to_pylist(), key=str) == sorted(expected, key=str)
    upkeep.keep_up(table, by)
    names = {"__hash_of_user", "__hash_of_item"}
    assert names <= set(pa.schema(table.snapshot().schema()).names)  # type: ignore[union-attr]  # it is there
    assert items(store) == list(range(20))
    assert table.unordered(by) == {}
    assert table.unordered(USER) == {"2024-01-01": 20}


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

    def busy(table: LakeTable, day: str, by: Clustering) -> None:
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
    keep_all(store)
    for file in log.glob("*"):
        os.utime(file, (1, 1))
    keep_all(store)
    assert len(list(log.glob("*.json"))) < commits
    again = OfflineStore(str(tmp_path)).archive(SOURCE)
    assert (again.positions(), again.watermark_us()) == (known, watermark_us)
    assert again.append([batch(20, 45)], NOW_US) == 5
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
    assert archive.append([batch(10, 20)], NOW_US) == 10
    assert archive.flow() == 3
    assert archive.events_by_date() == {"2024-01-01": 20}
    assert archive.watermark_us() == START_US + 19 * HOUR_US + 123_456
