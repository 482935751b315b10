"""The table `repairs`: dates of a source that must be folded again, because an event came later than its lateness
allows.

Columns: `source`, `day` (the UTC date to be repaired), `reason`, `recorded_at`, `date` (on which it was recorded). A
mark may be there twice, and one stands for what comes within the hour behind it, too: whether a date was repaired since
then, the numbers of its events tell, those that it was folded from and those that are archived.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.batch import INSTANT
from forebay.instants import day_text
from forebay.offline.commit import Commit
from forebay.offline.data_files import DATE
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("day", pa.string()),
        ("reason", pa.string()),
        ("recorded_at", INSTANT),
        (DATE, pa.string()),
    ]
)


Mark = tuple[str, str, str]
"""Source, UTC date, and why."""


class Repairs:
    """All marks of a deployment."""

    def __init__(self, location: Location) -> None:
        self.table = LakeTable(location, "repairs", SCHEMA, statistics=["recorded_at"])

    def append(self, marks: Sequence[Mark], recorded_at_us: int) -> None:
        """Make some marks."""
        if not marks:
            return
        sources, days, reasons = (list(column) for column in zip(*marks, strict=True))
        columns = [sources, days, reasons, [recorded_at_us] * len(marks), [day_text(recorded_at_us)] * len(marks)]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        rows = pa.table(arrays, schema=SCHEMA)
        self.table.append(lambda position: Commit(rows))

    def scan(self, source: str | None = None) -> pa.Table:
        """All marks, or those of a source, the oldest first."""
        rows = self.table.reading(SCHEMA.names, None if source is None else pc.field("source") == source).table()
        return rows.sort_by([("recorded_at", "ascending"), ("source", "ascending"), ("day", "ascending")])
