"""What a log is to a reader of the flow.

Lives here: the protocols, where a partition is read on, and nothing else. Files, topics, streams and the archive each
have their own module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from forebay.language.source import EventSource
from streaming.chunk import Chunk
from streaming.heartbeat import End


@dataclass(frozen=True)
class LogStart:
    """Where a partition of a log is read on.

    archive   ├──────────────┤ offset
    online    ├─────────────────────┤ applied    a second ahead, also where the archive has nothing yet
    log         first ├──────────────────▶       lacks what the archive needs, if it begins or ends in between
    """

    offset: int = 0
    """The first that is not archived."""
    applied: int = 0
    """Up to where it counts online, in some view."""
    bookmark: int | None = None
    """Where the offset is in a file, if the archive knows."""

    @property
    def read(self) -> int:
        """Up to where it was read before: a log that ends before that is another one."""
        return max(self.offset, self.applied)


LogStarts = Callable[[str], LogStart]
"""Asks where a partition of one source is read on."""


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
