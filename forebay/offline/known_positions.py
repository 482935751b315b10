"""The positions of a table as its one object knows them: asked for once, and kept up with the commits that follow.

deltalake looks through the table's log for each position that it is asked for, and a flow has one for each lane and
partition: at a flush a second that was a tenth of its CPU time. Between two versions only the commits between them can
have moved a position, so these are read, and not even they where the only one is the caller's own. Where very many are
asked for (a folder of thousands of files), the log is looked through once for all of them.

Invariant: what is known of a version is what deltalake would say of it; where that cannot be told, nothing is known.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from deltalake import DeltaTable

from forebay.offline.delta_log import DeltaLog

BEHIND_MAX = 16
"""Commits that are read one by one; beyond, the positions that are needed are asked for anew."""
ASKED_MAX = 64
"""Positions that deltalake is asked for one by one, a millisecond each; then all are read."""


class KnownPositions:
    """What is known of the positions of the table with a log. Belongs to whoever holds its lock."""

    def __init__(self, log: DeltaLog) -> None:
        self._log, self._version = log, -1
        self._found: dict[str, int | None] = {}
        self._all, self._asked = False, 0

    def of(self, table: DeltaTable, app_id: str) -> int | None:
        """The version that an app_id was brought to in the table as it was read; `None` if it never was."""
        self._keep_up(table.version())
        if app_id not in self._found and not self._all:
            self._asked += 1
            if self._asked > ASKED_MAX:
                self._read_all()
            if not self._all:
                self._found[app_id] = table.transaction_version(app_id)
        return self._found.get(app_id)

    def moved(self, before: int, table: DeltaTable, positions: Mapping[str, int]) -> None:
        """A commit on top of version `before` has moved positions, and the table was read again."""
        if self._version == before and table.version() == before + 1:
            self._found |= positions
            self._version = before + 1

    def _keep_up(self, version: int) -> None:
        if version == self._version:
            return
        behind = range(self._version + 1, version + 1)
        if not 0 < len(behind) <= BEHIND_MAX:
            self._forget()
        if self._found:
            self._follow(behind)
        self._version = version

    def _follow(self, commits: range) -> None:
        try:
            moved = self._log.moved(commits)
            self._found |= {name: to for name, to in moved.items() if self._all or name in self._found}
        except FileNotFoundError:  # summed up in a checkpoint, and removed
            self._forget()

    def _read_all(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._found = {**self._log.transactions(self._version)}
            self._all = True

    def _forget(self) -> None:
        self._found, self._all, self._asked = {}, False, 0
