"""One Delta table of the offline store as it is written: made on first use, appended to and overwritten atomically.

Exactly once. A commit carries `Transaction(app_id, version)` for everything that it applies: the *positions* of the
table. Delta refuses a commit only when another one moved the same app_id since the snapshot it was prepared on; it
does not refuse an older version. So a commit is prepared on a fresh snapshot, whose positions say what is applied
already, and prepared anew after a conflict. What is prepared must depend on nothing but the positions and what the
caller holds.

How it is read, and what a reader may rely on, says `forebay.offline.stored_table`. Statistics are kept of integers and
instants only: deltalake rounds those of wide decimals.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import tenacity
from deltalake import ColumnProperties, DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from forebay.errors import FencedError, StoreError
from forebay.offline.clustering import CLUSTERED, MARK_BITS, Clustering, dataset_of
from forebay.offline.commit import Commit, Position
from forebay.offline.data_files import DATE, ROW_GROUP_ROWS, DataFiles
from forebay.offline.delta_log import LOG, DeltaLog
from forebay.offline.known_positions import KnownPositions
from forebay.offline.location import Location
from forebay.offline.reading import with_columns
from forebay.offline.row_groups import Names
from forebay.offline.stored_table import StoredTable

ATTEMPTS_MAX = 10
"""Writers of one table take turns of some 10–100 ms; ten conflicts in a row mean that something else is wrong."""
CLUSTERED_GROUP_ROWS = 32 * 1024
"""Of files that are in order: a look-up reads a few of them, and a scan of all is hardly slower."""
COMPACT_EVERY = 256
"""Appends between two compactions: a commit and a scan cost some 0.1 ms more for each file there is."""
_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP_ROWS)
_APPENDER = WriterProperties(
    compression="ZSTD",
    max_row_group_size=ROW_GROUP_ROWS,
    default_column_properties=ColumnProperties(dictionary_enabled=False),
)
"""Small files of mostly distinct values: without dictionaries they are a quarter smaller and cost two thirds of the
CPU. Compaction, which sees many rows at once, makes dictionaries."""
_CLUSTERED_WRITER = WriterProperties(compression="ZSTD", max_row_group_size=CLUSTERED_GROUP_ROWS)
CLUSTERED_FILE_BYTES = 32 * 2**20
"""About the size of their files: a shard of a large date has files of its own, and a small date is one file."""
LOG_KEPT = {"delta.logRetentionDuration": "interval 10 minutes", "delta.enableExpiredLogCleanup": "false"}
"""Of a table in a folder that gets a commit a second: a commit goes through all files of its log, 10 µs each."""
REMOVED_KEPT = {"delta.deletedFileRetentionDuration": "interval 1 day"}
"""Of any such table: each checkpoint repeats which files were merged in that time, 2.5 s and 85 MB a million."""
CHECKPOINT_EVERY, SHORTENED_AT = 100, 50
"""Versions between two checkpoints, which deltalake makes by itself, and which of those shortens the log: one that
makes none, since who begins to read just then needs what that checkpoint has summed up.
"""
SUMMED_UP_S = 5.0
"""Who began to read before a checkpoint has read what it needs from a folder after so long. Eight workers that share a
table are at the next checkpoint after twice that.
"""
_REMOVED = re.compile(r"Invalid table version|_delta_log/\d{20}\S* not found", re.IGNORECASE)
"""What deltalake says of a commit that it looks for and that is not there any more."""
SHARES_MAX = 8
"""Workers that may share a table which was taken: what a commit that takes it has to move."""


class LakeTable(StoredTable):
    """A Delta table by its path in the offline store, to be written and read. May be used by several threads.

    One that is `busy` gets a commit a second, and is read as of its newest versions.
    """

    def __init__(
        self,
        location: Location,
        path: str,
        schema: pa.Schema,
        *,
        statistics: Sequence[str],
        names: Names | None = None,
        busy: bool = False,
    ) -> None:
        super().__init__(location, path, schema, names=names)
        self._busy = busy
        self._short_log = busy and not location.options  # a bucket is listed from the last checkpoint on
        self._statistics = [name for name in statistics if name in schema.names]
        self._appends = 0
        self._log = DeltaLog(location, path)
        self._known = KnownPositions(self._log)
        self._taken: dict[str, int] = {}
        self._brought: dict[str, int] = {}
        """Where this object has brought positions that never go back: those of a table with a short log."""

    def position(self, app_id: str) -> int | None:
        """The version that an app_id was brought to; `None` if it never was."""
        if (snapshot := self.snapshot()) is None:
            return None
        with self.location.reached(f"reading the log of {self.path}"):
            return snapshot.transaction_version(app_id)

    def positions(self) -> dict[str, int]:
        """The versions of all app_ids, but for those of upkeep."""
        return {name: to for name, to in self._transactions().items() if not name.startswith(CLUSTERED)}

    def append(self, prepare: Callable[[Position], Commit | None]) -> bool:
        """Append what `prepare` makes of the positions, atomically with the new ones; False where that is nothing.

        `prepare` is called again after a conflict. Raises `StoreError` when conflicts do not end.
        """

        def write(table: DeltaTable) -> bool:
            before, commit = table.version(), self.prepared(prepare, lambda app_id: self._position(table, app_id))
            if commit is not None:
                self._write(table, commit, mode="append")
                self._known.moved(before, table, commit.positions)
                self._brought |= commit.positions if self._short_log else {}
            return commit is not None

        appended = bool(self._commit(write))
        self._appends += appended
        if appended and self._appends % COMPACT_EVERY == 0:
            self.compact()
        if appended and self._table is not None and self._table.version() % CHECKPOINT_EVERY == SHORTENED_AT:
            self.shorten_log()
        return appended

    def take(self, name: str, number: int) -> None:
        """Take the table under a name: from now on nobody who took it with a smaller number appends to it, nor any of
        the workers that share it.

        Raises `FencedError`, now or at an append of this object, where somebody took it with a greater one.
        """

        def prepare(position: Position) -> Commit | None:
            known = position(name) or 0
            if known > number:
                raise self._fenced()
            if known == number:
                return None
            return Commit(self.schema.empty_table(), dict.fromkeys([name, *shares_of(name)], number))

        self.append(prepare)
        self._taken[name] = number

    def share(self, name: str, number: int, worker: int) -> None:
        """Append as one of the workers of whoever took the table under a name with this number.

        Commits of different workers don't meet each other, and all of them meet those of the next that takes it.
        """
        self._taken[shares_of(name)[worker]] = number

    def prepared(self, prepare: Callable[[Position], Commit | None], position: Position) -> Commit | None:
        """What `prepare` makes of the positions, under everything that was taken.

        The numbers travel with each commit, so Delta refuses it if one of them has changed since `position` was read.
        """
        if any(position(name) != number for name, number in self._taken.items()):
            raise self._fenced()
        commit = prepare(position)
        return None if commit is None else replace(commit, positions={**commit.positions, **self._taken})

    def compact(self) -> None:
        """Merge small files of dates that are in no order; rows and positions stay.

        Left for later where another commit comes in between.
        """
        dates = sorted(self.unordered())
        if not dates:
            return
        with self._lock, self.location.reached(f"compacting {self.path}"):
            snapshot = self.snapshot()
            if snapshot is not None:
                with contextlib.suppress(CommitFailedError), _conflicts():
                    snapshot.optimize.compact([(DATE, "in", dates)], writer_properties=_WRITER)

    def unordered(self, by: Clustering | None = None) -> dict[str, int]:
        """The dates that have got or lost rows since their files were put in order (in this one, or in any), with the
        rows that they have.
        """
        known = {name.removeprefix(CLUSTERED): mark for name, mark in self._transactions().items()}
        dates = self.rows_by_date()
        if by is None:
            return {date: rows for date, rows in dates.items() if known.get(date, -1) >> MARK_BITS != rows}
        return {date: rows for date, rows in dates.items() if known.get(date) != by.mark(rows)}

    def cluster(self, date: str, by: Clustering) -> None:
        """Write the rows of a date anew, in order; whoever appends to it meanwhile makes it be done again.

        Rows are read of the very version that they are replaced in, so none can come in between unseen: Delta refuses
        the commit. Raises `StoreError` when conflicts do not end.
        """

        def write(table: DeltaTable) -> None:
            dataset = dataset_of(table, f"{DATE} = '{date}'")
            rows = by.in_order(dataset.to_table(filter=pc.field(DATE) == date))
            write_deltalake(
                table,
                with_columns(rows, dataset.schema),
                mode="overwrite",
                schema_mode=None if by.column in dataset.schema.names else "merge",
                predicate=f"{DATE} = '{date}'",
                target_file_size=CLUSTERED_FILE_BYTES,
                writer_properties=_CLUSTERED_WRITER,
                commit_properties=Commit(rows, {CLUSTERED + date: by.mark(len(rows))}).properties,
            )

        self._commit(write)

    def remove(self, predicate: str, positions: Mapping[str, int]) -> None:
        """Remove the rows that a SQL predicate is true for, atomically with positions."""

        def write(table: DeltaTable) -> None:
            version = table.version()
            table.delete(predicate, commit_properties=Commit(None, positions).properties)
            if table.version() == version:  # no row met it, so deltalake commits nothing
                self._write(table, Commit(self.schema.empty_table(), positions), mode="append")

        self._commit(write)

    def vacuum(self, hours: int, *, dry_run: bool) -> int:
        """Remove files that no version of the last `hours` has and that are as old; how many there are."""
        with self._lock, self.location.reached(f"vacuuming {self.path}"):
            snapshot = self.snapshot()
            if snapshot is None:
                return 0
            return len(snapshot.vacuum(hours, dry_run=dry_run, enforce_retention_duration=False, full=True))

    def checkpoint(self) -> None:
        """Sum the log up, and remove what is older than Delta keeps (`delta.logRetentionDuration`, or 30 days)."""
        self.shorten_log()
        with self._lock, self.location.reached(f"summing up the log of {self.path}"):
            snapshot = self.snapshot()
            if snapshot is not None:
                snapshot.create_checkpoint()
                if not self._short_log:
                    snapshot.cleanup_metadata()

    def shorten_log(self) -> None:
        """Remove the commits that were summed up a while ago, of a busy table in a folder (docs/adr/0272).

        Left for later where another commit comes in between.
        """
        if not self._busy:
            return
        with self._lock, self.location.reached(f"shortening the log of {self.path}"):
            snapshot = self.snapshot()
            if snapshot is None or not self._is_summed_up():
                return
            with contextlib.suppress(CommitFailedError), _conflicts():
                known, wanted = snapshot.metadata().configuration, self._properties()
                if lacking := {name: value for name, value in wanted.items() if name not in known}:
                    snapshot.alter.set_table_properties(lacking)
                if self._short_log:
                    snapshot.cleanup_metadata()

    def files(self, instant: str) -> DataFiles:
        """Files to be written now, by the instant that `date` is the date of, and committed later."""
        self._evolve()
        return DataFiles(self.location, self.path, instant=instant, statistics=self._statistics)

    def append_files(self, files: DataFiles, positions: Mapping[str, int]) -> bool:
        """Append what was written, and move positions that are not there yet; False where one of them is."""

        def write(table: DeltaTable) -> bool:
            if any(table.transaction_version(name) is not None for name in positions):
                return False
            table.create_write_transaction(
                [*files.added],
                "append",
                pa.schema(table.schema()),
                partition_by=[DATE],
                commit_properties=Commit(None, positions).properties,
            )
            return True

        return bool(self._commit(write))

    def overwrite(self, predicate: str, commit: Commit, before: Callable[[], None] = lambda: None) -> None:
        """Replace the rows that a SQL predicate is true for, atomically. All new rows must meet it.

        `before` is called ahead of every try: what it reads of the table is what this try replaces.
        """

        def write(table: DeltaTable) -> None:
            before()
            self._write(table, commit, mode="overwrite", predicate=predicate)

        self._commit(write)

    def _position(self, table: DeltaTable, app_id: str) -> int | None:
        """The version that an app_id was brought to. Raises `StoreError` where this object has brought it further: a
        commit that was put where one had been removed from the log is nobody's.
        """
        found, brought = self._known.of(table, app_id), self._brought.get(app_id)
        if brought is not None and (found is None or found < brought):
            raise StoreError(
                f"Table {self.path!r} lacks what was committed to it: {app_id!r} is at {found}, and was brought "
                f"to {brought}. It was restored, or this process was held up for minutes. Start it again: it goes on "
                "from what is there"
            )
        return found

    def _properties(self) -> dict[str, str]:
        """How long Delta remembers what was."""
        return {**(REMOVED_KEPT if self._busy else {}), **(LOG_KEPT if self._short_log else {})}

    def _is_summed_up(self) -> bool:
        """Whether the last checkpoint is there for a while."""
        (found,) = self.location.files(self.path).get_file_info([f"{LOG}/_last_checkpoint"])
        return found.mtime_ns is not None and time.time() - found.mtime_ns / 1e9 > SUMMED_UP_S

    def _transactions(self) -> dict[str, int]:
        for _ in range(ATTEMPTS_MAX):
            if (snapshot := self.snapshot()) is None:
                return {}
            with (
                self.location.reached(f"reading the log of {self.path}"),
                contextlib.suppress(FileNotFoundError),  # summed up since
            ):
                return self._log.transactions(snapshot.version())
        raise StoreError(f"The log of table {self.path!r} lacks commits after its last checkpoint")

    def _fenced(self) -> FencedError:
        return FencedError(
            f"Another flow took over table {self.path!r}. This one must stop; nothing of this commit was written."
        )

    def _commit(self, write: Callable[[DeltaTable], Any]) -> Any:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(CommitFailedError),
            stop=tenacity.stop_after_attempt(ATTEMPTS_MAX),
            wait=tenacity.wait_random_exponential(multiplier=0.02, max=1),
            reraise=True,
        )
        try:
            return attempts(self._try, write)
        except CommitFailedError as error:
            raise StoreError(
                f"Table {self.path!r}: {ATTEMPTS_MAX} commits in a row met others; last: {error}"
            ) from error

    def _try(self, write: Callable[[DeltaTable], Any]) -> Any:
        with self._lock:
            table = self.snapshot() or self._create()
            conflict: CommitFailedError | None = None
            with self.location.reached(f"writing {self.path}"):
                try:
                    with _conflicts():
                        return write(table)
                except CommitFailedError as error:
                    conflict = error
            raise conflict

    def _evolve(self) -> None:
        """Make the table, or give it the columns that it lacks."""
        empty = Commit(self.schema.empty_table())
        snapshot = self.snapshot()
        if snapshot is None or set(self.schema.names) - set(pa.schema(snapshot.schema()).names):
            self.append(lambda position: empty)

    def _create(self) -> DeltaTable:
        settings = {"delta.dataSkippingStatsColumns": ",".join(self._statistics)} | self._properties()
        conflict: CommitFailedError | None = None
        with self.location.reached(f"making {self.path}"):
            self.location.owner.claim()
            try:
                self._table = DeltaTable.create(
                    self.location.at(self.path),
                    self.schema,
                    mode="ignore",
                    partition_by=[DATE],
                    configuration=settings,
                    storage_options=dict(self.location.options),
                )
                return self._table
            except CommitFailedError as error:  # another writer made it at the same moment
                conflict = error
        raise conflict

    def _write(self, table: DeltaTable, commit: Commit, **how: Any) -> None:
        rows = commit.rows
        known = set(pa.schema(table.schema()).names)
        if isinstance(rows, pa.Table) and known - set(rows.column_names):
            rows = with_columns(rows, pa.schema(table.schema()))
        write_deltalake(
            table,
            rows,
            schema_mode="merge" if set(rows.schema.names) - known else None,
            writer_properties=_APPENDER if how["mode"] == "append" else _WRITER,
            commit_properties=commit.properties,
            **how,
        )


@contextlib.contextmanager
def _conflicts() -> Iterator[None]:
    """Within it, what was removed from the log meanwhile is a conflict with whoever went on."""
    try:
        yield
    except (DeltaError, OSError) as error:
        if not _REMOVED.search(str(error)):
            raise
        raise CommitFailedError(str(error)) from error


def shares_of(name: str) -> list[str]:
    """The positions under which workers share a table that was taken under a name."""
    return [f"{name}/{worker}" for worker in range(SHARES_MAX)]
