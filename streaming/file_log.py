"""Files as a log: each file is one partition, named by its file name, and its lines (rows) are the offsets.

Lives here: following NDJSON (`.ndjson`, `.jsonl`) and Parquet files that only ever grow. Rules:

- A line counts when its newline is there. At the end of a file that is read `until_end`, a last line without one
  counts if it is a whole JSON object: nothing can be appended to that which would make it another object. Any other
  unfinished line waits for the rest of itself; it is reported, never guessed.
- A Parquet file counts when its footer is there; until then it is being written, and it is reported as unfinished.
  Rows that cannot be read are no events and no dead letters: what they held may be read from a better copy.
- A file that holds fewer lines than were read from it before was replaced: an error, because its offsets mean other
  events now. One that is followed has to go on as it began, too: what comes next is preceded by the bytes that were
  read last, and once a second it is seen that the name is still that file's. Where it is not, it is opened anew, as a
  restart would: a copy that has grown is read on (docs/adr/0257).
- A file need not stay open: one that is let go of is opened anew at its place, where it is seen to be the same in that
  way. Which ones stay open is for `file_reader.py` to say (docs/adr/0268).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from forebay.errors import ConfigError, StoreError
from forebay.language.source import EventSource
from streaming.bookmark import REMEMBERED, bookmark, bytes_before, place_of
from streaming.chunk import BYTES_MAX, EVENTS_MAX, Chunk
from streaming.heartbeat import End
from streaming.log import LogStart

LINES = (".ndjson", ".jsonl")
PARQUET = (".parquet",)
LINE_BYTES_MAX = 64 << 20
"""A line is held whole until its newline; one longer than this has lost its newlines and stops the flow."""

_Sign = tuple[int, int, int, int]

GROW = (
    "Files of a stream only ever grow: put the file back as it was, and new events into a new file. A log that is "
    "rotated has to begin files of new names: a file may go once it is archived, its name may not come back"
)


def files_of(source: EventSource, path: str) -> list[Path]:
    """The files of a source's stream, in name order: the file itself, or those of the folder that can be read."""
    where = Path(path)
    if where.is_dir():
        files = sorted(file for file in where.iterdir() if file.suffix in LINES + PARQUET and file.is_file())
        _check_names(source, files)
        return files
    if where.is_file():
        if where.suffix not in LINES + PARQUET:
            raise ConfigError(
                f"Stream of {source.name!r}: {where} is neither NDJSON (.ndjson, .jsonl) nor Parquet (.parquet)"
            )
        return [where]
    raise ConfigError(f"Stream of {source.name!r}: there is no file or folder {where}; create it, it may be empty")


def _check_names(source: EventSource, files: Sequence[Path]) -> None:
    """Raise `ConfigError` where a name is no text, which the name of a partition has to be."""
    for file in files:
        try:
            file.name.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"Stream of {source.name!r}: the name of {os.fsencode(file)!r} is not UTF-8, or Python was told that "
                "names are not (PYTHONUTF8=0); rename the file"
            ) from None


class LineFile:
    """One NDJSON file, read from a line number on: from its bookmark, or else from where counting finds it."""

    def __init__(self, source: EventSource, path: Path, start: LogStart, *, until_end: bool) -> None:
        self._source, self._path, self._until_end = source, path, until_end
        self._next = start.offset
        self._lines: list[bytes] = []
        self._file: BinaryIO | None = path.open("rb")
        self._left: _Sign | None = None
        """What the file looked like when it was laid to rest; `None` where it was gone."""
        try:
            self._begin(self._file, inside=self._find(self._file, start))
        except BaseException:
            self.release()
            raise

    def _find(self, file: BinaryIO, start: LogStart) -> bool:
        """Move to where it begins; whether that is inside of a line that counts already."""
        place, inside = place_of(file, start.offset, start.bookmark), False
        if place is None:
            inside = _skip_lines(file, self._path, start.offset)
            place = file.tell()
        file.seek(place)
        if start.read > start.offset:
            _skip_lines(file, self._path, start.read, start.offset)
            file.seek(place)
        return inside

    def _begin(self, file: BinaryIO, *, inside: bool) -> None:
        """Read on where a file is."""
        self._tail, self._inside = b"", inside
        """Whether the line that counts already is still without its newline: the rest of it is nobody's."""
        self._at = file.tell()
        self._before = bytes_before(file, self._at)
        """The bytes before it, that were read last."""
        self._counted = b"" if inside else self._before
        """The bytes before the first line that does not count yet."""
        self._handed = b""
        """The bytes before the first line that counts and was not handed on."""

    @property
    def name(self) -> str:
        """The partition."""
        return self._path.name

    @property
    def unfinished(self) -> bool:
        """Whether it ends in a line that is not finished."""
        return bool(self._tail)

    def poll(self) -> Chunk | None:
        """The next lines; `None` where there are none now."""
        if not self._lines and not self._read():
            return None
        lines, self._lines = self._lines[:EVENTS_MAX], self._lines[EVENTS_MAX:]
        first, self._next = self._next, self._next + len(lines)
        return Chunk(self._source, self.name, first, self._next, lines=lines, bookmark=self._bookmark(lines))

    def end(self) -> End:
        """Where it ends, if it had no more lines at the last poll."""
        return End(self.name, self._next, _written_us(self._path))

    def check(self) -> None:
        """Raise `StoreError` where the file was truncated, or another one has its name that does not begin as it did.

        One that is gone stays open; where another took its name, it is read to its end first. One that was let go of is
        checked when it is opened again.
        """
        if self._file is None:
            return
        with contextlib.suppress(FileNotFoundError):
            named, mine = self._path.stat(), os.fstat(self._file.fileno())
            if os.path.samestat(named, mine):
                changed = bytes_before(self._file, self._at) != self._before
            else:
                changed = mine.st_size <= self._at
            if changed:
                self._open_again()

    def rest(self) -> bool:
        """Let go of it where nothing is left to read, until it `stirs`; whether nothing was. That needs no opening."""
        try:
            status = self._path.stat() if self._file is None else os.fstat(self._file.fileno())
        except FileNotFoundError:
            self._left = None
            return True
        if self._lines or status.st_size != self._at:
            return False
        self._left = _sign(status)
        self.release()
        return True

    def stirs(self) -> bool:
        """Whether it changed, or came back, since it was laid to rest."""
        try:
            return _sign(self._path.stat()) != self._left
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Let go of the file: the next poll opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _bookmark(self, lines: Sequence[bytes]) -> int | None:
        """Of what comes next, behind some lines; `None` inside of a line."""
        if self._inside:
            return None
        end = self._at - len(self._tail)
        if not self._lines:
            return bookmark(self._next, end, self._counted)
        left = sum(map(len, self._lines)) + len(self._lines)
        handed = b"".join(line[-REMEMBERED:] + b"\n" for line in lines[-REMEMBERED:])
        self._handed = (self._handed + handed)[-REMEMBERED:]
        return bookmark(self._next, end - left, self._handed)

    def _read(self) -> bool:
        """Whether there are lines now, after reading on to the next newline or to the end."""
        while block := self._next_block():
            data, before = block, self._before
            self._at, self._before = self._at + len(block), (before + block[-REMEMBERED:])[-REMEMBERED:]
            if self._inside:
                _, newline, data = data.partition(b"\n")
                self._inside = not newline
            head, newline, tail = data.rpartition(b"\n")
            if newline:
                nobodys = len(block) - len(data)
                self._handed = (before + block[:nobodys])[-REMEMBERED:] if nobodys else self._counted
                self._lines, self._tail = (self._tail + head).split(b"\n"), tail
                end = len(block) - len(tail)
                self._counted = (before + block[max(0, end - REMEMBERED) : end])[-REMEMBERED:]
                return True
            self._tail += tail
            if len(self._tail) > LINE_BYTES_MAX:
                where = f"{self._path}: line {self._next + 1}"
                raise StoreError(f"{where} is longer than {LINE_BYTES_MAX >> 20} MiB; expected one JSON object a line")
        return self._take_last_line()

    def _next_block(self) -> bytes:
        """What there is next, if the file still has before it what was read before; nothing where it is gone."""
        file = self._opened()
        block = b"" if file is None else file.read(BYTES_MAX)
        if file is not None and block and bytes_before(file, self._at) != self._before:
            file = self._open_again()
            block = file.read(BYTES_MAX)
        return block

    def _opened(self) -> BinaryIO | None:
        """The file, opened again if it was let go of; `None` where it is gone."""
        if self._file is None:
            with contextlib.suppress(FileNotFoundError):
                return self._open_again()
        return self._file

    def _open_again(self) -> BinaryIO:
        """Go on where it was, or, as a restart would, behind the lines that were read, if it still begins with them."""
        file = self._path.open("rb")
        try:
            if bytes_before(file, self._at) == self._before:
                file.seek(self._at)
            else:
                self._begin_again(file)
        except BaseException:
            file.close()
            raise
        self.release()
        self._file = file
        return file

    def _begin_again(self, file: BinaryIO) -> None:
        """Find the lines that were read in a file that may be another one; what was half a line may be gone."""
        read = self._next + len(self._lines)
        inside = _skip_lines(file, self._path, read)
        if not bytes_before(file, file.tell()).endswith(self._counted):
            raise _replaced(self._path, read)
        self._begin(file, inside=inside)

    def _take_last_line(self) -> bool:
        if not (self._until_end and _is_object(self._tail)):
            return False
        self._lines, self._tail, self._inside, self._counted = [self._tail], b"", True, b""
        return True


class RowFile:
    """One Parquet file, read from a row number on once its footer is there."""

    def __init__(self, source: EventSource, path: Path, start: LogStart) -> None:
        self._source, self._path, self._next, self._before = source, path, start.offset, start.read
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._file: pq.ParquetFile | None = None
        self._is_whole = self._is_read = False

    @property
    def name(self) -> str:
        """The partition."""
        return self._path.name

    @property
    def unfinished(self) -> bool:
        """Whether its footer is not there yet."""
        return not self._is_whole

    def poll(self) -> Chunk | None:
        """The next rows; `None` where there are none now."""
        if self._is_read or (self._file is None and not self._open()):
            return None
        try:
            batch = next(self._batches, None)
        except (pa.ArrowException, OSError) as error:
            if _is_of_the_system(error):
                raise
            raise _damaged(self._path, f"its rows from {self._next} on", error) from error
        if batch is None:
            self._is_read = True
            self.release()
            return None
        first, self._next = self._next, self._next + batch.num_rows
        return Chunk(self._source, self.name, first, self._next, table=pa.Table.from_batches([batch]))

    def end(self) -> End | None:
        """Where it ends, if it had no more rows at the last poll; `None` while it is being written."""
        return End(self.name, self._next, _written_us(self._path)) if self._is_whole else None

    def check(self) -> None:
        """Nothing: a file with a footer is whole, and it is read as it was when it was opened."""

    def rest(self) -> bool:
        """Whether nothing is left to read; then it is closed already."""
        return self._is_read

    def stirs(self) -> bool:
        """Never: a file with a footer is whole."""
        return False

    def release(self) -> None:
        """Let go of the file: the next poll opens it again."""
        if self._file is not None:
            self._file.close()
            self._file, self._batches = None, iter(())

    def _open(self) -> bool:
        file = open_rows(self._path)
        if file is None:
            return False
        rows = file.metadata.num_rows
        if rows < (read := max(self._next, self._before)):
            raise _shrunk(self._path, rows, "rows", read)
        self._file, self._batches, self._is_whole = file, _rows_from(file, self._next), True
        return True


def open_file(source: EventSource, path: Path, start: LogStart, *, until_end: bool) -> LineFile | RowFile:
    """A reader of one file. Raises `FileNotFoundError` where a file of lines has gone."""
    if path.suffix in LINES:
        return LineFile(source, path, start, until_end=until_end)
    return RowFile(source, path, start)


def open_rows(path: Path) -> pq.ParquetFile | None:
    """A Parquet file; `None` where it has no footer yet, or has gone. Raises `StoreError` where that cannot be read."""
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowInvalid, FileNotFoundError):
        return None
    except (pa.ArrowException, OSError) as error:
        if _is_of_the_system(error):
            raise
        raise _damaged(path, "its footer", error) from error


def _sign(status: os.stat_result) -> _Sign:
    """What tells a file that was left as it was from one that was not."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _written_us(path: Path) -> int | None:
    """When a file was last written to; `None` where it has gone since it was opened."""
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return None


def _rows_from(file: pq.ParquetFile, offset: int) -> Iterator[pa.RecordBatch]:
    """The rows from `offset` on; row groups before it are not read."""
    start, groups = 0, list[int]()
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if groups or start + rows > offset:
            groups.append(group)
        else:
            start += rows
    skip = offset - start
    for batch in file.iter_batches(batch_size=EVENTS_MAX, row_groups=groups) if groups else ():
        rest = batch.slice(min(skip, batch.num_rows))
        skip -= batch.num_rows - rest.num_rows
        if rest.num_rows:
            yield rest


def _skip_lines(file: BinaryIO, path: Path, count: int, since: int = 0) -> bool:
    """Move from the beginning of line `since` to that of line `count`; whether the file ends before the newline of the
    line before it.
    """
    left, last = count - since, b"\n"
    while left:
        at = file.tell()
        block = file.read(BYTES_MAX)
        lines = block.count(b"\n")
        if not block:
            if left == 1 and last != b"\n":
                return True
            raise _shrunk(path, count - left, "lines", count)
        if lines < left:
            left, last = left - lines, block[-1:]
            continue
        end = -1
        for _ in range(left):
            end = block.index(b"\n", end + 1)
        file.seek(at + end + 1)
        return False
    return False


def _shrunk(path: Path, found: int, what: str, read: int) -> StoreError:
    return StoreError(f"{path} holds {found} {what}, but {read} were read from it before. {GROW}")


def _replaced(path: Path, read: int) -> StoreError:
    return StoreError(f"{path} no longer has the {read} lines that were read from it before at its beginning. {GROW}")


def _is_of_the_system(error: Exception) -> bool:
    """Whether it was the system that refused to read, and not what was read that makes no sense."""
    return isinstance(error, OSError) and error.errno is not None


def _damaged(path: Path, what: str, error: Exception) -> StoreError:
    said = " ".join(str(error).split())
    return StoreError(
        f"{path} was written to its end, and {what} cannot be read ({said}). Put the file back as it was written; "
        "if that cannot be done, move it away: a flow then goes on without what is not archived of it"
    )


def _is_object(text: bytes) -> bool:
    if not text.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(msgspec.json.decode(text), dict)
    except msgspec.DecodeError:
        return False
