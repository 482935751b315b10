"""The log of a table that gets a commit a second stays short, and nobody who reads or writes it notices."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from deltalake.fs import DeltaStorageHandler

from forebay.errors import StoreError
from forebay.offline import lake_table, upkeep
from forebay.offline.clustering import Clustering
from forebay.offline.delta_log import DeltaLog
from forebay.offline.lake_table import LOG_KEPT, REMOVED_KEPT, LakeTable
from forebay.offline.tables import OfflineStore
from tests.stores.test_offline_archive import NOW_US, SOURCE, batch, items

COMMITS = 260


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was summed up was so for long, and what is old is to go."""
    monkeypatch.setattr(lake_table, "SUMMED_UP_S", -1.0)
    monkeypatch.setattr(lake_table, "LOG_KEPT", LOG_KEPT | {"delta.logRetentionDuration": "interval 0 seconds"})


def log_of(path: Path) -> Path:
    return path / "events" / "shop" / "_delta_log"


def commits_of(path: Path) -> int:
    return len(list(log_of(path).glob("*.json")))


def fill(store: OfflineStore, first: int = 0, count: int = COMMITS) -> None:
    archive = store.archive(SOURCE)
    for n in range(first, first + count):
        archive.append([batch(n, n + 1)], NOW_US)


def properties(path: Path) -> dict[str, str]:
    found = DeltaTable(log_of(path).parent).metadata().configuration
    return {name: value for name, value in found.items() if name != "delta.dataSkippingStatsColumns"}


@pytest.mark.usefixtures("aged")
def test_a_log_stays_short_and_positions_and_rows_are_there(tmp_path: Path) -> None:
    store, idle = OfflineStore(str(tmp_path)), OfflineStore(str(tmp_path)).archive(SOURCE)
    fill(store, count=1)
    assert idle.next_offset("p0") == 1
    fill(store, 1)
    assert commits_of(tmp_path) < 150, "from the checkpoint before the last that made room"
    for archive in (store.archive(SOURCE), idle, OfflineStore(str(tmp_path)).archive(SOURCE)):
        assert (archive.next_offset("p0"), archive.size()) == (COMMITS + 1, archive.size())
        assert archive.append([batch(COMMITS - 5, COMMITS + 1)], NOW_US) == 0
    assert items(store) == list(range(COMMITS + 1))
    assert idle.append([batch(COMMITS + 1, COMMITS + 3)], NOW_US) == 2
    assert store.archive(SOURCE).next_offset("p0") == COMMITS + 3


def test_nothing_goes_that_somebody_may_be_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what is younger than it is kept, nor what a checkpoint has only just summed up."""
    monkeypatch.setattr(lake_table, "SUMMED_UP_S", 1e9)  # however slow the machine is: decades
    store = OfflineStore(str(tmp_path))
    fill(store)
    assert commits_of(tmp_path) > COMMITS
    assert properties(tmp_path) == LOG_KEPT | REMOVED_KEPT
    for file in log_of(tmp_path).glob("0*"):
        os.utime(file, (1, 1))
    store.archive(SOURCE).table.shorten_log()
    assert commits_of(tmp_path) > COMMITS
    os.utime(log_of(tmp_path) / "_last_checkpoint", (1, 1))
    store.archive(SOURCE).table.shorten_log()
    assert commits_of(tmp_path) < 100
    assert items(store) == list(range(COMMITS))


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize("kept", ["", "interval 9 days"])
def test_a_table_of_before_learns_it_and_keeps_what_it_was_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    short = lake_table.LOG_KEPT
    monkeypatch.setattr(lake_table, "LOG_KEPT", {})
    monkeypatch.setattr(lake_table, "REMOVED_KEPT", {})
    store = OfflineStore(str(tmp_path))
    fill(store, count=120)
    if kept:
        DeltaTable(log_of(tmp_path).parent).alter.set_table_properties({"delta.logRetentionDuration": kept})
    monkeypatch.setattr(lake_table, "LOG_KEPT", short)
    monkeypatch.setattr(lake_table, "REMOVED_KEPT", REMOVED_KEPT)
    fill(store, 120, 200)
    assert properties(tmp_path) == short | REMOVED_KEPT | ({"delta.logRetentionDuration": kept} if kept else {})
    assert (commits_of(tmp_path) < 200) == (not kept)
    assert items(store) == list(range(320))


def test_in_a_bucket_the_log_is_kept_and_what_was_removed_is_not(s3_url: str) -> None:
    store = OfflineStore(s3_url)
    fill(store, count=60)
    table = store.archive(SOURCE).table
    snapshot = table.snapshot()
    assert snapshot is not None
    assert snapshot.metadata().configuration.items() >= REMOVED_KEPT.items()
    assert not snapshot.metadata().configuration.keys() & LOG_KEPT.keys()
    assert table.positions()["p0"] == 60


def test_a_log_is_not_listed_to_read_what_is_remembered(offline_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OfflineStore(offline_url)
    fill(store, count=130)
    table = store.archive(SOURCE).table
    monkeypatch.setattr(DeltaStorageHandler, "get_file_info_selector", None)
    assert table.positions()["p0"] == 130
    assert DeltaLog(table.location, table.path).transactions(110)["p0"] < 130
    with pytest.raises(FileNotFoundError, match="The last checkpoint is of version"):
        DeltaLog(table.location, table.path).transactions(50)


@pytest.mark.usefixtures("aged")
def test_a_writer_may_die_before_it_says_which_checkpoint_is_the_last(tmp_path: Path) -> None:
    """
    version     199 ✓     299 ✓ (not said)   350 the log is shortened: 199 goes
    """
    store, last = OfflineStore(str(tmp_path)), log_of(tmp_path) / "_last_checkpoint"
    fill(store, count=290)
    said = last.read_bytes()
    fill(store, 290, 20)
    assert last.read_bytes() != said
    last.write_bytes(said)
    fill(OfflineStore(str(tmp_path)), 310, 45)
    assert not (log_of(tmp_path) / f"{199:020}.checkpoint.parquet").exists()
    again = OfflineStore(str(tmp_path)).archive(SOURCE)
    assert again.positions()["p0"].next_offset == 355
    assert again.append([batch(350, 360)], NOW_US) == 5
    upkeep.keep_up(again.table, None)
    assert last.read_bytes() != said
    assert items(store) == list(range(360))


@pytest.mark.usefixtures("aged")
@pytest.mark.parametrize("by", [None, Clustering(("user",), last=("ts",))])
def test_what_takes_longer_than_the_log_is_kept_is_left_for_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: Clustering | None
) -> None:
    """A flow goes on for some hundred commits between the look of whoever merges or orders a date, and its commit."""
    store = OfflineStore(str(tmp_path))
    fill(store, count=20)
    slow, look = OfflineStore(str(tmp_path)).archive(SOURCE).table, LakeTable.snapshot
    commits = iter((20, 20 + COMMITS))

    def snapshot(table: LakeTable) -> DeltaTable | None:
        found = look(table)
        if table is slow and sys._getframe(1).f_code.co_name in ("compact", "_try"):
            for first in itertools.islice(commits, 1):
                fill(store, first)
        return found

    monkeypatch.setattr(LakeTable, "snapshot", snapshot)
    monkeypatch.setattr(upkeep, "SMALL_FILES", 2)
    upkeep.keep_up(slow, by)
    assert items(store) == list(range(20 + 2 * COMMITS if by else 20 + COMMITS))


def test_several_may_shorten_a_log_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OfflineStore(str(tmp_path))
    fill(store)
    for file in log_of(tmp_path).glob("*"):
        os.utime(file, (1, 1))
    tables = [OfflineStore(str(tmp_path)).archive(SOURCE).table for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(LakeTable.shorten_log, tables))
    tables[0].shorten_log()
    assert commits_of(tmp_path) < 100
    assert items(store) == list(range(COMMITS))


def test_a_checkpoint_in_parts_is_read_as_a_whole(tmp_path: Path) -> None:
    store = OfflineStore(str(tmp_path))
    fill(store, count=130)
    expected = store.archive(SOURCE).table.positions()
    split(log_of(tmp_path))
    assert OfflineStore(str(tmp_path)).archive(SOURCE).table.positions() == expected


@pytest.mark.parametrize("commits", [20, 130])
@pytest.mark.parametrize("said", [b"", b'{"version":', b"null", b'{"version": "last"}'])
def test_a_damaged_hint_at_the_last_checkpoint_is_done_without(tmp_path: Path, commits: int, said: bytes) -> None:
    fill(OfflineStore(str(tmp_path)), count=commits)
    (log_of(tmp_path) / "_last_checkpoint").write_bytes(said)
    again = OfflineStore(str(tmp_path))
    assert again.archive(SOURCE).positions()["p0"].next_offset == commits
    fill(again, commits, 5)
    assert items(again) == list(range(commits + 5))


def test_a_commit_that_is_not_there_is_missed(tmp_path: Path) -> None:
    """A paused writer may put one where one had been removed: it is in nobody's table, though Delta says it is."""
    home, before = tmp_path / "home", tmp_path / "before"
    store = OfflineStore(str(home))
    fill(store, count=3)
    shutil.copytree(home, before)
    archive = OfflineStore(str(home)).archive(SOURCE)
    archive.append([batch(3, 9)], NOW_US)
    shutil.rmtree(home)
    shutil.copytree(before, home)
    fill(store, 3, 3)
    with pytest.raises(
        StoreError, match=r"'events/shop' lacks what was committed to it: 'p0' is at 6, .* brought to 9"
    ):
        archive.append([batch(9, 10)], NOW_US)
    assert OfflineStore(str(home)).archive(SOURCE).append([batch(6, 10)], NOW_US) == 4


def split(log: Path) -> None:
    """Write the last checkpoint as others do it, in two parts."""
    (whole,) = sorted(log.glob("*.checkpoint.parquet"))[-1:]
    rows, version = pq.read_table(whole), whole.name[:20]
    for n, part in enumerate((rows.slice(0, 3), rows.slice(3)), 1):
        pq.write_table(part, log / f"{version}.checkpoint.{n:010}.{2:010}.parquet")
    whole.unlink()
    last: dict[str, Any] = {"version": int(version), "size": len(rows), "parts": 2}
    (log / "_last_checkpoint").write_text(str(last).replace("'", '"'))
