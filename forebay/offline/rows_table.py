"""`features/<view>@<v>`: the rows that a batch view's function computed, replaced by partition.

Columns: the entity's keys, the features, `event_timestamp`, `created_timestamp` (of the run), `partition_start` (the
partition that computed the row; a row's `event_timestamp` may lie anywhere before the partition's end) and `date`,
the UTC date of `partition_start`.

`superseded/<view>@<v>`: the rows that a later computation of their partition replaced, with `superseded_timestamp`,
when it was made. They are kept because they were known until then (ADR 0060). They are copied before they are replaced:
what dies between the two leaves a row in both tables, which changes no answer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.values import arrow_type
from forebay.errors import RequestError
from forebay.ingest.batch import INSTANT
from forebay.instants import DAY_US, day_text, instant_text, moment
from forebay.language.types import FeatureType, VectorType
from forebay.language.view import BatchView
from forebay.offline.archive import RETAINED, dates_of
from forebay.offline.commit import Commit
from forebay.offline.data_files import DATE
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.stored_table import between_dates

EVENT_TIMESTAMP, CREATED_TIMESTAMP, PARTITION_START = "event_timestamp", "created_timestamp", "partition_start"
SUPERSEDED_TIMESTAMP = "superseded_timestamp"


class RowsTable:
    """The rows of one batch view."""

    def __init__(self, location: Location, view: BatchView) -> None:
        self.view = view
        schema = rows_schema(view)
        own = [EVENT_TIMESTAMP, CREATED_TIMESTAMP, PARTITION_START]
        self.table = LakeTable(location, f"features/{view.key}", schema, statistics=own)
        past = schema.append(pa.field(SUPERSEDED_TIMESTAMP, INSTANT))
        self.superseded = LakeTable(location, f"superseded/{view.key}", past, statistics=[*own, SUPERSEDED_TIMESTAMP])

    def overwrite(self, start_us: int, end_us: int, table: pa.Table, created_us: int | None = None) -> None:
        """Replace the rows of the partitions that start in `[start, end)`, in one commit; `table` may have none.

        `created_us` is the instant of the computation, by default the earliest `created_timestamp` of its rows, or now.
        """
        table = self._rows(start_us, end_us, table)
        predicate = between_dates(day_text(start_us), day_text(end_us - 1))
        if start_us % DAY_US or end_us % DAY_US:
            predicate += f" AND {PARTITION_START} >= {_literal(start_us)} AND {PARTITION_START} < {_literal(end_us)}"
        if created_us is None:
            created = pc.min(table[CREATED_TIMESTAMP].cast(pa.int64())).as_py()
            created_us = time.time_ns() // 1_000 if created is None else created
        at_us = created_us
        self.table.overwrite(predicate, Commit(table), before=lambda: self._keep(start_us, end_us, at_us))

    def scan(
        self, columns: Sequence[str] | None = None, start_us: int | None = None, end_us: int | None = None
    ) -> pa.Table:
        """Rows (with an `event_timestamp` in `[start, end)`), in no particular order."""
        instant, where = pc.field(EVENT_TIMESTAMP), None
        if start_us is not None:
            where = instant >= pa.scalar(start_us, INSTANT)
        if end_us is not None:
            before = instant < pa.scalar(end_us, INSTANT)
            where = before if where is None else where & before
        return self.table.reading(self.table.schema.names if columns is None else columns, where).table()

    def remove_superseded(self, before_us: int, *, dry_run: bool) -> int:
        """Remove the rows that were replaced before an instant; how many there are."""
        replaced = pc.field(SUPERSEDED_TIMESTAMP) < pa.scalar(before_us, INSTANT)
        rows = len(self.superseded.reading([SUPERSEDED_TIMESTAMP], replaced).table())
        if rows and not dry_run:
            self.superseded.remove(f"{SUPERSEDED_TIMESTAMP} < {_literal(before_us)}", {RETAINED: before_us})
        return rows

    def check_known(self, first_us: int) -> None:
        """Raise `RequestError` where what was known at an instant is not kept any more."""
        retained_us = self.superseded.position(RETAINED)
        if retained_us is not None and first_us < retained_us:
            raise RequestError(
                f"What was known of view {self.view.key!r} at {instant_text(first_us)} is not kept: rows that were "
                f"replaced before {instant_text(retained_us)} are removed; ask for later instants, or as of then"
            )

    def size(self) -> tuple[int, int] | None:
        """Rows and bytes; `None` where nothing was computed yet."""
        return self.table.size()

    def _keep(self, start_us: int, end_us: int, superseded_us: int) -> None:
        """Copy the rows that are about to be replaced."""
        start = pc.field(PARTITION_START)
        where = (start >= pa.scalar(start_us, INSTANT)) & (start < pa.scalar(end_us, INSTANT))
        dates = between_dates(day_text(start_us), day_text(end_us - 1))
        past = self.table.reading(self.table.schema.names, where, dates).table()
        if len(past):
            until = pa.repeat(pa.scalar(superseded_us, INSTANT), len(past))
            rows = Commit(past.append_column(SUPERSEDED_TIMESTAMP, until))
            self.superseded.append(lambda position: rows)

    def _rows(self, start_us: int, end_us: int, table: pa.Table) -> pa.Table:
        schema = self.table.schema
        missing = [name for name in schema.names if name not in (*table.column_names, DATE)]
        if missing or start_us >= end_us:
            raise RequestError(
                f"Rows of view {self.view.key!r} for [{instant_text(start_us)}, {instant_text(end_us)}) "
                f"{'lack ' + ', '.join(missing) if missing else 'are of no partition: the range is empty'}"
            )
        starts = table[PARTITION_START].cast(INSTANT).cast(pa.int64())
        outside = pc.or_(pc.less(starts, start_us), pc.greater_equal(starts, end_us)).fill_null(True)
        if pc.any(outside).as_py():
            raise RequestError(
                f"Rows of view {self.view.key!r} lie outside of the partitions to be replaced, "
                f"[{instant_text(start_us)}, {instant_text(end_us)}): see their {PARTITION_START}"
            )
        if DATE not in table.column_names:
            table = table.append_column(DATE, dates_of(table[PARTITION_START].cast(INSTANT)))
        table = table.select(schema.names).cast(schema)
        return table.sort_by([(PARTITION_START, "ascending"), (EVENT_TIMESTAMP, "ascending")])


def rows_schema(view: BatchView) -> pa.Schema:
    """The columns of a batch view's rows."""
    keys = [(name, arrow_type(kind)) for name, kind in view.entity.keys.items()]
    features = [(feature.name, _table_type(feature.type)) for feature in view.features]
    own = [(name, INSTANT) for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP, PARTITION_START)]
    return pa.schema([*keys, *features, *own, (DATE, pa.string())])


def _table_type(kind: FeatureType) -> pa.DataType:
    """Delta has lists, and none of a fixed size."""
    return pa.list_(pa.float64()) if isinstance(kind, VectorType) else arrow_type(kind)


def _literal(us: int) -> str:
    """An instant in the SQL of a predicate."""
    return f"'{moment(us).isoformat()}'"
