"""The table `revived`: dead letters that are events after all, as a log that the stream reads like any other.

A letter is judged again when somebody asks for it: after its definition or its schema was mended, or when a clock has
come to where it was dated. Those that are events now get offsets of the partition `revived` of their source, in one
commit with the name of each letter, so that a letter is revived once however often, and by how many, it is asked for.
The stream does the rest, as with all partitions: it decodes, archives and applies them (docs/adr/0090).

    dead_letters   (source partition, offset) ──judged again──▶ revived   source, offset 0, 1, 2 … ──▶ the flow

Columns: `source`, `source_partition` and `source_offset` of the letter, `revived_offset`, `event` (JSON in the source's
columns; null where the archive holds the event already), `event_id`, `event_timestamp`, `revived_at`, `date` (on which
it was revived). The position `<source>` is the next offset.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.batch import (
    EVENT_BYTES_MAX,
    EVENT_ID,
    INSTANT,
    LETTER_BYTES_MAX,
    REVIVED_BYTES_MAX,
    SOURCE_OFFSET,
    EventBatch,
)
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Codec, Messages, decode_rows
from forebay.instants import day_text
from forebay.language.limits import Limit
from forebay.language.source import EventSource
from forebay.offline.archive import REVIVED, SOURCE_PARTITION, Archive, is_loaded
from forebay.offline.commit import Commit, Position
from forebay.offline.data_files import DATE
from forebay.offline.dead_letters import DeadLetters, Kept
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        (SOURCE_PARTITION, pa.string()),
        (SOURCE_OFFSET, pa.int64()),
        ("revived_offset", pa.int64()),
        ("event", pa.binary()),
        (EVENT_ID, pa.string()),
        ("event_timestamp", INSTANT),
        ("revived_at", INSTANT),
        (DATE, pa.string()),
    ]
)
LETTERS_MAX, BYTES_MAX = 1024, 64 * 1024 * 1024
"""Letters that are judged and committed together."""
Place = tuple[str, int]
"""The partition and the offset of a letter."""
Letter = tuple[str, str, int]
"""The source, the partition and the offset of a letter."""


@dataclass(frozen=True)
class Judge:
    """How the letters of a source are judged now: by its definition, at an instant. `codec` reads its messages where
    they are not JSON; letters of loaded files and of revived events always are.
    """

    source: EventSource
    now_us: int
    limits: Mapping[str, Limit] = field(default_factory=dict)
    codec: Codec | None = None

    def __call__(self, partition: str, letters: Sequence[tuple[int, bytes]]) -> tuple[EventBatch, Counter[str]]:
        """The events among some letters of a partition, by offset, and why the others are still none."""
        offsets = np.array([offset for offset, _ in letters], np.int64)
        lines = [raw for _, raw in letters]
        if self.codec is None or partition == REVIVED or is_loaded(partition):
            first, most = int(offsets[0]), REVIVED_BYTES_MAX if partition == REVIVED else EVENT_BYTES_MAX
            batch, dead = decode_json(
                self.source, partition, first, lines, self.now_us, self.limits, offsets=offsets, bytes_max=most
            )
        else:
            messages = Messages(self.source, partition, int(offsets[0]), lines, offsets)
            batch, dead = decode_rows(messages, self.codec(lines), self.now_us, self.limits)
        return batch, Counter(letter.reason for letter in dead)


@dataclass(frozen=True)
class Outcome:
    """What reviving did: letters that are events now, those that the archive holds already (of a source with
    `dedupe`), the others by the reason that holds now, and those of them that cannot be judged, because some of their
    bytes are gone: partition, offset and bytes.
    """

    revived: int
    duplicates: int
    left: Counter[str]
    cut: Sequence[tuple[str, int, int | None]] = field(default_factory=list)


def first_places(places: Mapping[Letter, Letter]) -> dict[Letter, Letter]:
    """Where each letter was first, of those that were revived: it may have been refused, and revived, several times.

    >>> first_places({("s", "revived", 0): ("s", "a:0", 7), ("s", "revived", 4): ("s", "revived", 0)})
    {('s', 'revived', 0): ('s', 'a:0', 7), ('s', 'revived', 4): ('s', 'a:0', 7)}
    """
    firsts: dict[Letter, Letter] = {}
    for to, place in sorted(places.items()):
        firsts[to] = firsts.get(place, place)
    return firsts


class Revived:
    """The revived letters of a deployment."""

    def __init__(self, location: Location) -> None:
        self.table = LakeTable(location, "revived", SCHEMA, statistics=["revived_offset", "revived_at"])

    def settled(self, source: str | None = None) -> set[Letter]:
        """Each letter that is one no more."""
        return set(self.places(source).values())

    def places(self, source: str | None = None) -> dict[Letter, Letter]:
        """Where each letter that was revived is in the partition `revived`, and where it was before."""
        names = ["source", "revived_offset", SOURCE_PARTITION, SOURCE_OFFSET]
        rows = self.table.reading(names, None if source is None else pc.field("source") == source).table()
        return {
            (of, REVIVED, to): (of, partition, offset)
            for of, to, partition, offset in zip(*(rows[name].to_pylist() for name in names), strict=True)
        }

    def end(self, source: str) -> int:
        """The offset behind the last one of a source."""
        return self.table.position(source) or 0

    def read(self, source: str, first_offset: int) -> pa.Table:
        """`revived_offset` and `event` from an offset on, in order."""
        where = (pc.field("source") == source) & (pc.field("revived_offset") >= first_offset)
        return self.table.reading(["revived_offset", "event", "revived_at"], where).table().sort_by("revived_offset")

    def revive(self, judge: Judge, letters: DeadLetters, archive: Archive, reason: str | None = None) -> Outcome:
        """Judge the letters of a source again, all or those with a reason; it may be interrupted and repeated."""
        revived, duplicates, left, cut = 0, 0, Counter[str](), list[tuple[str, int, int | None]]()
        for partition, group in self._open(letters, judge.source.name, reason):
            cut += [(partition, one.offset, one.size) for one in group if one.is_cut]
            left.update(one.reason for one in group if one.is_cut)
            whole = [(one.offset, one.raw) for one in group if not one.is_cut]
            if not whole:
                continue
            batch, still = judge(partition, whole)
            left += still
            added = self._append(batch, judge.now_us, archive)
            revived, duplicates = revived + added[0], duplicates + added[1]
        return Outcome(revived, duplicates, left, cut)

    def _open(self, letters: DeadLetters, source: str, reason: str | None) -> Iterator[tuple[str, list[Kept]]]:
        """The letters that are still ones, a group of one partition at a time."""
        settled = {(partition, offset) for _, partition, offset in self.settled(source)}
        places = [place for place in letters.places(source, reason) if place[:2] not in settled]
        for partition, group in itertools.groupby(places, lambda place: place[0]):
            for offsets in _groups((offset, size) for _, offset, size in group):
                yield partition, letters.at(source, partition, offsets)

    def _append(self, batch: EventBatch, now_us: int, archive: Archive) -> tuple[int, int]:
        """Revive the events of some letters that are not yet: how many, and how many of those are duplicates."""
        source, added = batch.source, (0, 0)
        offered = _rows(batch, now_us)
        held = _held(archive, offered) if source.dedupe is not None else set()

        def prepare(position: Position) -> Commit | None:
            nonlocal added
            mine = self.table.reading(
                [SOURCE_PARTITION, SOURCE_OFFSET, EVENT_ID, "event_timestamp"], pc.field("source") == source.name
            ).table()
            taken = set(zip(mine[SOURCE_PARTITION].to_pylist(), mine[SOURCE_OFFSET].to_pylist(), strict=True))
            known = held | (_identities(mine) if source.dedupe is not None else set())
            new = [place not in taken for place in zip(*_places(offered), strict=True)]
            rows = offered.filter(pa.array(new, pa.bool_()))
            if not len(rows):
                added = (0, 0)
                return None
            rows, twice = _without_repeated(rows, known) if source.dedupe is not None else (rows, 0)
            first = position(source.name) or 0
            numbers = pa.array(range(first, first + len(rows)), pa.int64())
            rows = rows.append_column("revived_offset", numbers).select(SCHEMA.names)
            added = (len(rows) - twice, twice)
            return Commit(rows.cast(SCHEMA), {source.name: first + len(rows)})

        if len(offered):
            self.table.append(prepare)
        return added


def _groups(letters: Iterable[tuple[int, int]]) -> Iterator[list[int]]:
    """Offsets of letters, of so many as are read together; `letters` are offsets and sizes."""
    offsets: list[int] = []
    held = 0
    for offset, size in letters:
        if offsets and (len(offsets) == LETTERS_MAX or held + min(size, LETTER_BYTES_MAX) > BYTES_MAX):
            yield offsets
            offsets, held = [], 0
        offsets.append(offset)
        held += min(size, LETTER_BYTES_MAX)
    if offsets:
        yield offsets


def _rows(batch: EventBatch, now_us: int) -> pa.Table:
    """Events as rows of the table, without their offsets there."""
    source, table, count = batch.source, batch.table, len(batch)
    rows = table.select(list(source.schema)).to_pylist()
    events = [msgspec.json.encode({name: value for name, value in row.items() if value is not None}) for row in rows]
    columns = {
        "source": pa.array([source.name] * count, pa.string()),
        SOURCE_PARTITION: pa.array([batch.partition] * count, pa.string()),
        SOURCE_OFFSET: table[SOURCE_OFFSET],
        "event": pa.array(events, pa.binary()),
        EVENT_ID: table[EVENT_ID],
        "event_timestamp": table[source.timestamp],
        "revived_at": pa.array([now_us] * count, pa.int64()).cast(INSTANT),
        DATE: pa.array([day_text(now_us)] * count, pa.string()),
    }
    return pa.table(columns)


def _places(rows: pa.Table) -> tuple[list[str], list[int]]:
    return rows[SOURCE_PARTITION].to_pylist(), rows[SOURCE_OFFSET].to_pylist()


def _identities(rows: pa.Table) -> set[Place]:
    """The (event_id, instant) of each row."""
    return set(zip(rows[EVENT_ID].to_pylist(), rows["event_timestamp"].cast(pa.int64()).to_pylist(), strict=True))


def _held(archive: Archive, rows: pa.Table) -> set[Place]:
    """The (event_id, instant) of those of the rows that the archive holds, from whichever partition."""
    if not len(rows):
        return set()
    instants, held = rows["event_timestamp"].cast(pa.int64()), set[Place]()
    ids, instant = pc.unique(rows[EVENT_ID]), archive.source.timestamp
    for piece in archive.reading([EVENT_ID, instant], pc.min(instants).as_py(), pc.max(instants).as_py() + 1).batches():
        found = piece.filter(pc.is_in(piece[EVENT_ID], ids))
        held |= _identities(found.rename_columns({instant: "event_timestamp"}).select([EVENT_ID, "event_timestamp"]))
    return held


def _without_repeated(rows: pa.Table, known: set[Place]) -> tuple[pa.Table, int]:
    """The rows, those that repeat a known event or one before them without their event; how many these are."""
    seen, twice = set(known), []
    for identity in zip(rows[EVENT_ID].to_pylist(), rows["event_timestamp"].cast(pa.int64()).to_pylist(), strict=True):
        twice.append(identity in seen)
        seen.add(identity)
    events = pc.if_else(pa.array(twice, pa.bool_()), pa.scalar(None, pa.binary()), rows["event"])
    return rows.set_column(rows.column_names.index("event"), "event", events), sum(twice)
