"""Logs as the flow reads them: offsets, resuming, half-written ends, and logs that were changed behind its back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from msgspec.structs import replace as but

from forebay import EventSource, FileStream, Int64, RedisStream, String, Timestamp
from forebay.errors import ConfigError, StoreError
from forebay.settings import Settings
from streaming import chunk as chunks
from streaming.chunk import BYTES_MAX, EVENTS_MAX
from streaming.entries import id_before, offset_of
from streaming.file_log import LineFile, files_of, open_file
from streaming.file_reader import FileReader
from streaming.log import LogStart
from streaming.log_ends import LogEnds
from streaming.redis_log import StreamReader
from streaming.retry import Patience
from tests.infra.valkey import Valkey

SOURCE = EventSource(
    "clicks",
    schema={"event_id": String, "user": String, "n": Int64, "ts": Timestamp},
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("clicks/"),
)


def lines_of(file: LineFile) -> list[bytes]:
    """Everything that can be read now; the chunks join without a gap."""
    lines: list[bytes] = []
    at = None
    while (chunk := file.poll()) is not None:
        assert at is None or chunk.first_offset == at
        assert chunk.next_offset == chunk.first_offset + len(chunk.lines)
        at = chunk.next_offset
        lines += chunk.lines
    return lines


def follow(path: Path, offset: int = 0, *, until_end: bool = False) -> LineFile:
    file = open_file(SOURCE, path, LogStart(offset), until_end=until_end)
    assert isinstance(file, LineFile)
    return file


def test_lines_are_offsets_and_a_reader_resumes_at_any_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    count = 2 * EVENTS_MAX + 7
    path.write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(count)))
    for offset in (0, 1, EVENTS_MAX, count - 1, count):
        assert lines_of(follow(path, offset)) == [b'{"n":%d}' % n for n in range(offset, count)]


def test_a_growing_file_is_followed_and_half_a_line_waits_for_its_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n{"n"')
    file = follow(path)
    assert lines_of(file) == [b'{"n":1}']
    assert file.unfinished
    with path.open("ab") as more:
        more.write(b":2}")
    assert lines_of(file) == []
    with path.open("ab") as more:
        more.write(b'\n{"n":3}\n')
    assert lines_of(file) == [b'{"n":2}', b'{"n":3}']
    assert not file.unfinished


def test_at_the_end_a_whole_last_line_counts_without_its_newline_and_half_a_line_does_not(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n{"n":2}')
    whole = follow(path, until_end=True)
    assert lines_of(whole) == [b'{"n":1}', b'{"n":2}']
    assert not whole.unfinished
    half = tmp_path / "b.ndjson"
    half.write_bytes(b'{"n":1}\n{"n":2')
    file = follow(half, until_end=True)
    assert lines_of(file) == [b'{"n":1}']
    assert file.unfinished


@pytest.mark.parametrize("resumed", [False, True])
def test_what_completes_a_line_that_counted_already_is_not_another_line(tmp_path: Path, resumed: bool) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n":1}\n{"n":2}')
    file = follow(path, until_end=True)
    assert len(lines_of(file)) == 2
    if resumed:
        file = follow(path, 2)
    with path.open("ab") as more:
        more.write(b"  ")
    assert lines_of(file) == []
    with path.open("ab") as more:
        more.write(b'\n{"n":3}\n')
    assert lines_of(file) == [b'{"n":3}']


def test_a_last_line_that_ends_where_a_block_does_is_resumed_behind_it(tmp_path: Path) -> None:
    path, size = tmp_path / "a.ndjson", 2 * BYTES_MAX
    last = b'{"n":"' + b"x" * 40 + b'"}'
    path.write_bytes((b"{}\n" * size)[: size - len(last) - 1] + b"\n" + last)
    assert path.stat().st_size == size
    count = len(lines_of(follow(path, until_end=True)))
    assert lines_of(follow(path, count)) == []
    with path.open("ab") as more:
        more.write(b"\n{}\n")
    assert lines_of(follow(path, count)) == [b"{}"]


def test_a_file_that_was_replaced_by_a_shorter_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.ndjson"
    path.write_bytes(b"{}\n{}\n")
    with pytest.raises(
        StoreError, match=r"holds 2 lines, but 3 were read from it before\. Files of a stream only ever"
    ):
        follow(path, 3)


def test_rows_of_a_parquet_file_are_offsets_over_its_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": np.arange(1000)}), path, row_group_size=300)
    for offset in (0, 299, 300, 650, 1000):
        file = open_file(SOURCE, path, LogStart(offset), until_end=True)
        read: list[int] = []
        while (chunk := file.poll()) is not None:
            assert chunk.table is not None
            assert chunk.first_offset == offset + len(read)
            read += chunk.table["n"].to_pylist()
        assert read == list(range(offset, 1000))
    with pytest.raises(StoreError, match="holds 1000 rows, but 1001"):
        open_file(SOURCE, path, LogStart(1001), until_end=True).poll()


def test_a_parquet_file_without_its_footer_is_being_written(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.parquet", tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": [1, 2]}), whole)
    path.write_bytes(whole.read_bytes()[:-10])
    file = open_file(SOURCE, path, LogStart(), until_end=False)
    assert file.poll() is None
    assert file.unfinished
    path.write_bytes(whole.read_bytes())
    chunk = file.poll()
    assert chunk is not None
    assert len(chunk) == 2


def test_a_parquet_file_whose_rows_cannot_be_read_is_refused_by_its_name(tmp_path: Path) -> None:
    """
    row groups   0 … 299   300 … 599 (damaged)   600 … 899
    """
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": np.arange(900)}), path, row_group_size=300, use_dictionary=False)
    page = pq.read_metadata(path).row_group(1).column(0).data_page_offset
    whole = path.read_bytes()
    path.write_bytes(whole[:page] + b"\xff" * 64 + whole[page + 64 :])
    file = open_file(SOURCE, path, LogStart(), until_end=True)
    message = r"a\.parquet was written to its end, and its rows from 0 on cannot be read .*Put the file .* move it away"
    with pytest.raises(StoreError, match=message):
        file.poll()
    path.write_bytes(whole)
    chunk = open_file(SOURCE, path, LogStart(), until_end=True).poll()
    assert chunk is not None
    assert len(chunk) == 900


def test_a_parquet_file_whose_footer_cannot_be_read_is_refused_by_its_name(home: Path) -> None:
    path = home / "a.parquet"
    path.write_bytes(b"PAR1" + b"\xff" * 40 + (30).to_bytes(4, "little") + b"PAR1")
    refused = pytest.raises(
        StoreError, match=r"a\.parquet was written to its end, and its footer cannot be read .*move"
    )
    with refused:
        open_file(SOURCE, path, LogStart(), until_end=True).poll()
    ends = LogEnds(Settings(home, "redis://nobody", str(home)), redis.Redis)
    with refused:
        ends(but(SOURCE, stream=FileStream(str(home))), {})


def test_a_folder_holds_one_partition_a_file_and_other_files_are_nobody_s(tmp_path: Path) -> None:
    for name in ("b.ndjson", "a.jsonl", "c.parquet", "README.md", ".a.ndjson.swp"):
        (tmp_path / name).touch()
    assert [file.name for file in files_of(SOURCE, str(tmp_path))] == ["a.jsonl", "b.ndjson", "c.parquet"]
    with pytest.raises(ConfigError, match=r"there is no file or folder .*; create it"):
        files_of(SOURCE, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="neither NDJSON"):
        files_of(SOURCE, str(tmp_path / "README.md"))


def test_an_entry_s_id_and_its_offset_are_one_thing() -> None:
    ids = [b"0-1", b"1-0", b"1-1", b"1700000000000-0", b"1700000000000-1048575", b"1700000000001-0"]
    offsets = [offset_of(one) for one in ids]
    assert offsets == sorted(set(offsets))
    assert [id_before(offset + 1).encode() for offset in offsets] == ids
    with pytest.raises(StoreError, match="has no offset of 64 bits"):
        offset_of(b"1-1048576")


def test_a_key_that_is_no_stream_is_named(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    client.rpush(f"{namespace}:1", b"{}")
    with pytest.raises(ConfigError, match=rf"'{namespace}:1', partition '{namespace}:1' of 'clicks', is no stream"):
        streams(client, namespace, p0=0, p1=0)


def streams(client: redis.Redis, key: str, **offsets: int) -> StreamReader:
    source = EventSource(
        "clicks", schema=SOURCE.schema, timestamp="ts", event_id="event_id", stream=RedisStream(key, 2)
    )
    return StreamReader(
        source, client, {f"{key}:{i[1:]}": LogStart(offset) for i, offset in offsets.items()}, Patience()
    )


def test_streams_are_read_together_and_resumed_by_offset(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    for n in range(5):
        client.xadd(f"{namespace}:{n % 2}", {"event": b"%d" % n}, id=f"{n + 1}-0")
    first = streams(client, namespace, p0=0, p1=0).poll()
    assert {chunk.partition: list(chunk.lines) for chunk in first} == {
        f"{namespace}:0": [b"0", b"2", b"4"],
        f"{namespace}:1": [b"1", b"3"],
    }
    assert first[0].offsets is not None
    assert first[0].offsets.tolist() == [offset_of(b"1-0"), offset_of(b"3-0"), offset_of(b"5-0")]
    reader = streams(client, namespace, p0=offset_of(b"3-0"), p1=first[1].next_offset)
    chunk = reader.poll()[0]
    assert (list(chunk.lines), chunk.first_offset, chunk.next_offset) == (
        [b"2", b"4"],
        offset_of(b"3-0"),
        offset_of(b"5-0") + 1,
    )
    assert reader.poll() == []
    client.xadd(f"{namespace}:1", {"event": b"6", "other": b"x"}, id="9-9")
    client.xadd(f"{namespace}:0", {"other": b"x"}, id="9-9")
    assert sorted(line for chunk in reader.poll() for line in chunk.lines) == [b"", b"6"]


def test_a_stream_that_was_trimmed_beyond_what_was_applied_is_refused(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    for n in range(1, 6):
        client.xadd(f"{namespace}:0", {"event": b"{}"}, id=f"{n}-0")
    client.xtrim(f"{namespace}:0", minid="4-0", approximate=False)
    assert len(streams(client, namespace, p0=offset_of(b"4-0") + 1).poll()[0]) == 1
    with pytest.raises(StoreError, match="no longer holds entry 2-0, the last that is archived"):
        streams(client, namespace, p0=offset_of(b"2-0") + 1)
    client.xtrim(f"{namespace}:0", maxlen=0, approximate=False)
    assert streams(client, namespace, p0=offset_of(b"5-0") + 1).poll() == []
    with pytest.raises(StoreError, match="no longer holds entry 4-0"):
        streams(client, namespace, p0=offset_of(b"4-0") + 1)
    with pytest.raises(StoreError, match="no longer holds entry 4-0"):
        streams(client, namespace, p1=offset_of(b"4-0") + 1)


def test_a_poll_takes_a_few_large_chunks_or_many_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    files      100 of one line        three lines more in each, where a chunk holds 25
    poll       64, then 36            9 (27 lines), 9, …
    """
    for n in range(100):
        (tmp_path / f"{n}.ndjson").write_bytes(b"{}\n")
    reader = FileReader(SOURCE, str(tmp_path), lambda name: True, lambda name: LogStart(), until_end=True)
    assert [len(reader.poll()) for _ in range(3)] == [64, 36, 0]
    monkeypatch.setattr(chunks, "EVENTS_MAX", 25)
    for n in range(100):
        (tmp_path / f"{n}.ndjson").write_bytes(b"{}\n" * 4)
    polls = [reader.poll() for _ in range(12)]
    assert [len(found) for found in polls] == [9] * 11 + [1]
    assert len({one.partition for found in polls for one in found}) == 100, "in turn"
    reader.close()
