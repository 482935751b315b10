"""`training/<service>@<v>`: the training set of a service that an asset built, replaced as a whole.

Its columns are the spine's and the service's, so the table takes whatever schema it is given; older versions stay
readable by Delta's time travel until they are vacuumed.
"""

from __future__ import annotations

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake

from forebay.language.service import FeatureService
from forebay.offline.data_files import ROW_GROUP_ROWS
from forebay.offline.location import Location

FILE_BYTES, FILE_BYTES_MIN = 32 * 2**20, 2**20
"""Size of its files: one is held in memory until it is written, so that with little memory they are smaller."""


class TrainingTable:
    """The stored training set of one service."""

    def __init__(self, location: Location, service: FeatureService) -> None:
        self._location, self._path = location, f"training/{service.key}"

    def claimed(self) -> str:
        """Where `FeatureStore.write_historical_features` is to write it, in a store that is of this namespace."""
        self._location.owner.claim()
        return self._location.at(self._path)

    def read(self) -> pa.Table:
        """All of it."""
        with self._location.reached(f"reading {self._path}"):
            snapshot = DeltaTable(self._location.at(self._path), storage_options=dict(self._location.options))
            return snapshot.to_pyarrow_table()


def write_delta(
    location: Location, path: str, rows: pa.Table | pa.RecordBatchReader, held: tuple[int, int] | None = None
) -> None:
    """Replace a Delta table by rows (a reader is read piece by piece), in one commit.

    Its row groups and its files have about so many rows and bytes at most as may be `held`.
    """
    group_rows, file_bytes = held or (ROW_GROUP_ROWS, FILE_BYTES)
    with location.reached(f"writing {path or location.url}"):
        write_deltalake(
            location.at(path) if path else location.url,
            rows,
            mode="overwrite",
            schema_mode="overwrite",
            writer_properties=WriterProperties(compression="ZSTD", max_row_group_size=min(ROW_GROUP_ROWS, group_rows)),
            target_file_size=min(FILE_BYTES, max(FILE_BYTES_MIN, file_bytes)),
            storage_options=dict(location.options),
        )
