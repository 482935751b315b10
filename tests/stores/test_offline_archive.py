"""The archive on a folder and on S3: every event once, whatever is repeated, raced or killed."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from forebay import Decimal, EventSource, Int64, String, Timestamp
from forebay.errors import RequestError, StoreError, StoreUnavailableError
from forebay.ingest.batch import SOURCE_OFFSET, EventBatch
from forebay.ingest.json import decode_json
from forebay.instants import DAY_US, HOUR_US, day_us, instant_text
from forebay.offline.loading import load
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings

START_US = day_us("2024-01-01")
NOW_US = START_US + 30 * DAY_US
SOURCE = EventSource(
    "shop",
    schema={"event_id": String, "user": String, "item": Int64, "amount": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
)


def line(number: int, *, hours: int | None = None) -> bytes:
    """The event of a number: one an hour."""
    ts = instant_text(START_US + (number if hours is None else hours) * 3_600_000_000 + 123_456)
    event = {"event_id": f"e{number}", "user": f"u{number % 7}", "item": number, "amount": number / 4, "ts": ts}
    return json.dumps(event).encode()


def batch(first: int, end: int, partition: str = "p0") -> EventBatch:
    """The events from one number to another, at those offsets of a partition."""
    return decode_json(SOURCE, partition, first, [line(n) for n in range(first, end)], NOW_US)[0]


def items(store: OfflineStore) -> list[int]:
    return sorted(store.archive(SOURCE).scan(["item"])["item"].to_pylist())


def test_what_is_appended_is_scanned(offline_url: str) -> None:
    archive = OfflineStore(offline_url).archive(SOURCE)
    assert archive.scan(["item"]).num_rows == 0
    assert archive.next_offset("p0") == 0
    assert archive.watermark_us() is None
    assert archive.size() is None

    archive.append([batch(0, 50), batch(50, 60)], NOW_US)

    assert archive.next_offset("p0") == 60
    everything = archive.scan([field.name for field in archive.table.schema])
    assert everything.schema.equals(archive.table.schema)
    expected = pa.concat_tables([batch(0, 60).table])
    assert everything.sort_by("item").select(expected.column_names).equals(expected)
    assert set(everything["date"].to_pylist()) == {"2024-01-01", "2024-01-02", "2024-01-03"}
    assert archive.events_by_date() == {"2024-01-01": 24, "2024-01-02": 24, "2024-01-03": 12}
    assert (archive.size() or (0, 0))[0] == 60


def test_the_interval_of_a_scan_is_half_open_to_the_microsecond(offline_url: str) -> None:
    archive = OfflineStore(offline_url).archive(SOURCE)
    archive.append([batch(0, 72)], NOW_US)
    start_us = START_US + 24 * 3_600_000_000 + 123_456
    end_us = START_US + 30 * 3_600_000_000 + 123_456

    found = archive.scan(["item", "source_partition", "source_offset"], start_us, end_us)
    assert sorted(found["item"].to_pylist()) == list(range(24, 30))
    assert sorted(archive.scan(["item"], start_us + 1, end_us + 1)["item"].to_pylist()) == list(range(25, 31))
    assert archive.scan(["item"], start_us, start_us).num_rows == 0
    of_some = archive.scan(["item", "user"], start_us, end_us, pa.table({"user": ["u3", "u5"]}))
    assert sorted(of_some["item"].to_pylist()) == [24, 26]


def test_a_replay_adds_only_what_is_new(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    store.archive(SOURCE).append([batch(0, 10)], NOW_US)

    again = OfflineStore(offline_url).archive(SOURCE)
    assert again.append([batch(0, 10)], NOW_US) == 0
    assert again.append([batch(5, 15)], NOW_US) == 5
    assert again.append([batch(0, 12), batch(12, 20)], NOW_US) == 5
    assert items(store) == list(range(20))


def test_offsets_without_events_move_the_position(offline_url: str) -> None:
    archive = OfflineStore(offline_url).archive(SOURCE)
    empty, dead = decode_json(SOURCE, "p0", 0, [b"x", b"y"], NOW_US)
    assert (len(empty), len(dead)) == (0, 2)
    archive.append([empty], NOW_US)
    assert archive.next_offset("p0") == 2
    assert archive.watermark_us() is None


def test_the_watermark_is_that_of_the_slowest_partition_and_never_falls(offline_url: str) -> None:
    archive = OfflineStore(offline_url).archive(SOURCE)
    archive.append([batch(0, 10, "p0"), batch(0, 20, "p1")], NOW_US)
    slowest = START_US + 9 * 3_600_000_000 + 123_456
    assert archive.watermark_us() == slowest

    late = decode_json(SOURCE, "p0", 10, [line(3)], NOW_US)[0]
    archive.append([late], NOW_US)
    assert archive.watermark_us() == slowest
    assert {name: p.next_offset for name, p in archive.positions().items()} == {"p0": 11, "p1": 20}


def test_a_watermark_before_1970_rises_as_any_other_and_never_falls(offline_url: str) -> None:
    old = EventSource("old", schema=SOURCE.schema, timestamp="ts", event_id="event_id", history_start="1960-01-01")
    archive = OfflineStore(offline_url).archive(old)
    for offset, (us, watermark_us) in enumerate([(-3, -3), (-2, -2), (-9, -2), (0, 0), (-1, 0), (1, 1)]):
        event = json.dumps({"event_id": f"e{offset}", "item": offset, "ts": instant_text(us)}).encode()
        both = OfflineStore(offline_url).archive(old), archive
        both[offset % 2].append([decode_json(old, "p0", offset, [event], NOW_US)[0]], NOW_US)
        assert [one.watermark_us() for one in both] == [watermark_us, watermark_us]
    assert sorted(archive.scan(["item"])["item"].to_pylist()) == [*range(6)]


@pytest.mark.parametrize("size", [None, 0, 300])
def test_a_file_that_is_damaged_or_gone_is_named(tmp_path: Path, size: int | None) -> None:
    OfflineStore(str(tmp_path)).archive(SOURCE).append([batch(0, 10)], NOW_US)
    (file,) = tmp_path.glob("events/shop/date=*/*.parquet")
    if size is None:
        file.unlink()
    else:
        os.truncate(file, size)
    with pytest.raises(
        StoreError, match=rf"damaged, or gone \(reading events/shop\): .*{file.name}.*Restore it"
    ) as named:
        OfflineStore(str(tmp_path)).archive(SOURCE).scan(["item"])
    assert not isinstance(named.value, StoreUnavailableError), "waiting does not mend it"


def test_batches_that_overlap_are_archived_once_also_within_a_call(offline_url: str) -> None:
    store = OfflineStore(offline_url)
    archive = store.archive(SOURCE)
    assert archive.append([batch(0, 10), batch(5, 12), batch(0, 3, "p1"), batch(2, 4), batch(0, 4, "p1")], NOW_US) == 16
    assert items(store) == sorted([*range(12), *range(4)])
    assert (archive.next_offset("p0"), archive.next_offset("p1")) == (12, 4)


def test_what_is_recent_of_partitions_that_ended_long_ago_is_read_from_their_dates_alone(
    offline_url: str, reads: Counter[str]
) -> None:
    """
    date      01-01   01-02   01-03   01-04   …       a partition for each day, which ends with it
    day-2                       ├───┤                 within two hours of its newest event
    day-2               ├───────────┤                 within a day
    """
    archive = OfflineStore(offline_url).archive(SOURCE)
    for day in range(6):
        archive.append([batch(24 * day, 24 * day + 24, f"day-{day}")], NOW_US)
    newest = {name: one.newest_us or 0 for name, one in archive.positions().items()}

    def recent(within_us: int, *names: str) -> tuple[dict[str, list[int]], int]:
        reads.clear()
        found = archive.recent({name: newest[name] for name in names}, within_us)
        return {name: sorted(rows[SOURCE_OFFSET].to_pylist()) for name, rows in found}, reads.total()

    found, size = recent(2 * HOUR_US, *newest)
    assert found == {f"day-{n}": [24 * n + hour for hour in (21, 22, 23)] for n in range(6)}
    assert size == sum(recent(2 * HOUR_US, name)[1] for name in newest)
    assert recent(2 * HOUR_US, "day-2")[0] == {"day-2": [69, 70, 71]}
    assert {path.split("/")[0] for path in reads} == {"date=2024-01-03"}
    assert recent(24 * HOUR_US, "day-2")[0] == {"day-2": list(range(48, 72))}
    assert {path.split("/")[0] for path in reads} == {"date=2024-01-02", "date=2024-01-03"}


def test_positions_survive_checkpoints(offline_url: str) -> None:
    archive = OfflineStore(offline_url).archive(SOURCE)
    archive.append([batch(0, 5, "p0")], NOW_US)
    archive.append([batch(0, 5, "p1")], NOW_US)
    table = archive.table.snapshot()
    assert table is not None
    table.create_checkpoint()
    archive.append([batch(5, 9, "p1")], NOW_US)

    again = OfflineStore(offline_url).archive(SOURCE)
    assert {name: p.next_offset for name, p in again.positions().items()} == {"p0": 5, "p1": 9}
    assert again.append([batch(0, 9, "p1")], NOW_US) == 0


def test_two_writers_of_one_partition_leave_what_one_would(offline_url: str) -> None:
    stores = [OfflineStore(offline_url) for _ in range(2)]

    def write(store: OfflineStore) -> int:
        archive = store.archive(SOURCE)
        return sum(archive.append([batch(n, n + 4)], NOW_US) for n in range(0, 40, 4))

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(write, stores)) == 40
    assert items(stores[0]) == list(range(40))


def test_writers_of_different_partitions_do_not_wait_for_each_other(offline_url: str) -> None:
    def write(partition: str) -> int:
        archive = OfflineStore(offline_url).archive(SOURCE)
        return sum(archive.append([batch(n, n + 4, partition)], NOW_US) for n in range(0, 20, 4))

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(write, ["p0", "p1", "p2"])) == 60
    assert items(OfflineStore(offline_url)) == sorted([*range(20)] * 3)


def test_a_column_that_is_added_later_is_null_before(offline_url: str) -> None:
    OfflineStore(offline_url).archive(SOURCE).append([batch(0, 3)], NOW_US)
    wider = EventSource("shop", schema={**SOURCE.schema, "shop": String}, timestamp="ts", event_id="event_id")
    archive = OfflineStore(offline_url).archive(wider)
    assert archive.scan(["shop"])["shop"].to_pylist() == [None] * 3

    archive.append([decode_json(wider, "p0", 3, [line(3)[:-1] + b', "shop": "s"}'], NOW_US)[0]], NOW_US)
    assert archive.scan(["item", "shop"]).sort_by("item")["shop"].to_pylist() == [None] * 3 + ["s"]
    OfflineStore(offline_url).archive(SOURCE).append([batch(4, 5)], NOW_US)
    assert items(OfflineStore(offline_url)) == [0, 1, 2, 3, 4]


def test_a_folder_is_read_by_arrow_itself(tmp_path: Path) -> None:
    """Nobody holds Python's lock while a file is read; names that stand otherwise in URLs are found."""
    archive = OfflineStore(str(tmp_path / "größte + 1 Ablage")).archive(SOURCE)
    archive.append([batch(0, 50)], NOW_US)
    (group, *_) = archive.table.reading(["item"]).groups(1)
    files = group.fragment.filesystem
    assert (type(files), type(files.base_fs)) == (SubTreeFileSystem, LocalFileSystem)
    assert sorted(archive.scan(["item"])["item"].to_pylist()) == list(range(50))


def test_small_files_are_merged_and_nothing_else_changes(offline_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forebay.offline.lake_table.COMPACT_EVERY", 5)
    archive = OfflineStore(offline_url).archive(SOURCE)
    for n in range(12):
        archive.append([batch(n, n + 1)], NOW_US)
    table = archive.table.snapshot()
    assert table is not None
    assert len(table.file_uris()) == 3
    assert items(OfflineStore(offline_url)) == list(range(12))
    assert OfflineStore(offline_url).archive(SOURCE).next_offset("p0") == 12
    assert archive.append([batch(0, 12)], NOW_US) == 0


def test_plain_readers_can_read_it(tmp_path: Path) -> None:
    OfflineStore(str(tmp_path / "o")).archive(SOURCE).append([batch(0, 30)], NOW_US)
    table = DeltaTable(tmp_path / "o" / "events" / "shop").to_pyarrow_table()
    assert table.num_rows == 30
    assert table.schema.field("ts").type == pa.timestamp("us", "UTC")
    assert table.schema.field("amount").type == pa.decimal128(18, 2)


def _file(folder: Path, name: str, lines: list[bytes]) -> Path:
    path = folder / name
    data = b"".join(text + b"\n" for text in lines)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.ndjson.gz", "a.parquet"])
def test_a_file_is_loaded_once(offline_url: str, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".parquet"):
        pq.write_table(batch(0, 500).table.drop_columns("source_offset"), path)
    else:
        path = _file(tmp_path, name, [line(n) for n in range(500)])
    archive = OfflineStore(offline_url).archive(SOURCE)

    first = load(archive, path)
    second = load(archive, path.rename(tmp_path / f"renamed-{name}"))

    assert (first.rows, first.dead, first.already) == (500, 0, False)
    assert (second.rows, second.dead, second.already) == (0, 0, True)
    assert items(OfflineStore(offline_url)) == list(range(500))
    assert archive.watermark_us() is None
    assert archive.positions() == {}


def test_the_bad_lines_of_a_file_are_dead_letters_once(offline_url: str, tmp_path: Path) -> None:
    lines = [line(0), b"{", line(1), b"x" * 3_000_000, b"", line(2)]
    store = OfflineStore(offline_url)
    loaded = load(store.archive(SOURCE), _file(tmp_path, "a.ndjson", lines))
    load(store.archive(SOURCE), tmp_path / "a.ndjson")

    assert (loaded.rows, loaded.dead) == (3, 3)
    letters = store.dead_letters().scan("shop").sort_by("source_offset")
    assert letters["source_offset"].to_pylist() == [1, 3, 4]
    assert letters["reason"].to_pylist() == ["malformed", "too_large", "malformed"]
    assert letters["size"].to_pylist() == [1, 3_000_000, 0]
    assert letters["raw"].to_pylist()[0] == b"{"
    assert items(store) == [0, 1, 2]


def test_a_load_that_died_before_its_commit_can_be_repeated(
    offline_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its dead letters are there already; they are not there twice afterwards."""
    store = OfflineStore(offline_url)
    path = _file(tmp_path, "a.ndjson", [line(0), b"{", line(1)])
    archive = store.archive(SOURCE)
    with monkeypatch.context() as patch:
        patch.setattr(archive.table, "append_files", lambda files, positions: False)
        load(archive, path)
    assert (items(store), store.dead_letters().scan().num_rows) == ([], 1)

    assert load(archive, path).rows == 2
    assert (items(store), store.dead_letters().scan().num_rows) == ([0, 1], 1)


def test_a_file_larger_than_memory_is_loaded_in_pieces(
    offline_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forebay.offline.data_files.HELD_BYTES_MAX", 10_000)
    monkeypatch.setattr("forebay.offline.loading.LINES_BATCH", 100)
    archive = OfflineStore(offline_url).archive(SOURCE)
    loaded = load(archive, _file(tmp_path, "a.ndjson", [line(n, hours=n % 50) for n in range(1000)]))
    assert loaded.rows == 1000
    assert items(OfflineStore(offline_url)) == list(range(1000))
    start_us = START_US + 7 * 3_600_000_000 + 123_456
    assert archive.scan(["item"], start_us, start_us + 1).num_rows == 20


def test_events_of_a_stream_named_load_are_not_loaded_ones(offline_url: str, tmp_path: Path) -> None:
    """The partition of a Redis Stream `load` is `load:0`; it is read only where a file was loaded, too."""
    archive = OfflineStore(offline_url).archive(SOURCE)
    archive.append([batch(30, 60, "load:0")], NOW_US)
    assert archive.loaded(START_US) == {}
    load(archive, _file(tmp_path, "a.ndjson", [line(n) for n in range(5)]))
    assert archive.loaded(START_US) == {"2024-01-01": START_US + 4 * HOUR_US + 123_456}
    assert [*archive.positions()] == ["load:0"]


def test_a_load_races_with_another_and_with_the_stream(offline_url: str, tmp_path: Path) -> None:
    path = _file(tmp_path, "a.ndjson", [line(n) for n in range(100, 200)])

    def from_file(_: int) -> int:
        return load(OfflineStore(offline_url).archive(SOURCE), path).rows

    def stream(_: int) -> int:
        archive = OfflineStore(offline_url).archive(SOURCE)
        return sum(archive.append([batch(n, n + 5)], NOW_US) for n in range(0, 50, 5))

    with ThreadPoolExecutor(3) as pool:
        done = [pool.submit(from_file, 0), pool.submit(from_file, 1), pool.submit(stream, 2)]
        assert sorted(future.result() for future in done) == [0, 50, 100]
    assert items(OfflineStore(offline_url)) == [*range(50), *range(100, 200)]


def test_a_file_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    archive = OfflineStore(str(tmp_path / "o")).archive(SOURCE)
    pq.write_table(
        pa.table({"event_id": ["a"], "ts": pa.array([1], pa.timestamp("us")), "item": ["x"]}), tmp_path / "b.parquet"
    )
    (tmp_path / "c.parquet").write_bytes(b"not parquet")
    (tmp_path / "d.csv").write_bytes(b"a,b")
    (tmp_path / "e.ndjson.gz").write_bytes(gzip.compress(line(0) * 1000)[:-20])

    with pytest.raises(RequestError, match=r"nowhere.*is not a file"):
        load(archive, tmp_path / "nowhere.parquet")
    with pytest.raises(
        RequestError, match=r"'user' .String. is missing; 'item' is string, expected Int64; .*time zone"
    ):
        load(archive, tmp_path / "b.parquet")
    with pytest.raises(RequestError, match="cannot be read as Parquet"):
        load(archive, tmp_path / "c.parquet")
    with pytest.raises(RequestError, match=r"d\.csv.*unknown kind; expected"):
        load(archive, tmp_path / "d.csv")
    with pytest.raises(RequestError, match="cannot be read to its end"):
        load(archive, tmp_path / "e.ndjson.gz")
    assert archive.scan(["item"]).num_rows == 0


def test_a_store_can_be_checked(offline_url: str) -> None:
    OfflineStore(offline_url).check()


def test_an_unreachable_s3_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    store = OfflineStore("s3://bucket/prefix")
    for call in (
        lambda: store.archive(SOURCE).append([batch(0, 1)], NOW_US),
        lambda: store.archive(SOURCE).scan(["item"]),
        lambda: store.archive(SOURCE).positions(),
        store.check,
    ):
        with pytest.raises(StoreUnavailableError) as caught:
            call()
        message = str(caught.value)
        assert "s3://bucket/prefix" in message
        assert "AWS_*" in message
        assert "very-secret" not in message
        assert "\n" not in message


def test_wrong_credentials_are_one_clear_error(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    with pytest.raises(StoreUnavailableError) as caught:
        OfflineStore(s3_url).archive(SOURCE).append([batch(0, 1)], NOW_US)
    assert "wrong-secret" not in str(caught.value)


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = OfflineStore(Settings(tmp_path, "embedded", str(tmp_path / "file" / "offline")))
    with pytest.raises(StoreUnavailableError):
        store.check()
    with pytest.raises(StoreUnavailableError):
        store.archive(SOURCE).append([batch(0, 1)], NOW_US)
