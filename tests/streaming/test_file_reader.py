"""Folders that get files for months: which are kept open, which are looked at, and what is said of those that rest."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from forebay.errors import ConfigError, StoreError
from forebay.settings import Settings
from streaming import chunk, file_reader
from streaming.file_log import LineFile
from streaming.file_reader import FileReader
from streaming.log import LogStart
from streaming.log_ends import LogEnd, LogEnds
from tests.streaming.test_logs import SOURCE

AWAKE = 4


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is looked through with each poll, a file that is gone is let go of at once, and few are kept open."""
    monkeypatch.setattr(file_reader, "DISCOVERY_INTERVAL_S", -1.0)
    monkeypatch.setattr(file_reader, "GONE_S", -1.0)
    monkeypatch.setattr(file_reader, "AWAKE_MAX", AWAKE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "clicks"
    made.mkdir()
    return made


def reading(path: Path, *, until_end: bool = False, **offsets: int) -> FileReader:
    return FileReader(
        SOURCE, str(path), lambda name: True, lambda name: LogStart(offsets.get(name[:-7], 0)), until_end=until_end
    )


def found(reader: FileReader) -> list[tuple[str, bytes]]:
    """The lines of one poll, each with its file."""
    return [(one.partition, line) for one in reader.poll() for line in one.lines]


def everything(reader: FileReader) -> list[tuple[str, bytes]]:
    lines = list[tuple[str, bytes]]()
    while some := found(reader):
        lines += some
    return lines


def ends(reader: FileReader) -> dict[str, int]:
    return {end.partition: end.next_offset for end in reader.ends()}


def open_in(folder: Path) -> int:
    """How many files of a folder this process has open, deleted ones among them."""
    return sum(where.startswith(f"{folder}/") for where in _descriptors())


def _descriptors() -> Iterator[str]:
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            yield os.readlink(one)


def test_files_that_were_read_and_deleted_are_let_go_of(folder: Path) -> None:
    reader = reading(folder)
    for n in range(50):
        path = folder / f"{n:02}.ndjson"
        path.write_bytes(b"%d\n" % n)
        assert found(reader) == [(path.name, b"%d" % n)]
        path.unlink()
    assert found(reader) == []
    assert open_in(folder) <= 1
    assert ends(reader) == {f"{n:02}.ndjson": 1 for n in range(50)}, "what is gone is quiet, and holds nothing back"


def test_a_deleted_file_is_read_to_its_end_before_it_is_let_go_of(folder: Path) -> None:
    path = folder / "a.ndjson"
    path.write_bytes(b"1\n")
    reader, late = reading(folder), path.open("ab", buffering=0)
    assert len(everything(reader)) == 1
    late.write(b"2\n")
    path.unlink()
    assert found(reader) == [("a.ndjson", b"2")]
    late.close()
    reader.close()


def test_no_more_than_a_few_files_stay_open_and_every_line_is_read_once(folder: Path) -> None:
    """Files are written to, deleted, put back and begun at random; the reader polls now and then."""
    for seed in range(30):
        chance, home = random.Random(seed), folder / str(seed)
        home.mkdir()
        for n in range(chance.choice([0, 3, 12])):
            (home / f"{n}.ndjson").write_bytes(b"%d old\n" % n)
        reader, read, written = reading(home), list[tuple[str, bytes]](), dict[str, bytes]()
        away = dict[str, bytes]()
        for path in home.iterdir():
            written[path.name] = path.read_bytes()
        for step in range(60):
            name = f"{chance.randrange(20)}.ndjson"
            does = chance.random()
            if does < 0.5 and name not in away:
                line = b"step %d\n" % step
                with (home / name).open("ab") as more:
                    more.write(line)
                written[name] = written.get(name, b"") + line
            elif does < 0.6 and name in written and name not in away:
                read += everything(reader)
                away[name] = (home / name).read_bytes()
                (home / name).unlink()
            elif does < 0.7 and away:
                back = chance.choice(sorted(away))
                (home / back).write_bytes(away.pop(back))
            else:
                read += found(reader)
                assert open_in(home) <= AWAKE + 1, f"seed {seed}"
        read += everything(reader)
        for name, whole in written.items():
            assert [line for at, line in read if at == name] == whole.splitlines(), f"seed {seed}"
        found(reader)
        assert ends(reader) == {name: whole.count(b"\n") for name, whole in written.items()}, f"seed {seed}"
        reader.close()
        assert not open_in(home)


def test_no_more_than_a_few_stay_open_of_files_that_are_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunk, "EVENTS_MAX", 25)
    monkeypatch.setattr("streaming.file_log.EVENTS_MAX", 10)
    for n in range(10 * AWAKE):
        (folder / f"{n}.ndjson").write_bytes(b"".join(b"%d\n" % line for line in range(100)))
    reader, read = reading(folder), dict[str, list[bytes]]()
    assert open_in(folder) <= AWAKE
    while chunks := reader.poll():
        assert open_in(folder) <= AWAKE
        for one in chunks:
            read.setdefault(one.partition, []).extend(one.lines)
    assert read == {f"{n}.ndjson": [b"%d" % line for line in range(100)] for n in range(10 * AWAKE)}


def test_a_file_whose_name_is_no_text_is_refused(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/bad\xff.ndjson")).write_bytes(b"1\n")
    with pytest.raises(ConfigError, match=r"the name of b'.*/bad\\xff.ndjson' is not UTF-8.*rename the file"):
        reading(folder)


def test_a_file_at_rest_has_no_end_once_it_was_written_to(folder: Path) -> None:
    """A heartbeat says of a partition that it held nothing when its reader looked: one that rests is looked at then."""
    for n in range(2 * AWAKE):
        (folder / f"{n}.ndjson").write_bytes(b"1\n")
    reader = reading(folder)
    everything(reader)
    assert len(ends(reader)) == 2 * AWAKE
    for n in range(2 * AWAKE):
        with (folder / f"{n}.ndjson").open("ab") as more:
            more.write(b"2\n")
    assert set(ends(reader)) == {file.name for file in reader._awake}, "which were polled before"
    assert len(everything(reader)) == len(everything(reading(folder))) / 2
    assert ends(reader) == {f"{n}.ndjson": 2 for n in range(2 * AWAKE)}


def test_files_at_rest_are_not_polled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(100):
        (folder / f"{n}.ndjson").write_bytes(b"1\n")
    reader = reading(folder)
    everything(reader)
    polled: list[str] = []
    poll = LineFile.poll
    monkeypatch.setattr(LineFile, "poll", lambda file: polled.append(file.name) or poll(file))
    reader.poll()
    assert len(polled) == AWAKE


def test_what_was_read_before_is_at_rest_from_the_beginning(folder: Path) -> None:
    for n in range(100):
        (folder / f"{n}.ndjson").write_bytes(b"1\n2\n" if n == 77 else b"1\n")
    reader = reading(folder, **{str(n): 1 for n in range(100)})
    assert open_in(folder) <= AWAKE + 1
    assert everything(reader) == [("77.ndjson", b"2")]


def test_a_file_that_another_took_the_place_of_while_it_rested_is_refused(folder: Path) -> None:
    for n in range(2 * AWAKE):
        (folder / f"{n}.ndjson").write_bytes(b"%d\n" % n)
    reader = reading(folder)
    everything(reader)
    at_rest = next(name for name in ends(reader) if name not in {file.name for file in reader._awake})
    (folder / at_rest).write_bytes(b"other\n")
    with pytest.raises(StoreError, match=r"no longer has the 1 lines that were read from it before"):
        everything(reader)


def test_until_the_end_a_file_at_rest_that_grows_is_read_too(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(2 * AWAKE):
        (folder / f"{n}.ndjson").write_bytes(b"1\n")
    reader = reading(folder, until_end=True)
    assert len(everything(reader)) == 2 * AWAKE
    monkeypatch.setattr(file_reader, "DISCOVERY_INTERVAL_S", 60.0)
    (folder / "0.ndjson").write_bytes(b"1\n2\n")
    assert everything(reader) == [("0.ndjson", b"2")]


def test_parquet_files_are_closed_when_they_are_read_and_read_on_when_they_were_let_go_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.file_log.EVENTS_MAX", 10)
    rows = pa.table({"n": range(35)})
    for n in range(2 * AWAKE):
        pq.write_table(rows, folder / f"{n}.parquet", row_group_size=20)
    reader, read = reading(folder), dict[str, list[int]]()
    while chunks := reader.poll():
        assert open_in(folder) <= AWAKE
        for one in chunks:
            assert one.table is not None
            read.setdefault(one.partition, []).extend(one.table["n"].to_pylist())
    assert read == {f"{n}.parquet": list(range(35)) for n in range(2 * AWAKE)}
    assert not open_in(folder)
    assert ends(reader) == {f"{n}.parquet": 35 for n in range(2 * AWAKE)}


def test_a_parquet_file_that_is_deleted_before_it_was_whole_is_as_if_it_had_not_been(folder: Path) -> None:
    (folder / "a.parquet").write_bytes(b"PAR1")
    reader = reading(folder)
    assert (found(reader), list(reader.unfinished)) == ([], ["a.parquet"])
    (folder / "a.parquet").unlink()
    assert (found(reader), list(reader.unfinished), ends(reader)) == ([], [], {})
    pq.write_table(pa.table({"n": [1]}), folder / "a.parquet")
    assert [len(one) for one in reader.poll()] == [1]


def test_a_file_that_goes_while_a_folder_is_looked_through_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a.ndjson").write_bytes(b"1\n")
    (folder / "b.ndjson").write_bytes(b"2\n")
    files_of = file_reader.files_of

    def and_one_goes(*asked: object) -> list[Path]:
        paths = files_of(*asked)  # type: ignore[arg-type]  # as it is called
        (folder / "b.ndjson").unlink(missing_ok=True)
        return paths

    monkeypatch.setattr(file_reader, "files_of", and_one_goes)
    reader = reading(folder)
    assert everything(reader) == [("a.ndjson", b"1")]


def test_the_one_file_of_a_stream_may_be_deleted_once_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "clicks.ndjson"
    with pytest.raises(ConfigError, match="there is no file or folder"):
        reading(path)
    path.write_bytes(b"1\n")
    reader = reading(path)
    assert len(everything(reader)) == 1
    path.unlink()
    assert (found(reader), ends(reader), open_in(tmp_path)) == ([], {path.name: 1}, 0)
    path.write_bytes(b"1\n2\n")
    assert everything(reader) == [(path.name, b"2")]
    reader.close()


def test_a_folder_that_goes_while_it_is_read_is_an_error(folder: Path) -> None:
    reader = reading(folder)
    folder.rmdir()
    with pytest.raises(ConfigError, match="there is no file or folder"):
        reader.poll()


def test_a_file_that_goes_while_ends_are_looked_for_has_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = folder / "a.ndjson"
    kept.write_bytes(b"1\n2\n")
    ends = LogEnds(Settings(folder.parent, "redis://nobody", str(folder.parent)), lambda: redis.Redis())
    monkeypatch.setattr("streaming.log_ends.files_of", lambda *asked: [kept, folder / "gone.ndjson"])
    assert ends(SOURCE, {}) == {"a.ndjson": LogEnd(2, 2)}
    with kept.open("ab") as more:
        more.write(b"3\n")
    assert ends(SOURCE, {}) == {"a.ndjson": LogEnd(3, 3)}
