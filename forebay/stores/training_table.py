"""`training/<service>@<v>`: the training set of a service that an asset built, replaced as a whole.

Its columns are the spine's and the service's, so the table takes whatever schema it is given; older versions stay
readable by Delta's time travel until they are vacuumed.
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake

from forebay.language.service import FeatureService
from forebay.stores.location import Location


class TrainingTable:
    """The stored training set of one service."""

    def __init__(self, location: Location, service: FeatureService) -> None:
        self._location, self._path = location, f"training/{service.key}"

    def overwrite(self, table: pa.Table) -> None:
        """Replace it, in one commit."""
        with self._location.reached(f"writing {self._path}"):
            write_deltalake(
                self._location.at(self._path),
                table,
                mode="overwrite",
                schema_mode="overwrite",
                storage_options=dict(self._location.options),
            )

    def read(self) -> pa.Table:
        """All of it."""
        with self._location.reached(f"reading {self._path}"):
            snapshot = DeltaTable(self._location.at(self._path), storage_options=dict(self._location.options))
            return snapshot.to_pyarrow_table()
