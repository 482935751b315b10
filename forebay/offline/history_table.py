"""`history/<view>@<v>`: finished values of a view in long form, for plain SQL; replaced by day.

Columns: `entity` (the text of its key) and the key columns, `feature`, `value` (a number: Bool is 0 or 1, a Timestamp
seconds since 1970; null for text), `value_text` (exact, of every type), `status`, `event_timestamp` (of the newest
event or row behind it), `computed_at` (the instant that it is the value of), `created_timestamp` (of the run) and
`date`, the UTC date of `computed_at`. A row says what a feature became; it stays so until the next row of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from forebay.core.values import arrow_type
from forebay.ingest.batch import INSTANT
from forebay.instants import day_text
from forebay.language.view import AnyView
from forebay.offline.archive import dates_of
from forebay.offline.commit import Commit
from forebay.offline.data_files import DATE
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.stored_table import between_dates

ENTITY, FEATURE, VALUE, VALUE_TEXT, STATUS = "entity", "feature", "value", "value_text", "status"
EVENT_TIMESTAMP, COMPUTED_AT, CREATED_TIMESTAMP = "event_timestamp", "computed_at", "created_timestamp"


class HistoryTable:
    """The finished values of one view."""

    def __init__(self, location: Location, view: AnyView) -> None:
        self.view = view
        schema = history_schema(view)
        statistics = [EVENT_TIMESTAMP, COMPUTED_AT, CREATED_TIMESTAMP]
        self.table = LakeTable(location, f"history/{view.key}", schema, statistics=statistics)

    def overwrite(self, start_us: int, end_us: int, rows: pa.Table) -> None:
        """Replace the days in `[start, end)`, in one commit; `rows` lack only `date`."""
        rows = rows.append_column(DATE, dates_of(rows[COMPUTED_AT]))
        rows = rows.select(self.table.schema.names).cast(self.table.schema)
        order = [(name, "ascending") for name in (DATE, ENTITY, FEATURE, COMPUTED_AT)]
        self.table.overwrite(between_dates(day_text(start_us), day_text(end_us - 1)), Commit(rows.sort_by(order)))

    def empty(self) -> pa.Table:
        """No rows, with all columns but `date`."""
        return self.table.schema.empty_table().drop_columns(DATE)

    def scan(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All of it, in no particular order."""
        return self.table.reading(self.table.schema.names if columns is None else columns).table()


def history_schema(view: AnyView) -> pa.Schema:
    """The columns of a view's history; a key that is called like one of them is found in `entity` alone."""
    own = [
        (ENTITY, pa.string()),
        (FEATURE, pa.string()),
        (VALUE, pa.float64()),
        (VALUE_TEXT, pa.string()),
        (STATUS, pa.string()),
        (EVENT_TIMESTAMP, INSTANT),
        (COMPUTED_AT, INSTANT),
        (CREATED_TIMESTAMP, INSTANT),
        (DATE, pa.string()),
    ]
    named = {name for name, _ in own}
    keys = [(name, arrow_type(kind)) for name, kind in view.entity.keys.items() if name not in named]
    return pa.schema([*own[:1], *keys, *own[1:]])
