"""What a log is to a reader of the flow.

Lives here: the protocols and nothing else. Files, topics, streams and the archive each have their own module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from forebay.language.source import EventSource
from streaming.chunk import Chunk
from streaming.heartbeat import End

Resume = Callable[[EventSource, str], int]
"""The offset at which a partition of a source is resumed."""
Bookmarks = Callable[[EventSource, str], int | None]
"""The bookmark of that offset, if there is one."""


class LogReader(Protocol):
    """Some partitions of one source."""

    @property
    def source(self) -> EventSource:
        """The source that they are of."""

    def poll(self) -> Sequence[Chunk]:
        """What there is now."""

    @property
    def ended(self) -> bool:
        """Whether a poll without chunks was the end of all partitions."""

    def ends(self) -> Sequence[End]:
        """The partitions that held nothing more at the last poll; none while the log does not answer."""

    @property
    def unfinished(self) -> Sequence[str]:
        """Partitions that end in something half written."""

    def close(self) -> None:
        """Let go of files and connections."""


class NamedLog(LogReader, Protocol):
    """A log that can tell which partitions there are."""

    @property
    def names(self) -> Collection[str] | None:
        """All partitions of the log, whoever reads them; `None` while it cannot tell."""
