"""Files are read on where the archive's bookmark is, and where it cannot be trusted lines are counted, as ever."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import redis

from forebay.offline.archive import BOOKMARK, PartitionPosition
from forebay.settings import Settings
from streaming import chunk as chunks
from streaming import file_log
from streaming.bookmark import CHECK_BITS, REMEMBERED, bookmark
from streaming.file_log import LineFile
from streaming.log import LogStart
from streaming.log_ends import LogEnd, LogEnds
from tests.streaming.test_logs import SOURCE, lines_of
from tests.streaming.world import World, check, lines, orders

NAME = "a.ndjson"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lines were counted at each beginning that had no bookmark."""
    counted: list[int] = []
    skip = file_log._skip_lines

    def skipped(file: Any, path: Path, count: int) -> bool:
        counted.append(count)
        return skip(file, path, count)

    monkeypatch.setattr(file_log, "_skip_lines", skipped)
    return counted


def opened(path: Path, offset: int = 0, mark: int | None = None, *, until_end: bool = False) -> LineFile:
    return LineFile(SOURCE, path, LogStart(offset, bookmark=mark), until_end=until_end)


@pytest.mark.parametrize("seed", range(20))
def test_a_bookmark_is_where_counting_leads(
    tmp_path: Path, counting: list[int], monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Lines of any length, blocks that end anywhere, chunks of a few lines; the last line may be unfinished."""
    rng = random.Random(seed)
    monkeypatch.setattr(file_log, "EVENTS_MAX", rng.randint(1, 9))
    monkeypatch.setattr(file_log, "BYTES_MAX", rng.choice([1, 7, 64, 300, 5000]))
    some = [bytes(rng.choices(b'{"a}\r ', k=rng.choice([0, 1, 3, 30, 100, 400]))) for _ in range(rng.randint(1, 60))]
    path = tmp_path / NAME
    path.write_bytes(b"\n".join(some) + rng.choice([b"", b"\n", b"\n{}"]))
    places = [0, *(n + 1 for n, byte in enumerate(path.read_bytes()) if byte == ord("\n"))]
    file = opened(path, until_end=rng.random() < 0.5)
    while (chunk := file.poll()) is not None:
        counts = chunk.next_offset < len(places)  # a last line without its newline has no place behind it
        assert (chunk.bookmark is not None) == counts
        if chunk.bookmark is not None:
            place = places[chunk.next_offset]
            before = path.read_bytes()[:place][-REMEMBERED:]
            assert chunk.bookmark == bookmark(chunk.next_offset, place, before)
            del counting[:]
            assert lines_of(opened(path, chunk.next_offset, chunk.bookmark)) == lines_of(
                opened(path, chunk.next_offset)
            )
            assert counting == [chunk.next_offset], "the second alone"


def marked(path: Path, count: int) -> tuple[int, int]:
    """A file of some lines, read to its end: the next offset, and its bookmark."""
    path.write_bytes(b"".join(b'{"n":%d}\n' % n for n in range(count)))
    file = opened(path)
    chunk = next(iter(file.poll, None))
    file.release()
    assert chunk.bookmark is not None
    return chunk.next_offset, chunk.bookmark


def test_a_bookmark_of_another_offset_or_another_file_is_not_trusted(tmp_path: Path, counting: list[int]) -> None:
    path = tmp_path / NAME
    offset, mark = marked(path, 100)
    del counting[:]
    with path.open("ab") as more:
        more.write(b"{}\n{}\n")
    assert lines_of(opened(path, offset, mark)) == [b"{}", b"{}"]
    assert counting == []
    assert lines_of(opened(path, offset + 1, mark)) == [b"{}"]
    assert lines_of(opened(path, offset, mark + (1 << CHECK_BITS))) == [b"{}", b"{}"]
    assert lines_of(opened(path, offset, (1 << 62) - 1)) == [b"{}", b"{}"]
    path.write_bytes(b"".join(b'{"m":%d}\n' % n for n in range(102)))
    assert len(lines_of(opened(path, offset, mark))) == 2
    assert counting == [offset + 1, offset, offset, offset]
    path.write_bytes(b"{}\n" * (offset - 1))
    with pytest.raises(file_log.StoreError, match="holds 99 lines, but 100 were read"):
        opened(path, offset, mark)


def test_beyond_a_terabyte_there_is_none() -> None:
    assert bookmark(1, 2**40 - 1, b"\n") is not None
    assert bookmark(1, 2**40, b"\n") is None


def test_how_much_waits_is_counted_from_the_bookmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "clicks"
    folder.mkdir()
    offset, mark = marked(folder / NAME, 1000)
    with (folder / NAME).open("ab") as more:
        more.write(b"{}\n{}\n")
    archived = {NAME: PartitionPosition(offset, bookmark=mark)}
    settings = Settings(tmp_path, "redis://nobody", str(tmp_path))
    monkeypatch.setattr("streaming.log_ends.files_of", lambda *asked: [folder / NAME])
    for known in (archived, {}, {NAME: PartitionPosition(offset - 1, bookmark=mark)}):
        assert LogEnds(settings, redis.Redis)(SOURCE, {NAME: 999}, known) == {NAME: LogEnd(1002, 3)}
    changed = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(changed[: len(changed) // 2].replace(b"n", b"\n") + changed[len(changed) // 2 :])
    assert LogEnds(settings, redis.Redis)(SOURCE, {NAME: 999}, archived) == {NAME: LogEnd(1002, 3)}, "from the bookmark"


def test_a_flow_goes_on_without_counting_what_is_archived(
    home: Path, online_url: str, namespace: str, counting: list[int]
) -> None:
    world = World.make(home, online_url, namespace)
    assert chunks.EVENTS_MAX > 700
    for turn in range(3):
        for n, name in enumerate((NAME, "b.ndjson")):
            world.append(name, lines(10 * turn + n, 700, first=700 * turn))
        world.run("--workers", str(1 + turn % 2))
    assert counting == [0, 0], "the first flow's"
    position = world.offline.archive(orders).positions()[NAME]
    assert position.bookmark is not None
    assert position.bookmark >> CHECK_BITS == (home / "orders" / NAME).stat().st_size
    assert not any(name.endswith(BOOKMARK) for name in world.offline.archive(orders).positions())
    check(world)
