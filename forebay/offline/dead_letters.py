"""The table `dead_letters`: events that were refused, with the reason, for whoever repairs their producer.

Columns: `source`, `source_partition`, `source_offset`, `reason` (a slug), `detail`, `raw` (the bytes that came, cut
off at 1 MiB), `size` (how many came; null in rows of before, which were cut off at 64 KiB), `recorded_at`, `date` (the
UTC date on which it was recorded). Exactly once: the position
`<source>/<partition>` is the first offset that has not been judged; `<source>/flow` is the number of the flow that may
append.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from forebay.ingest.batch import DEFINED, INSTANT, SOURCE_OFFSET, DeadLetter
from forebay.instants import day_text
from forebay.offline.archive import FLOW, FLOWS
from forebay.offline.commit import Commit, Position
from forebay.offline.data_files import DATE
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("source_partition", pa.string()),
        (SOURCE_OFFSET, pa.int64()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("raw", pa.binary()),
        ("size", pa.int64()),
        ("recorded_at", INSTANT),
        (DATE, pa.string()),
    ]
)


UNSIZED_BYTES_MAX = 64 * 1024
"""Where rows without a size were cut off."""


@dataclass(frozen=True)
class Kept:
    """What is kept of one letter of a partition."""

    offset: int
    raw: bytes
    reason: str
    size: int | None

    @property
    def is_cut(self) -> bool:
        """Whether some of its bytes are gone."""
        return len(self.raw) >= UNSIZED_BYTES_MAX if self.size is None else self.size > len(self.raw)


class DeadLetters:
    """All dead letters of a deployment."""

    def __init__(self, location: Location) -> None:
        self.table = LakeTable(location, "dead_letters", SCHEMA, statistics=[SOURCE_OFFSET, "recorded_at"], busy=True)

    def append(
        self, letters: Sequence[DeadLetter], recorded_at_us: int, positions: Mapping[str, int] | None = None
    ) -> int:
        """Append those that are not there yet; how many that were.

        `positions` says how far partitions were judged (`<source>/<partition>` → next offset); by default, to their
        last letter.
        """
        ends = dict(positions or {})
        for letter in letters:
            ends[app_id(letter)] = max(letter.offset + 1, ends.get(app_id(letter), 0))
        added = 0

        def prepare(position: Position) -> Commit | None:
            nonlocal added
            since = {name: position(name) or 0 for name in ends}
            new = [letter for letter in letters if letter.offset >= since[app_id(letter)]]
            added = len(new)
            return Commit(_rows(new, recorded_at_us), {n: e for n, e in ends.items() if e > since[n]}) if new else None

        if letters:
            self.table.append(prepare)
        return added

    def flow(self, source: str) -> int:
        """The number of the flow that took a source's letters last; 0 if none has."""
        return self.table.position(f"{source}/{FLOW}") or 0

    def take(self, source: str, number: int) -> None:
        """Take a source's letters for a flow: those with smaller numbers append nothing more. Raises `FencedError`."""
        self.table.take(f"{source}/{FLOW}", number)

    def share(self, source: str, number: int, worker: int) -> None:
        """Append as one of the workers of the flow that took a source's letters."""
        self.table.share(f"{source}/{FLOW}", number, worker)

    def position(self, name: str) -> int:
        """How far `<source>/<partition>` was judged."""
        return self.table.position(name) or 0

    def refused(self, source: str, since: Mapping[str, int]) -> list[tuple[str, int, str]]:
        """Partition, offset and reason of a source's letters that may be events another time (`DEFINED`), those of each
        partition from an offset on.
        """
        mine = [(name, end) for name, end in self.table.positions().items() if name.startswith(f"{source}/")]
        heads = {name.removeprefix(f"{source}/"): end for name, end in mine}
        if not any(end > since.get(name, 0) for name, end in heads.items() if name not in FLOWS):
            return []
        where = (pc.field("source") == source) & pc.field("reason").isin(sorted(DEFINED))
        rows = self.table.reading(["source_partition", SOURCE_OFFSET, "reason"], where).table()
        found = zip(*(column.to_pylist() for column in rows.columns), strict=True)
        return [(name, offset, reason) for name, offset, reason in found if offset >= since.get(name, 0)]

    def places(self, source: str, reason: str | None = None) -> list[tuple[str, int, int]]:
        """Partition, offset and most bytes of the letters of a source, all or those with a reason, in their order."""
        where = pc.field("source") == source
        where = where if reason is None else where & (pc.field("reason") == reason)
        rows = self.table.reading(["source_partition", SOURCE_OFFSET, "size"], where).table()
        sizes = pc.fill_null(rows["size"], UNSIZED_BYTES_MAX).to_pylist()
        return sorted(zip(rows["source_partition"].to_pylist(), rows[SOURCE_OFFSET].to_pylist(), sizes, strict=True))

    def reasons(self, source: str) -> dict[tuple[str, str, int], str]:
        """The reason of each letter of a source, by source, partition and offset."""
        names = ["source", "source_partition", SOURCE_OFFSET, "reason"]
        rows = self.table.reading(names, pc.field("source") == source).table()
        columns = [rows[name].to_pylist() for name in names]
        return {(of, name, n): reason for of, name, n, reason in zip(*columns, strict=True)}

    def at(self, source: str, partition: str, offsets: Sequence[int]) -> list[Kept]:
        """The letters of a partition at some offsets, in their order."""
        where = (
            (pc.field("source") == source)
            & (pc.field("source_partition") == partition)
            & pc.field(SOURCE_OFFSET).isin(list(offsets))
        )
        names = [SOURCE_OFFSET, "raw", "reason", "size"]
        rows = self.table.reading(names, where).table().sort_by(SOURCE_OFFSET)
        return [Kept(*row) for row in zip(*(rows[name].to_pylist() for name in names), strict=True)]

    def scan(self, source: str | None = None) -> pa.Table:
        """All of them, or those of a source, the newest first."""
        rows = self.table.reading(SCHEMA.names, None if source is None else pc.field("source") == source).table()
        return rows.sort_by(
            [("recorded_at", "descending"), ("source_partition", "ascending"), (SOURCE_OFFSET, "descending")]
        )


def app_id(letter: DeadLetter) -> str:
    """The name of a letter's partition among the positions."""
    return f"{letter.source}/{letter.partition}"


def _rows(letters: Sequence[DeadLetter], recorded_at_us: int) -> pa.Table:
    count = len(letters)
    columns = [
        [letter.source for letter in letters],
        [letter.partition for letter in letters],
        [letter.offset for letter in letters],
        [letter.reason for letter in letters],
        [letter.detail for letter in letters],
        [letter.raw for letter in letters],
        [letter.size for letter in letters],
        [recorded_at_us] * count,
        [day_text(recorded_at_us)] * count,
    ]
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
