"""The files of one source that fall to one reader: which of them are looked at, and which are kept open.

    awake      polled with every poll: whatever is not read to its end, and the AWAKE_MAX that something came from last
    resting    closed, and looked at once a second: has it changed, is it back?
    gone       its name is no longer there: read to its end, some time longer, then at rest

Lives here: finding files while a flow runs, and letting go of them, since a folder gets a file each hour for months
(docs/adr/0268). Invariants: no more than AWAKE_MAX stay open beyond a poll; a file that was let go of has an end as any
other, which is said when it was seen at that moment that it has not changed; nothing is read twice.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from forebay.errors import ConfigError
from forebay.language.source import EventSource
from streaming.chunk import Chunk, enough
from streaming.file_log import LineFile, RowFile, files_of, open_file
from streaming.heartbeat import End
from streaming.log import LogStarts

DISCOVERY_INTERVAL_S = 1.0
"""How often a folder is looked through for new files."""
AWAKE_MAX = 128
"""As many files are polled however quiet they are; what is written to one that rests is found up to a second later. A
process may have 1,024 open, by default.
"""
GONE_S = 60.0
"""A file whose name is gone is kept open so much longer: who writes it may not know yet."""

File = LineFile | RowFile


class FileReader:
    """The files of one source that fall to one reader."""

    def __init__(
        self,
        source: EventSource,
        path: str,
        mine: Callable[[str], bool],
        start: LogStarts,
        *,
        until_end: bool,
    ) -> None:
        self.source = source
        self._path, self._mine, self._start, self._until_end = path, mine, start, until_end
        self._is_folder = Path(path).is_dir()
        self._files: dict[str, File] = {}
        self._awake: deque[File] = deque()
        self._resting: dict[str, File] = {}
        self._since_s: dict[str, float] = {}
        """When something came last from a file that is awake, or when it was seen that it is gone or back."""
        self._at_end: list[File] = []
        self._names: frozenset[str] = frozenset()
        self._looked_s = time.monotonic()
        self._discover()

    @property
    def ended(self) -> bool:
        """A file ends where nothing is left to read."""
        return True

    def ends(self) -> Sequence[End]:
        """The files that were looked at and had no more."""
        quiet = [*self._at_end, *(file for file in self._resting.values() if not file.stirs())]
        ends = [file.end() for file in quiet]
        return [end for end in ends if end is not None]

    @property
    def unfinished(self) -> Sequence[str]:
        """Files that end in half a line, or have no footer yet."""
        return [name for name, file in self._files.items() if file.unfinished]

    @property
    def names(self) -> Collection[str] | None:
        """The files that are there, or were read; an empty folder tells nothing: a disk may be away."""
        return self._names | self._files.keys() if self._names else None

    def poll(self) -> Sequence[Chunk]:
        """The next chunk of each file that has one now, of a few files a time, in turn."""
        now_s = time.monotonic()
        if now_s - self._looked_s > DISCOVERY_INTERVAL_S:
            self._look(now_s)
        chunks: list[Chunk] = []
        self._at_end = []
        for _ in range(len(self._awake)):
            file = self._awake[0]
            self._awake.rotate(-1)
            chunk = file.poll()
            if chunk is None:
                self._at_end.append(file)
            else:
                chunks.append(chunk)
                self._since_s[file.name] = now_s
            if len(self._awake) > AWAKE_MAX:
                file.release()
            if enough(chunks):
                break
        if self._until_end and not chunks and self._wake(now_s):
            return self.poll()
        return chunks

    def close(self) -> None:
        """Let go of the files."""
        for file in self._awake:
            file.release()

    def _look(self, now_s: float) -> None:
        """Look for files that are new, gone, or changed, and let go of those that are quiet."""
        self._looked_s = now_s
        if not self._until_end:
            self._discover()
        self._wake(now_s)
        self._rest(now_s)

    def _discover(self) -> None:
        before, paths = self._names, self._paths()
        self._names = frozenset(path.name for path in paths)
        self._since_s |= dict.fromkeys((before ^ self._names) & self._files.keys(), self._looked_s)
        for file in list(self._awake):
            if file.name in self._names:
                file.check()
            elif file.end() is None:
                self._forget(file)
        for path in paths:
            if path.name not in self._files and self._mine(path.name):
                with contextlib.suppress(FileNotFoundError):  # it has gone since
                    self._open(path)

    def _paths(self) -> list[Path]:
        """The files that are there; none where the one that the source names was deleted."""
        try:
            return files_of(self.source, self._path)
        except ConfigError:
            if self._is_folder or not self._files:
                raise
            return []

    def _open(self, path: Path) -> None:
        start = self._start(path.name)
        file = self._files[path.name] = open_file(self.source, path, start, until_end=self._until_end)
        if len(self._awake) >= AWAKE_MAX and file.rest():
            self._resting[path.name] = file
            return
        self._awake.append(file)
        if len(self._awake) > AWAKE_MAX:
            file.release()

    def _forget(self, file: File) -> None:
        """What is gone and was never read, as if it had not been there."""
        self._awake.remove(file)
        del self._files[file.name]

    def _wake(self, now_s: float) -> bool:
        """Look at the files that rest; whether one has changed."""
        stirring = [name for name, file in self._resting.items() if file.stirs()]
        self._awake += [self._resting.pop(name) for name in stirring]
        self._since_s |= dict.fromkeys(stirring, now_s)
        return bool(stirring)

    def _rest(self, now_s: float) -> None:
        """Let go of files with nothing to read: of those that are long gone, and of the quietest if they are many."""
        too_many = len(self._awake) - AWAKE_MAX
        for file in sorted(self._awake, key=self._last_s):
            is_gone = file.name not in self._names and now_s - self._last_s(file) > GONE_S
            if (is_gone or too_many > 0) and file.rest():
                self._resting[file.name] = file
                self._since_s.pop(file.name, None)
                too_many -= 1
        self._awake = deque(file for file in self._awake if file.name not in self._resting)

    def _last_s(self, file: File) -> float:
        return self._since_s.get(file.name, -math.inf)
