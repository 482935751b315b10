"""`newest/<view>@<v>`: the newest row of every entity of `features/<view>@<v>`, as of one version of that table.

What a publication would otherwise look for among all rows again and again. It is made of `features/` alone and may be
removed at any time: the next publication reads everything, and makes it anew.

Columns: those of `features/`; its `date` is the same for all rows, so that they are few files. The position
`of/<id of features/>` is the version of that table it was made of, in the same commit as the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from forebay.language.view import BatchView
from forebay.offline.clustering import dataset_of
from forebay.offline.commit import Commit
from forebay.offline.data_files import DATE
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.rows_table import EVENT_TIMESTAMP, rows_schema

OF = "of/"
ALL = "1970-01-01"
"""The date of all rows."""
REPLACED_HOURS = 1
"""Rows that were replaced are not read again: whoever reads them does so at once, and there are many of them."""


@dataclass(frozen=True)
class Newest:
    """The newest rows as of a version of `features/`, and the dates whose files are others by now."""

    rows: pa.Table
    changed: frozenset[str]


class NewestTable:
    """The newest rows of one batch view."""

    def __init__(self, location: Location, view: BatchView) -> None:
        schema = rows_schema(view)
        self.table = LakeTable(location, f"newest/{view.key}", schema, statistics=[EVENT_TIMESTAMP])
        self._schema = pa.schema([field_ for field_ in schema if field_.name != DATE])

    def before(self, features: DeltaTable) -> Newest | None:
        """What is known of the newest rows before a version of `features/`; `None` where nothing is, or no more."""
        location, snapshot = self.table.location, self.table.snapshot()
        if snapshot is None or set(self.table.schema.names) - set(pa.schema(snapshot.schema()).names):
            return None
        with location.reached(f"reading {self.table.path}"):
            version = snapshot.transaction_version(_position(features))
            if version is None or version > features.version():
                return None
            rows = dataset_of(snapshot).to_table(columns=self._schema.names).cast(self._schema)
            try:
                then = DeltaTable(features.table_uri, version=version, storage_options=dict(location.options))
            except DeltaError:  # Delta has removed that part of the log
                return None
            files, now = files_by_date(then), files_by_date(features)
        changed = {date for date in files.keys() | now.keys() if files.get(date) != now.get(date)}
        return Newest(rows, frozenset(changed))

    def replace(self, rows: pa.Table, features: DeltaTable) -> None:
        """Keep the newest rows as of a version of `features/`."""
        rows = rows.select(self._schema.names).append_column(DATE, pa.repeat(pa.scalar(ALL), len(rows)))
        self.table.overwrite(f"{DATE} = '{ALL}'", Commit(rows, {_position(features): features.version()}))
        self.table.vacuum(REPLACED_HOURS, dry_run=False)


def files_by_date(table: DeltaTable) -> dict[str, dict[str, int]]:
    """The files of each date of a version of a table, with their rows."""
    files = pa.table(table.get_add_actions(flatten=True))
    found: dict[str, dict[str, int]] = {}
    if len(files):
        columns = (files[name].to_pylist() for name in (f"partition.{DATE}", "path", "num_records"))
        for date, path, rows in zip(*columns, strict=True):
            found.setdefault(date, {})[path] = rows
    return found


def _position(features: DeltaTable) -> str:
    return f"{OF}{features.metadata().id}"
