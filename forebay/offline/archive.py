"""The archive of a source, `events/<source>`: every event once, before any split, as it was when it arrived.

Columns: the source's, `event_id`, `source_partition`, `source_offset`, `arrived_at`, `date` (the UTC date of the
event). Positions: each source partition, brought to the next offset that it lacks, `<partition>/watermark`, the newest
event of it, `<partition>/heartbeat`, up to where it is known that nothing more came, and `<partition>/bookmark`, where
that next offset begins in a file; and `flow`, the number of the flow that may append, with `flow/<n>` for each of its
workers. Whoever appends a range that overlaps what is there adds only the rest, so two writers of one partition leave
what one would have left. A file that is loaded is a partition `load:<hash of its bytes>`, dead letters that became
events are the partition `revived`: both without a watermark.
"""

from __future__ import annotations

import functools
import operator
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.errors import ConfigError, RequestError
from forebay.ingest.batch import EVENT_ID, INSTANT, SOURCE_OFFSET, EventBatch, event_schema
from forebay.instants import DAY_US, SECOND_US, day_text, day_us, duration_text, instant_text
from forebay.language.limits import Limit
from forebay.language.source import EventSource
from forebay.offline.clustering import Clustering, Hashes
from forebay.offline.commit import Commit, Position
from forebay.offline.data_files import DATE, in_order
from forebay.offline.lake_table import LakeTable, shares_of
from forebay.offline.location import Location
from forebay.offline.reading import Reading
from forebay.offline.shards import Shards
from forebay.offline.stored_table import between_dates

SOURCE_PARTITION, ARRIVED_AT = "source_partition", "arrived_at"
WATERMARK, HEARTBEAT, BOOKMARK = "/watermark", "/heartbeat", "/bookmark"
FLOW = "flow"
"""The number of the flow that may append; no partition is named so (theirs end in `:<number>` or a file's suffix)."""
LOAD = "load:"
REVIVED = "revived"
"""The partition of dead letters that became events (`forebay.offline.revived`); its order says nothing of time."""
RETAINED = "retained"
"""The first midnight of which events are kept, once some were removed (`forebay.offline.retention`); no partition's."""
FLOWS = frozenset([FLOW, *shares_of(FLOW)])
"""Positions that are no partition's."""
_EARLIEST_US = -(2**62)
_LOADED = re.compile(rf"{LOAD}[0-9a-f]{{16}}")
"""Exactly: a Redis Stream or topic may be named `load`, and has partitions `load:0`, `load:1` …"""


@dataclass(frozen=True)
class PartitionPosition:
    """How far a stream partition is archived: the next offset that is not, the newest event that is, and the instant up
    to which a heartbeat has moved it since (`None`: no event, no heartbeat).

    The bookmark is that of an offset that was the next one once, and may be no longer.
    """

    next_offset: int = 0
    newest_us: int | None = None
    heartbeat_us: int | None = None
    bookmark: int | None = None

    @property
    def watermark_us(self) -> int | None:
        """The later of its newest event and its heartbeat; `None` before its first event."""
        if self.newest_us is None or self.heartbeat_us is None:
            return self.newest_us
        return max(self.newest_us, self.heartbeat_us)


class Archive:
    """The archive of one source; get it from `OfflineStore.archive`. `limits` bounds columns of loaded files."""

    def __init__(self, location: Location, source: EventSource, limits: Mapping[str, Limit] | None = None) -> None:
        self.source = source
        self.limits = limits or {}
        self.table = LakeTable(
            location,
            f"events/{source.name}",
            archive_schema(source),
            statistics=[source.timestamp, SOURCE_OFFSET, ARRIVED_AT],
            busy=True,
            names={name: names for name in source.schema if len(names := source.names_of(name)) > 1},
        )

    def append(self, batches: Sequence[EventBatch], arrived_at_us: int) -> int:
        """Append what the archive lacks of some batches, in one commit with their positions; how many rows it was."""
        added = 0

        def prepare(position: Position) -> Commit | None:
            nonlocal added
            added = 0
            ends: dict[str, int] = {}
            for batch in batches:
                ends[batch.partition] = max(batch.next_offset, ends.get(batch.partition, 0))
            since = {name: position(name) or 0 for name in sorted(ends)}
            positions = {name: end for name, end in ends.items() if end > since[name]}
            if not positions:
                return None
            parts = _each_once(batches, since)
            rows = archived(self.source, parts, arrived_at_us)
            added = len(rows)
            marks = {
                batch.partition + BOOKMARK: batch.bookmark
                for batch in parts
                if batch.bookmark is not None and batch.next_offset == positions.get(batch.partition)
            }
            return Commit(rows, positions | marks | self._watermarks(parts, position))

        self.table.append(prepare)
        return added

    def flow(self) -> int:
        """The number of the flow that took it last; 0 if none has."""
        return self.table.position(FLOW) or 0

    def stored_otherwise(self) -> dict[str, str]:
        """The declared columns that it holds as another type, and as which: they were declared otherwise once."""
        stored, declared = self.table.stored_schema(), archive_schema(self.source)
        found = {field.name: field.type for field in stored if field.name in self.source.schema}
        return {name: str(kind) for name, kind in found.items() if _plain(kind) != _plain(declared.field(name).type)}

    def check_types(self) -> None:
        """Raise `ConfigError` where events cannot be appended as they are: values would be cut to what is stored."""
        for name, kind in self.stored_otherwise().items():
            raise ConfigError(
                f"The archive of source {self.source.name!r} holds column {name!r} as {kind}, and it is declared "
                f"{self.source.schema[name]}: declare it under another name, such as '{name}_2'"
            )

    def take(self, number: int) -> None:
        """Take it for a flow: those with smaller numbers append nothing more. Raises `FencedError`, and `ConfigError`
        as `check_types` does.
        """
        self.check_types()
        self.table.take(FLOW, number)

    def share(self, number: int, worker: int) -> None:
        """Append as one of the workers of the flow that took it."""
        self.table.share(FLOW, number, worker)

    def check_owned(self) -> None:
        """Raise `FencedError` where another flow has taken the table since this one did."""
        self.table.prepared(lambda position: None, self.table.position)

    def next_offset(self, partition: str) -> int:
        """The first offset of a partition that is not archived."""
        return self.table.position(partition) or 0

    def positions(self) -> dict[str, PartitionPosition]:
        """How far each stream partition is archived."""
        found = self.table.positions()
        others = {name for name in found if is_loaded(name) or _is_about(name, found)} | {RETAINED}
        names = [name for name in found if name not in FLOWS | others]
        return {
            name: PartitionPosition(found[name], *(found.get(name + kind) for kind in (WATERMARK, HEARTBEAT, BOOKMARK)))
            for name in names
        }

    def watermark_us(self) -> int | None:
        """The least of the stream partitions' watermarks; `None` where no stream has run."""
        return least_watermark_us(self.positions().values())

    def beat(self, heartbeats: Mapping[str, int]) -> None:
        """Move partitions that were read to their end, and all of it archived, on to an instant; never back."""

        def prepare(position: Position) -> Commit | None:
            before = {name: position(name + HEARTBEAT) for name in heartbeats}
            moved = {name: us for name, us in heartbeats.items() if (old := before[name]) is None or us > old}
            positions = {name + HEARTBEAT: us for name, us in moved.items()}
            return Commit(archive_schema(self.source).empty_table(), positions) if positions else None

        self.table.append(prepare)

    def recent(self, newest: Mapping[str, int], within_us: int) -> Iterator[tuple[str, pa.Table]]:
        """Instant, `event_id` and offset of the archived events of some partitions, given the newest event of each: of
        each those that are not further behind it.

        They come by partition, piece by piece, in no particular order. A scan ends with the newest events that it is
        for: of a source with a file for each day it would else read, for each file, all dates that followed.
        """
        days: dict[int, dict[str, int]] = defaultdict(dict)  # partitions that end at about the same time: one scan
        for name, us in newest.items():
            days[us // DAY_US][name] = us
        instant, columns = self.source.timestamp, [self.source.timestamp, EVENT_ID, SOURCE_OFFSET]
        for group in days.values():
            since = {name: max(us - within_us, _EARLIEST_US) for name, us in group.items()}
            start_us, last_us = min(since.values()), max(group.values())
            where = pc.field(SOURCE_PARTITION).isin(list(group)) & (pc.field(instant) >= pa.scalar(start_us, INSTANT))
            for name, rows in self._by_partition(columns, where, _dates(start_us, last_us)):
                if since[name] > start_us:
                    rows = rows.filter(pc.greater_equal(rows[instant], pa.scalar(since[name], INSTANT)))
                yield name, rows

    def scan(
        self,
        columns: Sequence[str],
        start_us: int | None = None,
        end_us: int | None = None,
        entities: pa.Table | None = None,
    ) -> pa.Table:
        """As `reading`, all at once, in no particular order."""
        return self.reading(columns, start_us, end_us, entities).table()

    def reading(
        self,
        columns: Sequence[str],
        start_us: int | None = None,
        end_us: int | None = None,
        entities: pa.Table | None = None,
    ) -> Reading:
        """Columns of the events in `[start, end)`.

        `entities` (a few key columns, one row per entity) leaves out events of others where that spares reading; it may
        leave some in.
        """
        where = self._where(start_us, end_us, entities)
        return self.table.reading(columns, where, _dates(start_us, end_us), _hashes(entities))

    def dates(self, start_us: int | None, end_us: int | None) -> str | None:
        """The predicate of the dates that hold the events in `[start, end)`, for `table`."""
        return _dates(start_us, end_us)

    def shards(
        self, keys: Iterable[str], count: int, where: pc.Expression, start_us: int | None, end_us: int, piece: int
    ) -> Shards:
        """The events that meet a condition, of the dates of `[start, end)`, by shards of the entities of some keys, in
        pieces of some `piece` rows.
        """
        first = "0001-01-01" if start_us is None else _day(start_us)
        return Shards(self.table, event_order(self.source, keys), where, first, _day(end_us), count, piece)

    def size(self) -> tuple[int, int] | None:
        """Rows and bytes; `None` where nothing was archived yet."""
        return self.table.size()

    def events_by_date(self) -> dict[str, int]:
        """Archived events of each UTC date that has any."""
        return self.table.rows_by_date()

    def retained_us(self) -> int | None:
        """The first instant of which events are kept; `None` where none was ever removed."""
        return self.table.position(RETAINED)

    def check_retained(self, first_us: int | None, what: str) -> None:
        """Raise `RequestError` where events from an instant on (`None`: all) are needed and some of them were removed.

        What is read before it is asked is whole where this does not raise, whoever removes events meanwhile.
        """
        retained_us = self.retained_us()
        if retained_us is not None and (first_us is None or first_us < retained_us):
            needed = "all events" if first_us is None else f"the events from {instant_text(first_us)} on"
            later = "" if first_us is None else f"; ask for instants that are {_lag(retained_us - first_us)} later"
            raise RequestError(
                f"{what} needs {needed} of source {self.source.name!r}, whose archive keeps those from "
                f"{instant_text(retained_us)} on{later}"
            )

    def loaded(self, start_us: int, days: Collection[str] = ()) -> dict[str, int]:
        """The newest instant of the events that were loaded from files, by date: of those from an instant on, and of
        some dates before it.

        Where nothing was ever loaded, nothing is read.
        """
        files = [name for name in self.table.positions() if is_loaded(name)]
        if not files:
            return {}
        name, found = self.source.timestamp, dict[str, int]()
        where = pc.field(SOURCE_PARTITION).isin(files)
        if start_us > _EARLIEST_US:
            some = pc.field(DATE).isin(pa.array(sorted(days), pa.string()))
            where &= (pc.field(name) >= pa.scalar(start_us, INSTANT)) | some
        first_us = min([max(start_us, _EARLIEST_US), *map(day_us, days)])
        for rows in self.table.reading([DATE, name], where, _dates(first_us, None)).batches():
            newest = rows.group_by(DATE).aggregate([(name, "max")])
            instants = newest[f"{name}_max"].cast(pa.int64()).to_pylist()
            for day, us in zip(newest[DATE].to_pylist(), instants, strict=True):
                found[day] = max(us, found.get(day, us))
        return found

    def _where(self, start_us: int | None, end_us: int | None, entities: pa.Table | None) -> pc.Expression | None:
        instant = pc.field(self.source.timestamp)
        conditions = [] if start_us is None else [instant >= pa.scalar(start_us, INSTANT)]
        if end_us is not None:
            conditions.append(instant < pa.scalar(end_us, INSTANT))
        if entities is not None:
            conditions += [pc.field(name).isin(entities[name].combine_chunks()) for name in entities.column_names]
        return functools.reduce(operator.and_, conditions) if conditions else None

    def _by_partition(
        self, columns: Sequence[str], where: pc.Expression, pruning: str | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """Rows piece by piece, each of one partition."""
        for rows in self.table.reading([*columns, SOURCE_PARTITION], where, pruning).batches():
            partition, rows = rows[SOURCE_PARTITION], rows.select(list(columns))
            names = pc.unique(partition).to_pylist()
            for name in names:
                yield name, rows if len(names) == 1 else rows.filter(pc.equal(partition, name))

    def _watermarks(self, batches: Sequence[EventBatch], position: Position) -> dict[str, int]:
        some = [batch for batch in batches if len(batch) and batch.partition != REVIVED]
        if not some:
            return {}
        instants = pa.concat_tables([batch.table.select([self.source.timestamp]) for batch in some])
        starts = np.cumsum([0, *map(len, some[:-1])])
        latest = np.maximum.reduceat(np.asarray(instants[self.source.timestamp].cast(pa.int64())), starts)
        newest: dict[str, int] = {}
        for batch, us in zip(some, latest.tolist(), strict=True):
            name = batch.partition + WATERMARK
            newest[name] = max(us, newest.get(name, us))
        before = {name: position(name) for name in newest}
        return {name: us for name, us in newest.items() if (known := before[name]) is None or us > known}


def first_kept(days: Iterable[str], retained_us: int | None) -> str | None:
    """The first of the dates that have archived events; not of what came later than it would be kept, which goes."""
    since = "" if retained_us is None else day_text(retained_us)
    return min((day for day in days if day >= since), default=None)


def is_loaded(partition: str) -> bool:
    """Whether a partition is a file that was loaded.

    >>> is_loaded("load:00ff00ff00ff00ff"), is_loaded("load:0")
    (True, False)
    """
    return _LOADED.fullmatch(partition) is not None


def least_watermark_us(positions: Iterable[PartitionPosition]) -> int | None:
    """The least watermark of partitions that have had an event; `None` where none has."""
    return min((one.watermark_us for one in positions if one.watermark_us is not None), default=None)


def _plain(kind: pa.DataType) -> pa.DataType:
    """A stored type, with all kinds of text alike."""
    text = pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return pa.string() if text else kind


def archive_schema(source: EventSource) -> pa.Schema:
    """The columns of a source's archive."""
    events = [field for field in event_schema(source) if field.name != SOURCE_OFFSET]
    own = [(SOURCE_PARTITION, pa.string()), (SOURCE_OFFSET, pa.int64()), (ARRIVED_AT, INSTANT), (DATE, pa.string())]
    return pa.schema([*events, *own])


def event_order(source: EventSource, keys: Iterable[str]) -> Clustering:
    """The order of events of a date, where they are in order for the entity with some keys."""
    return Clustering(tuple(keys), last=(source.timestamp,))


def archived(source: EventSource, batches: Sequence[EventBatch], arrived_at_us: int) -> pa.Table:
    """Batches as rows of the archive, by timestamp (and thereby by date)."""
    rows = pa.concat_tables([batch.table for batch in batches])
    of = pa.array(np.repeat(np.arange(len(batches)), [*map(len, batches)]))
    rows = rows.append_column(SOURCE_PARTITION, pa.array([batch.partition for batch in batches]).take(of))
    rows = rows.append_column(ARRIVED_AT, pa.repeat(pa.scalar(arrived_at_us, INSTANT), len(rows)))
    rows = rows.append_column(DATE, dates_of(rows[source.timestamp]))
    return in_order(rows.select(archive_schema(source).names), source.timestamp)


def dates_of(instants: pa.ChunkedArray) -> pa.ChunkedArray:
    """The UTC date of each instant, as text."""
    return pc.cast(pc.cast(instants, pa.date32()), pa.string())


def _each_once(batches: Iterable[EventBatch], since: Mapping[str, int]) -> list[EventBatch]:
    """The parts of some batches that neither the archive has, given how far that is, nor a batch before them."""
    parts, ends = list[EventBatch](), dict(since)
    for batch in batches:
        parts.append(_lacking(batch, ends[batch.partition]))
        ends[batch.partition] = max(batch.next_offset, ends[batch.partition])
    return parts


def _lacking(batch: EventBatch, since: int) -> EventBatch:
    """The part of a batch from an offset on."""
    if batch.first_offset >= since:
        return batch
    offsets = np.asarray(batch.table[SOURCE_OFFSET])
    table = batch.table.filter(pa.array(offsets >= since))
    return replace(batch, table=table, first_offset=since, next_offset=max(since, batch.next_offset))


def _is_about(name: str, known: Mapping[str, int]) -> bool:
    """Whether a position says something of a partition that has one of its own."""
    kinds = (WATERMARK, HEARTBEAT, BOOKMARK)
    return any(name.endswith(kind) and name.removesuffix(kind) in known for kind in kinds)


def _dates(start_us: int | None, end_us: int | None) -> str | None:
    if start_us is None and end_us is None:
        return None
    first = "0001-01-01" if start_us is None else _day(start_us)
    last = "9999-12-31" if end_us is None else _day(end_us)
    return between_dates(first, last)


def _hashes(entities: pa.Table | None) -> Hashes | None:
    if entities is None:
        return None
    return Clustering(tuple(entities.column_names)).of({name: entities[name] for name in entities.column_names})


def _lag(us: int) -> str:
    return duration_text(-(-us // SECOND_US) * SECOND_US)


def _day(us: int) -> str:
    """The date of an instant, within the years that there are."""
    try:
        return day_text(us)
    except OverflowError:
        return "0001-01-01" if us < 0 else "9999-12-31"
