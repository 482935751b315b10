"""Visits to a site, and what every path must say of the sessions in them: the oracle over a loop's sessions.

gap 30m, longest 2h, lateness 1h        three views: all of a visitor's sessions, the longer ones, those of a page
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import redis

from forebay import (
    Count,
    Decimal,
    Derived,
    Entity,
    EventSource,
    FeatureService,
    FeatureStore,
    FileStream,
    Int64,
    Last,
    Max,
    Mean,
    SecondsSince,
    Sessionize,
    StdDev,
    String,
    Sum,
    Timestamp,
    WindowedView,
)
from forebay.calls.responses import status_names
from forebay.core.identity import entity_key
from forebay.ingest.arrow import conform
from forebay.ingest.batch import EventBatch
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, day_us, instant_text, moment
from forebay.language.definitions import Definitions
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.read import OnlineReader
from forebay.settings import Settings
from tests.laws.asked import asked
from tests.laws.sessionizer import session_triples

START = day_us("2024-03-01")
GAP_US, LONGEST_US, LATENESS_US = 30 * MINUTE_US, 2 * HOUR_US, HOUR_US
WINDOWS = ["6h", "2d", None]
VISITORS, PAGES = ["ann", "b|ob", "eve"], [1, 2]

visits = EventSource(
    "visits",
    schema={"id": String(max_bytes=12), "visitor": String, "page": Int64, "ts": Timestamp},
    timestamp="ts",
    event_id="id",
    stream=FileStream("unused"),
    lateness="1h",
    history_start="2024-03-01",
)
sessions = Sessionize(visits, gap="30m", longest="2h")
visitor = Entity("visitor", keys={"visitor": String})
by_visitor = WindowedView(
    "by_visitor",
    version=1,
    entity=visitor,
    source=sessions,
    features=[
        Count("sessions", windows=WINDOWS, default=0),
        Mean("session_duration", of="duration", windows=WINDOWS, default=0.0),
        StdDev("duration_deviation", of="duration", windows=WINDOWS, default=0.0),
        Sum("visits", of="events", windows=WINDOWS, default=0),
        Last("last_start", of="session_start", windows=WINDOWS, default=None),
        SecondsSince("since", windows=WINDOWS, default=-1.0),
    ],
    ttl="1d",
)
longer = WindowedView(
    "longer",
    version=1,
    entity=visitor,
    source=sessions,
    where="duration >= 600 AND events > 1",
    derived={"minutes": Derived("duration / 60", Decimal(2))},
    features=[
        Count("longer_sessions", windows=WINDOWS, default=0),
        Mean("minutes", of="minutes", windows=WINDOWS, default=0.0),
    ],
)
by_page = WindowedView(
    "by_page",
    version=2,
    entity=Entity("page", keys={"page": Int64}),
    source=Sessionize(visits, gap="1m", longest="10m", name="page_bursts"),
    features=[
        Max("largest_burst", of="events", windows=["1h", "6h"], default=0),
        Count("bursts", windows=["1h", "6h"], default=0),
    ],
)
VIEWS = (by_visitor, longer, by_page)
service = FeatureService("site", version=1, features=VIEWS)
Visit = dict[str, Any]


def at(day: float, hour: float = 0, minute: float = 0) -> int:
    """An instant: days, hours and minutes after history starts."""
    return START + int(day * DAY_US) + int(hour * HOUR_US) + int(minute * MINUTE_US)


def visit(number: int, ts: int, who: str | None = "ann", page: int = 1) -> Visit:
    """One event."""
    return {"id": f"v{number:06d}", "visitor": who, "page": page, "ts": ts}


def some_visits(chance: random.Random, days: float, count: int = 250) -> list[Visit]:
    """Visits in bursts, across midnight, some chains without a gap for hours, some at the edge of the gap."""
    found: list[Visit] = []
    ts = {who: START + chance.randrange(DAY_US // 2) for who in [*VISITORS, None]}
    while len(found) < count:
        who = chance.choice([*VISITORS, *VISITORS, None])
        far = chance.choice([0, 1, MINUTE_US, 10 * MINUTE_US, GAP_US - 1, GAP_US, GAP_US + 1, 3 * HOUR_US, DAY_US])
        step = far if chance.random() < 0.7 else chance.randrange(GAP_US)
        ts[who] = (ts[who] + step - START) % int(days * DAY_US) + START
        for _ in range(chance.choice([1, 1, 1, 12])):
            found.append(visit(len(found), ts[who], who, chance.choice(PAGES)))
            ts[who] = min(ts[who] + chance.randrange(GAP_US), START + int(days * DAY_US) - 1)
    return found


@dataclass
class World:
    """The stores of one test."""

    settings: Settings
    store: OfflineStore = field(init=False)
    redis: redis.Redis = field(init=False)
    offsets: dict[str, int] = field(default_factory=dict)
    archived: list[Visit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store, self.redis = OfflineStore(self.settings), connect_online(self.settings)
        self.features = FeatureStore(self.settings, Definitions.of(service))

    def archive(
        self, visits_: list[Visit], partition: str = "p0", arrived_us: int = START + 400 * DAY_US
    ) -> EventBatch:
        """Put events into the archive, as the next of a partition."""
        batch = self.batch(visits_, partition, self.offsets.get(partition, 0))
        self.offsets[partition] = batch.next_offset
        self.store.archive(visits).append([batch], arrived_us)
        self.archived += visits_
        return batch

    def batch(self, visits_: list[Visit], partition: str, first: int) -> EventBatch:
        """A stretch of a partition, decoded."""
        rows = [{**one, "ts": moment(one["ts"])} for one in visits_]
        batch, dead = conform(visits, partition, first, pa.Table.from_pylist(rows), START + 400 * DAY_US)
        assert not dead
        return batch

    def check_training(self, seen: list[Visit], rows: list[Visit], **clock: Any) -> None:
        """Training rows (with `ts`) are what the oracle says of the events seen, or of what `seen` gives for a row."""
        table = pa.Table.from_pylist([{**row, "event_timestamp": moment(row["ts"])} for row in rows])
        found = self.features.get_historical_features(
            entity_df=table.drop_columns(["ts", "id"]), features=service, with_statuses=True, **clock
        ).to_arrow()
        values = {name: found[name].to_pylist() for name in found.column_names}
        check(seen, rows, [row["ts"] for row in rows], values)

    def check_online(self, seen: list[Visit], at_us: int, views: Sequence[WindowedView] = VIEWS) -> None:
        """Every entity, read online at an instant, is what the oracle says of the events seen."""
        rows = [visit(0, at_us, who, page) for who, page in zip(VISITORS, [*PAGES, 9], strict=True)]
        keys = {view.key: [entity_key(view.entity, row) for row in rows] for view in views}
        read = OnlineReader(self.redis, self.settings.namespace).read(views, keys, at_us, at_us)
        columns = [column for view in views for column in read.views[view.key].columns]
        values: dict[str, list[Any]] = {column.feature.name: column.to_python() for column in columns}
        values |= {f"{column.feature.name}__status": status_names(column) for column in columns}
        check(seen, rows, [at_us] * len(rows), values, views)


def check(
    seen: Any, rows: list[Visit], ats: list[int], values: dict[str, list[Any]], views: Sequence[WindowedView] = VIEWS
) -> None:
    """Every value and status of rows equals the oracle's; `seen` are events, or a function from an instant to them."""
    for view in views:
        for feature in view.features:
            for text in feature.windows:
                name = feature.feature_name(text)
                for i, (row, at_us) in enumerate(zip(rows, ats, strict=True)):
                    events = seen(at_us) if callable(seen) else seen
                    expected = expected_of(view, feature, text, events, row, at_us)
                    found = (values[name][i], str(values[f"{name}__status"][i]))
                    assert found == expected, f"{name} of {_entity(view, row)} at {instant_text(at_us)}"


def expected_of(
    view: WindowedView, feature: Any, text: str | None, events: list[Visit], row: Visit, at_us: int
) -> tuple[Any, str]:
    """(value, status) of one feature."""
    entity, kind = _entity(view, row), view.column(feature.of)
    assert view.sessions is not None

    def value(start: int, end: int, count: int) -> Any:
        units = {"duration": end - start, "events": count, "session_start": start, None: None}
        return _minutes(end - start) if feature.of == "minutes" else units[feature.of]

    def passes(start: int, end: int, count: int) -> bool:
        return view.name != longer.name or (end - start >= 600_000_000 and count > 1)

    gap_us, longest_us = view.sessions.gap_us, view.sessions.longest_us
    mine = [(entity, one["ts"]) for one in events if _entity(view, one) == entity and None not in entity]
    triples = session_triples(mine, gap_us, longest_us, lambda *session: (passes(*session), value(*session)))
    kept = [(who, ts, name, one[1]) for who, ts, name, one in triples if one[0]]
    found, status = asked(view, feature, text, kept, entity, at_us)
    return feature.output(kind).python(found), status


def _minutes(us: int) -> int:
    """`duration / 60` in units of 0.01, as DuckDB has it: a double, rounded half-even."""
    units: int = Decimal(2).units(round(us / 60e6, 2))
    return units


def _entity(view: WindowedView, row: Visit) -> tuple[Any, ...]:
    return tuple(row[key] for key in view.entity.keys)
