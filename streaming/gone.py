"""Partitions that the stores know and a log no longer has: nobody reads them, so nothing more of them can come.

    the stores know    day-1 ────┤        day-2 ─────────▶
    the log has                           day-2 ─────────▶
    ends               day-1, where it is archived; day-2, where it was read to

Lives here: adding them to what a log says of its ends, so that they are quiet like any idle partition, and hold neither
a watermark nor a cut back for ever: a file that was deleted, a topic's partitions of an earlier epoch, those of a
stream that a source had before (docs/adr/0255). Invariants: what a log cannot tell now is not gone; a partition that
comes back is read on where it was, and is judged as any is behind a heartbeat; events of it that count online and did
not reach the archive are said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from forebay.language.source import EventSource
from streaming.chunk import Chunk
from streaming.heartbeat import End
from streaming.log import NamedLog
from streaming.log_losses import say_unarchived

LONG_AGO_US = 0
"""When something was last appended to what is gone: there is no pause to be waited for."""


class WithGone:
    """A log and, of the partitions that the stores know, those that it no longer has.

    `known` says how far they are archived, `applied` how far they count online.
    """

    def __init__(self, log: NamedLog, known: Mapping[str, int], applied: Mapping[str, int]) -> None:
        self._log, self._known = log, known
        self._unarchived = {name: end for name, end in applied.items() if end > known.get(name, end)}

    @property
    def source(self) -> EventSource:
        """The source that they are of."""
        return self._log.source

    @property
    def ended(self) -> bool:
        """Whether a poll without chunks was the end."""
        return self._log.ended

    @property
    def unfinished(self) -> Sequence[str]:
        """Partitions of the log that end in something half written."""
        return self._log.unfinished

    def ends(self) -> Sequence[End]:
        """The partitions of the log that held nothing more at the last poll, and those that are gone."""
        names = self._log.names
        gone = [] if names is None else sorted(self._known.keys() - names)
        self._say_unarchived(gone)
        return [*self._log.ends(), *(End(name, self._known[name], LONG_AGO_US) for name in gone)]

    def _say_unarchived(self, gone: Sequence[str]) -> None:
        for name in self._unarchived.keys() & gone:
            say_unarchived(self.source, name, self._known[name], self._unarchived.pop(name))

    def poll(self) -> Sequence[Chunk]:
        """What there is now."""
        return self._log.poll()

    def close(self) -> None:
        """Let go of the log."""
        self._log.close()
