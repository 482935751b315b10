"""The newest row of every entity of a batch view, from a table of any number of rows.

    keys, event_timestamp, created_timestamp of all rows, piece by piece   →   the best row of each entity so far
    all columns, of these rows alone                                       →   what is published

Where the table is much longer than its entities are many, what was found is kept (`forebay.offline.newest_table`), and
the next time only the dates are read whose files have changed since. An entity whose kept row lies in such a date and
finds no row there that is as good is looked up in the others:

    kept            ann: day 1   bob: day 3   eve: day 3        since then day 3 was replaced and day 4 came in
    days 3 and 4                 bob: day 4                     bob's is better than his kept one; ann keeps hers
    days 1 and 2                              eve: day 2        looked up, by the hash of her key

Lives here: what a publication reads of `features/<view>@<v>`. Invariants: what was kept changes no row of the result;
memory is that of the entities, not of the rows. Which row is the best is said by `forebay.core.asof`: of rows that are
alike in both instants that of the later date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from forebay.backfill.tiles import Entities
from forebay.core.asof import Best
from forebay.core.identity import entity_keys
from forebay.ingest.batch import INSTANT
from forebay.language.view import BatchView
from forebay.offline.archive import dates_of
from forebay.offline.clustering import Clustering, Hashes, dataset_of, near
from forebay.offline.data_files import DATE
from forebay.offline.newest_table import Newest, files_by_date
from forebay.offline.numbered import NumberedRows
from forebay.offline.rows_table import CREATED_TIMESTAMP, EVENT_TIMESTAMP, PARTITION_START, rows_schema
from forebay.offline.tables import OfflineStore

KEPT_ROWS = 1_000_000
"""Of a table with fewer rows, all of them are read in a second."""
KEPT_TIMES = 8
"""So many rows of each entity make it worth while to keep one: all columns of it are read and written each time."""
CHANGED_SHARE = 0.5
"""Where more rows lie in dates that have changed, all are read at once."""
LOOKED_UP_MAX = 10_000
"""Of more entities than this the rows are hardly fewer than all."""
DECIDING = [EVENT_TIMESTAMP, CREATED_TIMESTAMP, PARTITION_START]


@dataclass(frozen=True)
class Found:
    """The newest rows, of how many that were looked at."""

    rows: pa.Table
    looked_at: int


def newest_rows(store: OfflineStore, view: BatchView) -> Found:
    """One row per entity that has any: by `event_timestamp`, of equal ones by `created_timestamp`."""
    lake, kept = store.rows(view).table, store.newest(view)
    snapshot = lake.snapshot()
    if snapshot is None:
        return Found(lake.schema.empty_table(), 0)
    with lake.location.reached(f"reading {lake.path}"):
        version = RowsAt(view, snapshot, store.threads, remote=bool(lake.location.options))
        before = kept.before(snapshot)
        found = None if before is None else version.since(before)
        if found is None:
            found = version.newest()
    if version.rows >= max(KEPT_ROWS, KEPT_TIMES * len(found.rows)) and (before is None or before.changed):
        kept.replace(found.rows, snapshot)
    return found


class RowsAt:
    """The rows of a view as of one version of its table."""

    def __init__(self, view: BatchView, snapshot: DeltaTable, threads: int, *, remote: bool) -> None:
        self._threads, self._remote = threads, remote
        self._view, self._dataset, self._schema = view, dataset_of(snapshot), rows_schema(view)
        self._names = [name for name in self._schema.names if name != DATE]
        self._rows = {date: sum(files.values()) for date, files in files_by_date(snapshot).items()}
        self.rows = sum(self._rows.values())

    def newest(
        self, where: pc.Expression | None = None, hashes: Hashes | None = None, only: pa.Array | None = None
    ) -> Found:
        """The newest row of each entity, or of `only` some, among those that meet a condition on their date."""
        entities, best = Entities(), Best(0)
        condition = near(self._dataset, where, hashes)
        rows = NumberedRows(self._dataset, condition, self._schema, self._threads, remote=self._remote)
        for number, piece in rows.pieces([*self._view.entity.keys, EVENT_TIMESTAMP, CREATED_TIMESTAMP]):
            keys = _keys(self._view, piece)
            keyed = keys.is_valid() if only is None else pc.is_in(keys, only)
            code = _codes(entities, keys.filter(keyed))
            best = _with_room(best, len(entities.keys))
            mine = np.flatnonzero(np.asarray(keyed))
            event_us, created_us = (_us(piece, name)[mine] for name in (EVENT_TIMESTAMP, CREATED_TIMESTAMP))
            best.offer(code, event_us, created_us, number + mine)
        return Found(rows.take(np.sort(best.row), self._names), rows.rows)

    def since(self, before: Newest) -> Found | None:
        """The newest rows, by what they were before; `None` where too much has changed for that."""
        dates = pa.array(sorted(before.changed), pa.string())
        changed = pc.field(DATE).isin(dates)
        if sum(self._rows.get(date, 0) for date in before.changed) > CHANGED_SHARE * self.rows:
            return None
        inside = self.newest(changed)
        gone = pc.is_in(dates_of(before.rows[PARTITION_START]), dates)
        lost = self._without_better(before.rows.filter(gone), inside.rows)
        if len(lost) > LOOKED_UP_MAX:
            return None
        parts, looked_at = [before.rows.filter(pc.invert(gone)), inside.rows], len(before.rows) + inside.looked_at
        if len(lost):
            hashes = Clustering(tuple(self._view.entity.keys)).of({name: lost[name] for name in self._view.entity.keys})
            outside = self.newest(~changed, hashes, _keys(self._view, lost))
            parts, looked_at = [*parts, outside.rows], looked_at + outside.looked_at
        return Found(self._best_of(parts), looked_at)

    def _without_better(self, gone: pa.Table, there: pa.Table) -> pa.Table:
        """The rows that are gone to whose entity none is left that is as good, and of no earlier partition."""
        place = pc.index_in(_keys(self._view, gone), _keys(self._view, there))
        found = np.asarray(place.is_valid())
        rows = np.asarray(place.fill_null(0))
        settled, equal = np.zeros(len(gone), np.bool_), found.copy()
        for name in DECIDING if len(there) else ():
            was, now = _us(gone, name), _us(there, name)[rows]
            settled |= equal & (now > was)
            equal &= now == was
        return gone.filter(pa.array(~(settled | equal)))

    def _best_of(self, parts: Sequence[pa.Table]) -> pa.Table:
        """The newest row of each entity among some."""
        rows = pa.concat_tables(parts).sort_by(PARTITION_START)
        entities = Entities()
        code = _codes(entities, _keys(self._view, rows))
        best = Best(len(entities.keys))
        best.offer(code, _us(rows, EVENT_TIMESTAMP), _us(rows, CREATED_TIMESTAMP), np.arange(len(rows)))
        return rows.take(np.sort(best.row))


def _keys(view: BatchView, rows: pa.Table) -> pa.Array:
    return entity_keys(view.entity, {name: rows[name] for name in view.entity.keys})


def _codes(entities: Entities, keys: pa.Array) -> npt.NDArray[np.int64]:
    coded = keys.dictionary_encode()
    code: npt.NDArray[np.int64] = entities.codes(coded.dictionary.to_pylist())[np.asarray(coded.indices)]
    return code


def _us(rows: pa.Table, name: str) -> npt.NDArray[np.int64]:
    instants: npt.NDArray[np.int64] = np.asarray(rows[name].cast(INSTANT).cast(pa.int64()))
    return instants


def _with_room(best: Best, places: int) -> Best:
    """The same, with room for so many entities."""
    more = Best(places)
    known = len(best.row)
    more.event_us[:known], more.created_us[:known], more.row[:known] = best.event_us, best.created_us, best.row
    return more
