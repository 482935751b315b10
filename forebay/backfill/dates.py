"""The events of a view that are dated in some days, and what of the archive each of these days was folded from.

    plain view         a day is folded from its own events
    view of sessions   from those since the chains began of which a session is over on that day, and a gap before:

        day                D − 2          D − 1            D
        events                       •  •  • │ • •        •│
        sessions                     [───────┼───]         [ …
        since D is          ^ midnight before (the first event − gap)

An event that is added later changes a day only if it lies in what the day was folded from, so whoever compares the
number of events knows whether the day is behind. Days without events of their own can have sessions: a session is over
a gap after its last event.

Lives here: reading for `forebay.backfill.tiles`, some days at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.events import Events
from forebay.core.lookup import KeyLookup
from forebay.core.sessions import Sessions, sessionize
from forebay.ingest.select import Selector
from forebay.ingest.sessions import Sessionizer
from forebay.instants import DAY_US, day_text, day_us, floor_us
from forebay.language.view import WindowedView
from forebay.offline.archive import Archive
from forebay.offline.rooted import read_rooted
from forebay.offline.tiles_table import events_between

Ints = npt.NDArray[np.int64]
LOOKED_UP_MAX = 1_000
"""So few entities are looked up further back; of more, everything is read."""


class EventsOfDates:
    """The events of a view, and how many archived ones each date was folded from."""

    def __init__(self, archive: Archive, view: WindowedView) -> None:
        self._archive, self._selector, self._instant = archive, Selector(view), view.source.timestamp
        self._columns = list(dict.fromkeys([*self._selector.columns, self._instant]))
        self._counts: dict[str, int] = {}
        self.events = 0
        self.dates = archive.events_by_date()

    def read(self, start_us: int, end_us: int) -> Events:
        """The events dated in `[start, end)`."""
        table = self._archive.scan(self._columns, start_us, end_us)
        self.events += len(table)
        self._counts |= _counts(table[self._instant])
        return self._selector.select(table)

    def folded(self, dates: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """How many events dates were folded from, once they were read, and since when, where not since they began."""
        return {day: self._counts.get(day, 0) for day in dates}, {}


class SessionsOfDates:
    """The sessions of a view by the dates on which they are over."""

    def __init__(self, archive: Archive, view: WindowedView) -> None:
        self._archive, self._view = archive, view
        self._selector, self._sessionizer = Selector(view), Sessionizer(view)
        self._archived = archive.events_by_date()  # before the events: what came since makes a day behind
        self._roots: dict[str, int] = {}
        self.events = 0
        later = {day_text(day_us(day) + DAY_US): 1 for day in self._archived}
        self.dates = later | self._archived

    def read(self, start_us: int, end_us: int) -> Events:
        """The sessions that are over in `[start, end)`."""
        rule, history_us = self._sessionizer.rule, self._view.source.history_start_us
        raw, _ = read_rooted(rule, self._scan, history_us, start_us, end_us)
        sessions = sessionize(rule, raw.code, raw.ts)
        over_us = sessions.end_us + rule.gap_us
        within = (over_us >= start_us) & (over_us < end_us)
        self._remember(sessions.take(within), over_us[within])
        return self._sessionizer.described(sessions.take(within), raw.keys)

    def since_us(self, instant_us: int) -> int:
        """A midnight before all events of sessions that are over at or after an instant."""
        history_us = self._view.source.history_start_us
        return read_rooted(self._sessionizer.rule, self._scan, history_us, instant_us, instant_us)[1]

    def folded(self, dates: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
        """How many events dates were folded from, once they were read, and since when."""
        since = {day: self._since_us(day) for day in dates}
        return {day: events_between(self._archived, day_text(us), day) for day, us in since.items()}, since

    def _since_us(self, day: str) -> int:
        start_us = day_us(day)
        return floor_us(min(start_us, self._roots.get(day, start_us)) - self._sessionizer.rule.gap_us, DAY_US)

    def _remember(self, sessions: Sessions, over_us: Ints) -> None:
        """When the chains began of which a session is over on each date."""
        dates, date = np.unique(over_us - over_us % DAY_US, return_inverse=True)
        roots = np.full(len(dates), np.iinfo(np.int64).max)
        np.minimum.at(roots, date, sessions.root_us)
        self._roots |= {day_text(us): root for us, root in zip(dates.tolist(), roots.tolist(), strict=True)}

    def _scan(self, start_us: int, end_us: int, names: Sequence[str] | None) -> Events:
        few = names is not None and len(names) <= LOOKED_UP_MAX
        entities = pa.table(KeyLookup(self._view.entity, list(names or ())).columns) if few else None
        table = self._archive.scan(self._selector.columns, start_us, end_us, entities)
        self.events += len(table)
        return self._selector.select(table)


def _counts(instants: pa.ChunkedArray) -> dict[str, int]:
    """The events of each date."""
    us = np.asarray(instants.cast(pa.int64()))
    found, number = np.unique(us - us % DAY_US, return_counts=True)
    return {day_text(start_us): count for start_us, count in zip(found.tolist(), number.tolist(), strict=True)}
