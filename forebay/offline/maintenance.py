"""Maintenance: what is not kept goes, then each table is put in order. `forebay maintain` and Dagster do this.

    retention    per source and batch view that declare `keep`, what is older goes      (`forebay.offline.retention`)
    upkeep       per table: order, compaction, vacuum, log                              (`forebay.offline.upkeep`)

Retention comes first, so that no date is put in order that goes. Lives here: which tables that is, and in which order.
Invariant: a row goes only where a declaration says so; everything may be done again, and beside any writer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from forebay.errors import RequestError, UnknownNameError
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from forebay.language.view import BatchView
from forebay.offline.retention import Removed, remove_old, remove_superseded
from forebay.offline.tables import OfflineStore
from forebay.offline.upkeep import VACUUM_HOURS, VACUUM_HOURS_MIN, Kept, keep_up, tables


class Maintenance:
    """The maintenance of some tables of a deployment, by their paths (such as `events/purchases`); of all by default.

    With `dry_run` it only says what would be done. Raises `UnknownNameError`, and `RequestError` for garbage that is
    too young to go.
    """

    def __init__(
        self,
        store: OfflineStore,
        definitions: Definitions,
        names: Sequence[str] = (),
        *,
        older_than_hours: int = VACUUM_HOURS,
        dry_run: bool = False,
    ) -> None:
        if older_than_hours < VACUUM_HOURS_MIN:
            raise RequestError(
                f"Garbage of {older_than_hours} hours cannot be removed; expected {VACUUM_HOURS_MIN} or more, since "
                "what is being written or read now would be removed"
            )
        found = {table.path: (table, order) for table, order in tables(store, definitions)}
        for name in names:
            if name not in found:
                raise UnknownNameError.of("table", name, found)
        self._tables = {name: found[name] for name in names or found}
        self._store, self._definitions = store, definitions
        self._hours, self._dry_run = older_than_hours, dry_run

    def remove_unkept(self, now_us: int) -> Iterator[Removed]:
        """Remove what sources do not keep whose archive is chosen, and batch views whose replaced rows are."""
        for source in self._definitions.sources.values():
            if isinstance(source, EventSource) and self._store.archive(source).table.path in self._tables:
                removed = remove_old(self._store, self._definitions, source, dry_run=self._dry_run)
                yield from () if removed is None else (removed,)
        for view in self._definitions.views.values():
            if isinstance(view, BatchView) and self._store.rows(view).superseded.path in self._tables:
                removed = remove_superseded(self._store, view, now_us, dry_run=self._dry_run)
                yield from () if removed is None else (removed,)

    def keep_up(self) -> Iterator[Kept]:
        """Put the tables in order, one after another."""
        for table, order in self._tables.values():
            yield keep_up(table, order, hours=self._hours, dry_run=self._dry_run)
