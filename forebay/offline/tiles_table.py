"""`tiles/<view>@<v>`: the batch fold of the archive, one UTC date at a time, and `streamed/<view>@<v>`: the tiles
that the stream wrote.

A date of `tiles/` is replaced as a whole, atomically with the position `fold/<date>`: how many archived events it was
folded from, and `seen/<date>`: the archive's watermark before they were read. A date of a view of sessions is folded
from earlier dates too: `since/<date>` says from when on, and `fold/<date>` counts all of them. So the table itself says
which dates were folded (an empty one has no rows), whether the archive has grown since, and whether only late events
can have come.

`streamed/` has three columns more (`commit_number`, `source_partition`, `next_offset`: what was committed online, from
which stretch) and is appended to. A lane and partition is a position, `<lane>/<partition>`; an append says which
positions it was prepared for, and nothing is written where the table stands elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.errors import FencedError, RequestError
from forebay.ingest.batch import INSTANT
from forebay.instants import DAY_US, day_text, instant_text
from forebay.language.view import WindowedView
from forebay.offline.commit import Commit, Position
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from forebay.offline.stored_table import between_dates
from forebay.offline.tiles_columns import EVENTS, HOP_US, NEWEST, START, from_table, tiles_schema, to_table

FOLD, SEEN, SINCE = "fold/", "seen/", "since/"
_STREAMED = (("commit_number", pa.int64()), ("source_partition", pa.string()), ("next_offset", pa.int64()))


class TilesTable:
    """The batch tiles of one view."""

    def __init__(self, location: Location, view: WindowedView) -> None:
        self._layout = Layout.of(view)
        self.table = LakeTable(
            location, f"tiles/{view.key}", tiles_schema(self._layout), statistics=[HOP_US, START, NEWEST, EVENTS]
        )

    def overwrite(
        self,
        start_us: int,
        end_us: int,
        keys: Sequence[str],
        tiles: Tiles,
        folded: Mapping[str, int],
        watermarks_us: Mapping[str, int] | None = None,
        since: Mapping[str, int] | None = None,
    ) -> None:
        """Replace the tiles of the dates in `[start, end)`, with the archived events that each date was folded from.

        `watermarks_us` is what the archive's watermark was before the events of each date were read, if a stream had
        run.
        `since` is where the events of each date begin, where that is not the date itself.
        """
        _check_days(start_us, end_us)
        starts = tiles.records["start"]
        if len(tiles) and not (start_us <= starts.min() and starts.max() < end_us):
            raise RequestError(
                f"Tiles of view {self._layout.view.key!r} from {instant_text(int(starts.min()))} to "
                f"{instant_text(int(starts.max()))} lie outside of the dates to be replaced, "
                f"[{instant_text(start_us)}, {instant_text(end_us)})"
            )
        rows = to_table(self._layout, pa.array(keys, pa.string()), tiles)
        dates = between_dates(day_text(start_us), day_text(end_us - DAY_US))
        positions = {FOLD + day: events for day, events in folded.items()}
        positions |= {SINCE + day: us for day, us in (since or {}).items()}
        positions |= {SEEN + day: us for day, us in (watermarks_us or {}).items()}
        self.table.overwrite(dates, Commit(rows, positions))

    def folded(self) -> dict[str, int]:
        """The dates that were folded, each with the archived events that it was folded from."""
        positions = self.table.positions().items()
        return {name.removeprefix(FOLD): events for name, events in sorted(positions) if name.startswith(FOLD)}

    def behind(self, archived: Mapping[str, int]) -> dict[str, str]:
        """The dates that were folded and of which the archive holds another number of events now, given those of each
        date; with each, the first date that it was folded from.
        """
        positions, found = self.table.positions(), {}
        for day, events in self.folded().items():
            since = day_text(positions[SINCE + day]) if SINCE + day in positions else day
            if events != events_between(archived, since, day):
                found[day] = since
        return found

    def watermarks_us(self) -> dict[str, int]:
        """What the archive's watermark was when each date was folded; without dates before which no stream had run."""
        positions = self.table.positions().items()
        return {name.removeprefix(SEEN): us for name, us in positions if name.startswith(SEEN)}

    def read(
        self, hop_us: int | None = None, start_us: int | None = None, end_us: int | None = None
    ) -> tuple[list[str], Tiles]:
        """The entities and the tiles (of one hop) that start in `[start, end)`."""
        return from_table(self._layout, self.rows(hop_us, start_us, end_us))

    def rows(self, hop_us: int | None = None, start_us: int | None = None, end_us: int | None = None) -> pa.Table:
        """The same, as they are stored."""
        return _read(self.table, hop_us, start_us, end_us)

    def size(self) -> tuple[int, int] | None:
        """Rows and bytes; `None` where nothing was folded yet."""
        return self.table.size()


@dataclass(frozen=True, eq=False)
class StreamedTiles:
    """Tiles of one commit of the stream, from the events of a partition up to `next_offset`."""

    keys: pa.StringArray
    tiles: Tiles
    commit: int
    partition: str
    next_offset: int


def app_id(lane: int, partition: str) -> str:
    """The position under which a streamed table remembers how far a lane's part of a partition is in it."""
    return f"{lane}/{partition}"


def events_between(archived: Mapping[str, int], first: str, last: str) -> int:
    """The events of the dates from one to another, given those of each date."""
    if first == last:
        return archived.get(first, 0)
    return sum(count for day, count in archived.items() if first <= day <= last)


class StreamedTable:
    """The tiles of one view as the stream wrote them online."""

    def __init__(self, location: Location, view: WindowedView) -> None:
        self._layout = Layout.of(view)
        schema = tiles_schema(self._layout)
        for name, kind in _STREAMED:
            schema = schema.insert(len(schema) - 1, pa.field(name, kind))
        statistics = [HOP_US, START, NEWEST, "commit_number"]
        self.table = LakeTable(location, f"streamed/{view.key}", schema, statistics=statistics, busy=True)

    def positions(self) -> dict[str, int]:
        """How far each lane and partition is in the table."""
        return self.table.positions()

    def append(self, pieces: Sequence[StreamedTiles], positions: Mapping[str, tuple[int, int]]) -> None:
        """Append tiles and move positions from one offset to the next, in one commit.

        Raises `FencedError`, and writes nothing, where a position is not what it was expected to be (0: none yet).
        """
        rows = self._rows(pieces) if pieces else self.table.schema.empty_table()

        def prepare(position: Position) -> Commit | None:
            for name, (expected, _) in positions.items():
                found = position(name) or 0
                if found != expected:
                    raise FencedError(
                        f"Table {self.table.path!r} is at {found} of {name!r}, not at {expected}: somebody moved it. "
                        "Read its positions again"
                    )
            return Commit(rows, {name: after for name, (_, after) in positions.items()})

        if positions:
            self.table.append(prepare)

    def read(self, start_us: int | None = None, end_us: int | None = None) -> tuple[list[str], Tiles]:
        """The entities and the tiles that start in `[start, end)`, those of all commits merged."""
        return from_table(self._layout, _read(self.table, None, start_us, end_us))

    def _rows(self, pieces: Sequence[StreamedTiles]) -> pa.Table:
        """All pieces at once: a second of small commits is hundreds of them, many of the same keys."""
        keys = {id(piece.keys): piece.keys for piece in pieces}
        first = dict(zip(keys, np.cumsum([0, *map(len, keys.values())]).tolist(), strict=False))
        tiles = [piece.tiles.recoded(piece.tiles.code + first[id(piece.keys)]) for piece in pieces]
        rows = to_table(self._layout, pa.concat_arrays([*keys.values()]), Tiles.joined(tiles))
        number = pa.array(np.repeat(np.arange(len(pieces)), [len(one) for one in tiles]))
        values = zip(*((piece.commit, piece.partition, piece.next_offset) for piece in pieces), strict=True)
        for (name, kind), column in zip(_STREAMED, values, strict=True):
            rows = rows.append_column(name, pa.array(column, kind).take(number))
        return rows.select(self.table.schema.names)


def _read(table: LakeTable, hop_us: int | None, start_us: int | None, end_us: int | None) -> pa.Table:
    where = None if hop_us is None else pc.field(HOP_US) == hop_us
    for condition in (
        None if start_us is None else pc.field(START) >= pa.scalar(start_us, INSTANT),
        None if end_us is None else pc.field(START) < pa.scalar(end_us, INSTANT),
    ):
        if condition is not None:
            where = condition if where is None else where & condition
    first = "0001-01-01" if start_us is None else day_text(start_us)
    last = "9999-12-31" if end_us is None else day_text(end_us)
    return table.reading(table.schema.names, where, between_dates(first, last)).table()


def _check_days(start_us: int, end_us: int) -> None:
    if start_us % DAY_US or end_us % DAY_US or start_us >= end_us:
        raise RequestError(
            f"[{instant_text(start_us)}, {instant_text(end_us)}) is no range of UTC dates; these are replaced whole"
        )
