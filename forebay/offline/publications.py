"""Which publication of a view was the last to be finished: a position of the table that is published.

    publish    blobs, cuts (with its number) online ──▶ `publication` = its number, here ──▶ whoever asked is told
    so         number here ≤ number of each slot online, unless the online store came back without a publication

It may be that a publication is finished online and not noted here, because its publisher died in between: then nobody
was told that it is.
"""

from __future__ import annotations

from forebay.offline.commit import Commit, Position
from forebay.offline.lake_table import LakeTable

PUBLICATION = "publication"


class Publications:
    """The number of the last publication of a view, kept in the log of the table with its tiles or rows."""

    def __init__(self, table: LakeTable) -> None:
        self._table = table

    def last(self) -> int:
        """The number of the last one that was finished; 0 where none was."""
        return self._table.position(PUBLICATION) or 0

    def note(self, number: int) -> None:
        """Remember that one is finished; never back. Where nothing was ever computed there is nothing to be lost."""
        if self._table.snapshot() is None:
            return

        def prepare(position: Position) -> Commit | None:
            known = position(PUBLICATION) or 0
            return Commit(self._table.schema.empty_table(), {PUBLICATION: number}) if number > known else None

        self._table.append(prepare)
