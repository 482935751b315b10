"""Where Dagster keeps its runs and events: SQLite under the home, written in batches.

Two reasons for a storage of our own. A run over a range of partitions reports one event per partition, twice; stock
SQLite storage commits each by itself (10 ms: 166 s for a year of hours), this one commits a batch at once. And
`dagster asset materialize` without DAGSTER_HOME would keep its record in a temporary folder, so that the UI would
know nothing of it; this one falls back to `$FOREBAY_HOME/dagster`. `dagster.yaml` names it. Only storage may live
here; it knows no views.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster._config.config_schema import UserConfigSchema
from dagster._core.events import ASSET_EVENTS
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import SqliteEventLogStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData

from forebay.settings import Settings

BATCH_EVENTS = 2_000
"""Events of one SQLite transaction: a few megabytes, and a fiftieth of a second of lock."""


class BatchedEventLog(SqliteEventLogStorage):
    """Dagster's SQLite event log, with batches of asset events in one transaction per file."""

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events of one run. Batches are of asset events; anything else goes the ordinary way."""
        if not all(event.is_dagster_event and event.dagster_event_type in ASSET_EVENTS for event in events):
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        with self.run_connection(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        insert = SqlEventLogStorageTable.insert().returning(SqlEventLogStorageTable.c.id, sort_by_parameter_order=True)
        with self.index_transaction() as connection:
            ids = [row[0] for row in connection.execute(insert, rows)]
            self._store_asset_event_tags(connection, events, ids)
            for event, event_id in _last_of_each(events, ids):
                self._store_asset_event(connection, event, event_id)


def _last_of_each(events: Sequence[EventLogEntry], ids: Sequence[int]) -> list[tuple[EventLogEntry, int]]:
    """The last event of each asset and type: what the summary of an asset is made from."""
    last = {(event.get_dagster_event().asset_key, event.dagster_event_type): i for i, event in enumerate(events)}
    return [(events[i], ids[i]) for i in sorted(last.values())]


class HomeStorage(DagsterSqliteStorage):
    """Runs, events and schedules in DAGSTER_HOME, or in `$FOREBAY_HOME/dagster` where it is not set."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        with _alone(Path(base_dir)):
            super().__init__(base_dir, inst_data)
            self._event_log_storage = BatchedEventLog(str(Path(base_dir, "history", "runs")))
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", str(BATCH_EVENTS))

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Nothing to configure."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> HomeStorage:
        """The storage of this environment."""
        folder = os.environ.get("DAGSTER_HOME") or str(Settings.from_env().home / "dagster")
        return cls.from_local(folder, inst_data=inst_data)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Within it, no other process makes the databases of a folder: two that begin together would break them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "making.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
