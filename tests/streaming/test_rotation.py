"""Files that are truncated, replaced or rotated while they are followed: refused where events would be lost.

read       ├── lines ──┤
the file   ├── lines ──┼── more          it grew, in place or as a copy: read on
           ├── others ─┼──────           it is another one, whether shorter or longer: refused
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

from forebay.errors import StoreError
from forebay.instants import MINUTE_US, SECOND_US
from streaming import file_reader
from streaming.file_log import BYTES_MAX, REMEMBERED, LineFile
from streaming.file_reader import FileReader
from streaming.log import LogStart
from tests.streaming.test_logs import SOURCE, follow, lines_of
from tests.streaming.test_watermarks import NOON_US, Driven, driven

__all__ = ["driven"]


def numbered(first: int, end: int, what: str = "n") -> bytes:
    return b"".join(b'{"%s":%d}\n' % (what.encode(), n) for n in range(first, end))


def polled(file: LineFile) -> list[bytes]:
    """What is read until it was seen, at its end, that the file is still the one that was begun."""
    read = lines_of(file)
    file.check()
    return read + lines_of(file)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "a.ndjson"
    made.write_bytes(numbered(0, 100))
    return made


def test_a_file_that_is_truncated_is_refused_as_a_restart_would(path: Path) -> None:
    file = follow(path)
    assert len(lines_of(file)) == 100
    path.write_bytes(numbered(0, 50, "m"))
    with pytest.raises(StoreError, match=r"holds 50 lines, but 100 were read from it before.*begin files of new names"):
        file.check()
    with pytest.raises(StoreError, match="holds 50 lines, but 100"):
        follow(path, 100)


def test_a_file_that_was_truncated_and_has_grown_beyond_what_was_read_is_refused(path: Path) -> None:
    file = follow(path)
    lines_of(file)
    path.write_bytes(numbered(0, 110, "m"))
    with pytest.raises(StoreError, match="no longer has the 100 lines that were read from it before at its beginning"):
        file.poll()


def test_a_file_that_differs_only_before_the_line_that_was_read_last_is_another_one(path: Path) -> None:
    path.write_bytes(b"one\n")
    file = follow(path)
    assert lines_of(file) == [b"one"]
    with path.open("ab") as more:
        more.write(b"{}\n")
    assert lines_of(file) == [b"{}"]
    path.write_bytes(b"two\n{}\n{}\n")
    with pytest.raises(StoreError, match="no longer has the 2 lines"):
        file.poll()


@pytest.mark.parametrize("lines", [3, 100, 200])
def test_a_rotated_file_is_read_to_its_end_and_its_successor_is_refused(
    path: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_reader, "DISCOVERY_INTERVAL_S", -1.0)
    reader = FileReader(SOURCE, str(path.parent), lambda name: True, lambda name: LogStart(), until_end=False)
    assert sum(map(len, reader.poll())) == 100
    rotated = path.rename(path.parent / "a.ndjson.1")
    assert (reader.poll(), [end.next_offset for end in reader.ends()]) == ([], [100])
    path.write_bytes(numbered(0, lines, "m"))
    with rotated.open("ab") as late:
        late.write(numbered(100, 103))
    assert [list(chunk.lines) for chunk in reader.poll()] == [numbered(100, 103).splitlines()]
    with pytest.raises(StoreError, match=r"103 (were|lines that were) read from it before"):
        reader.poll()
    reader.close()


def test_a_copy_that_has_grown_is_read_on_where_it_was(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As programs do that write a file anew beside it and move it over (`rsync`)."""
    file, copy = follow(path), path.with_suffix(".new")
    assert len(lines_of(file)) == 100
    monkeypatch.setattr("streaming.file_log._skip_lines", None)
    for first, end in ((100, 100), (100, 150), (150, 151)):
        copy.write_bytes(numbered(0, end) + b'{"n"' * (end == 151))
        copy.rename(path)
        assert polled(file) == numbered(first, end).splitlines()
    with path.open("ab") as more:
        more.write(b":151}\n")
    assert polled(file) == [b'{"n":151}']


def test_half_a_line_may_be_taken_back_and_written_again(path: Path) -> None:
    file = follow(path)
    with path.open("ab") as more:
        more.write(b'{"n":1')
    assert len(lines_of(file)) == 100
    os.truncate(path, len(numbered(0, 100)))
    assert polled(file) == []
    with path.open("ab") as more:
        more.write(b'{"n":2')
    assert lines_of(file) == []
    os.truncate(path, len(numbered(0, 100)))
    with path.open("ab") as more:
        more.write(numbered(100, 110))
    assert polled(file) == numbered(100, 110).splitlines()
    os.truncate(path, len(numbered(0, 110)) - 1)
    with pytest.raises(StoreError, match="no longer has the 110 lines"):
        file.check()


@pytest.mark.parametrize("blanks", [b"", b"  "])
def test_a_last_line_that_counted_without_its_newline_may_still_be_completed(path: Path, blanks: bytes) -> None:
    path.write_bytes(numbered(0, 3)[:-1] + blanks)
    file = follow(path, until_end=True)
    assert len(lines_of(file)) == 3
    path.with_suffix(".new").write_bytes(numbered(0, 4))
    path.with_suffix(".new").rename(path)
    assert polled(file) == [b'{"n":3}']
    assert polled(follow(path, 3)) == [b'{"n":3}']


def test_a_file_that_is_gone_stays_as_it_was(path: Path) -> None:
    file = follow(path)
    lines_of(file)
    path.unlink()
    assert polled(file) == []
    assert file.end().next_offset == 100


def test_random_changes_are_read_right_or_refused(tmp_path: Path) -> None:
    """
    Nothing that a file got is passed over, however it grew and whether or not it stays open, and nothing of another
    file is taken for its own.
    """
    refused = copied = 0
    for seed in range(200):
        chance, path = random.Random(seed), tmp_path / f"{seed}.ndjson"
        path.touch()
        file, read = follow(path), list[bytes]()
        for n in range(chance.randrange(2, 20)):
            step = chance.random()
            if chance.random() < 0.2:
                file.release()
            if step < 0.5:
                line = b"%d %s" % (n, b"x" * chance.choice([0, 9, 90]))
                with path.open("ab") as more:
                    more.write(line + b"\n" if chance.random() < 0.7 else line)
            elif step < 0.7:
                path.with_suffix(".new").write_bytes(path.read_bytes())
                path.with_suffix(".new").rename(path)
                copied += 1
            else:
                read += polled(file)
                whole = path.read_bytes().split(b"\n")[:-1]
                assert read == whole, f"seed {seed}"
        read += polled(file)
        if read:
            if chance.random() < 0.5:
                path.unlink()
            path.write_bytes(b"".join(b"other %d\n" % n for n in range(chance.randrange(30))))
            with pytest.raises(StoreError, match="read from it before"):
                polled(file)
            refused += 1
        file.release()
    assert refused > 150
    assert copied > 200


def test_what_is_looked_at_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    pread, fstat = os.pread, os.fstat
    monkeypatch.setattr(os, "pread", lambda *some: looked.append("pread") or pread(*some))
    monkeypatch.setattr(os, "fstat", lambda *some: looked.append("fstat") or fstat(*some))
    file = follow(path)
    lines_of(file)
    looked.clear()
    for _ in range(9):
        assert file.poll() is None
    assert looked == [], "where there is nothing"
    with path.open("ab") as more:
        more.write(numbered(100, 103))
    looked.clear()
    lines_of(file)
    assert looked == ["pread"], "64 bytes before what is new"
    file.check()
    assert looked == ["pread", "fstat", "pread"]
    assert REMEMBERED < BYTES_MAX


def test_a_flow_whose_file_was_rotated_stops(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_reader, "DISCOVERY_INTERVAL_S", -1.0)
    driven.write("a", "ann", *(NOON_US - n * SECOND_US for n in range(20, 0, -1)))
    driven.start()
    driven.step()
    (driven.folder / "a.ndjson").rename(driven.settings.home / "a.1")
    driven.now_us += MINUTE_US
    driven.write("a", "bob", driven.now_us)
    with pytest.raises(StopIteration):
        driven.step(3)
    error: Any = driven.parts.stop.error
    assert "holds 1 lines, but 20 were read from it before" in str(error)
