"""The little shop that is simulated: its definitions, and a log of what happens in it.

Lives here: events and the reference judgement of them, line by line: which are none, which are duplicates, which are
late. It says what DESIGN §3 says and shares nothing with the code that it checks.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from forebay import (
    Count,
    CountDistinct,
    Decimal,
    Entity,
    EventSource,
    FeatureService,
    FileStream,
    Histogram,
    KafkaTopic,
    Last,
    LastK,
    Max,
    Mean,
    Quantile,
    RedisStream,
    Sessionize,
    String,
    Sum,
    Timestamp,
    TopK,
    WindowedView,
)
from forebay.ingest.batch import MALFORMED, MISSING_TIMESTAMP, WRONG_TYPE
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, day_us, floor_us, instant_text
from forebay.language.definitions import Definitions

HISTORY = "2024-03-01"
START_US = day_us(HISTORY)
LATENESS_US, SKEW_US, DEDUPE_US = 10 * MINUTE_US, MINUTE_US, 30 * MINUTE_US
BUYERS, SHOPS = ("ann", "b:o b", "ça|va", "eve"), ("x", "y|", "z")
BROKEN = {b"{": MALFORMED, b"[]": MALFORMED, b'{"ts": 5.5}': WRONG_TYPE, b'{"id": "no instant"}': MISSING_TIMESTAMP}
"""Lines that are no events, and why."""
Place = tuple[str, int]
"""A partition and an offset."""

_source = EventSource(
    "sales",
    schema={"id": String(max_bytes=12), "buyer": String, "shop": String, "amount": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="id",
    stream=FileStream("${FOREBAY_HOME}/sales"),
    lateness="10m",
    max_skew="1m",
    history_start=HISTORY,
)
_by_buyer = WindowedView(
    "by_buyer",
    version=1,
    entity=Entity("buyer", keys={"buyer": String}),
    source=_source,
    where="amount >= 0",
    features=[
        Count("buys", windows=["30m", "2d", None], default=0),
        Sum("spent", of="amount", windows=["2d"], default=0),
        Last("last_amount", of="amount", windows=["2d"], default=None),
        LastK("last_amounts", of="amount", k=3, windows=["2d"], default=[]),
        CountDistinct("amounts", of="amount", k=16, windows=["30m", None], default=0),
    ],
    ttl="1d",
)
_by_shop = WindowedView(
    "by_shop",
    version=2,
    entity=Entity("shop", keys={"shop": String}),
    source=_source,
    features=[
        Count("sales", windows=["6h", "3d"], default=0),
        Max("largest", of="amount", windows=["6h", None], default=0),
        TopK("frequent", of="amount", k=2, cap=12, windows=["6h", None], default=[]),
        Quantile("median", of="amount", windows=["3d"], default=0.0),
        Histogram("sizes", of="amount", edges=[1, 10], windows=["6h"], default=[]),
    ],
)
_visits = WindowedView(
    "visits",
    version=1,
    entity=_by_buyer.entity,
    source=Sessionize(_source, gap="20m", longest="1h"),
    features=[
        Count("visits", windows=["6h", None], default=0),
        Mean("visit_duration", of="duration", windows=["6h", None], default=0),
    ],
)


@dataclass(frozen=True)
class Shop:
    """The definitions of one run. `visits` is a view of sessions, which is compared when all is healed."""

    source: EventSource
    views: tuple[WindowedView, ...]
    service: FeatureService
    visits: WindowedView

    @classmethod
    def make(
        cls,
        stream: RedisStream | KafkaTopic | None,
        dedupe: bool,
        suffix: str = "",
        history_start: str = HISTORY,
    ) -> Shop:
        """A shop whose log is files, some Redis Streams or a topic; the names of one beside another get a suffix."""
        source = replace(
            _source, name=_source.name + suffix, dedupe="30m" if dedupe else None, history_start=history_start
        )
        if stream is not None:
            source = replace(source, stream=stream)
        views = tuple(replace(view, name=view.name + suffix, source=source) for view in (_by_buyer, _by_shop))
        visits = replace(_visits, name=_visits.name + suffix, source=Sessionize(source, gap="20m", longest="1h"))
        return cls(source, views, FeatureService(f"shop{suffix}", version=1, features=list(views)), visits)

    @property
    def all_views(self) -> tuple[WindowedView, ...]:
        """Its views, that of sessions too."""
        return (*self.views, self.visits)

    @property
    def definitions(self) -> Definitions:
        return Definitions.of(self.service)


@dataclass(frozen=True)
class Event:
    """One event as it was meant."""

    id: str
    ts: int
    buyer: str | None
    shop: str | None
    cents: int | None

    def line(self) -> bytes:
        amount = None if self.cents is None else self.cents / 100
        row = {"id": self.id, "buyer": self.buyer, "shop": self.shop, "amount": amount, "ts": instant_text(self.ts)}
        return json.dumps(row).encode()

    def entity(self, view: WindowedView) -> str | None:
        """The entity of a view that it is of; `None` where it does not count there."""
        if view.sessions is not None:
            return self.buyer
        if view.entity.name == "buyer":
            return self.buyer if self.cents is not None and self.cents >= 0 else None
        return self.shop


@dataclass(frozen=True)
class Line:
    """What was appended to the log: bytes, the event that they are (if any), when, and why they are none."""

    raw: bytes
    event: Event | None
    appended_us: int
    broken: str | None = None

    @property
    def depends_on_clock(self) -> bool:
        """Whether it was dated too far ahead when it was appended: by the time it is read it may not be."""
        return self.event is not None and self.event.ts > self.appended_us + SKEW_US


@dataclass(frozen=True)
class Judged:
    """What the reference says of the lines of a partition: events that count, late ones among them, duplicates."""

    counts: Mapping[int, Event]
    late: Collection[int]
    duplicates: Collection[int]


@dataclass
class Log:
    """All partitions, line by line."""

    dedupe: bool
    lines: dict[str, dict[int, Line]] = field(default_factory=dict)
    _judged: dict[str, tuple[int, frozenset[Place], Judged]] = field(default_factory=dict)

    def places(self) -> Iterator[tuple[Place, Line]]:
        for partition, lines in self.lines.items():
            for offset, line in lines.items():
                yield (partition, offset), line

    def judge(self, partition: str, refused: frozenset[Place]) -> Judged:
        """The verdict on each line, `refused` being those that were found to be too far ahead."""
        known = self._judged.get(partition)
        if known is None or known[:2] != (len(self.lines[partition]), refused):
            known = (len(self.lines[partition]), refused, self._judge(partition, refused))
            self._judged[partition] = known
        return known[2]

    def _judge(self, partition: str, refused: frozenset[Place]) -> Judged:
        counts: dict[int, Event] = {}
        late, duplicates, known = set(), set(), set[tuple[str, int]]()
        newest: int | None = None
        for offset, line in self.lines[partition].items():
            event = line.event
            if event is None or (partition, offset) in refused:
                continue
            if newest is not None and event.ts < newest - LATENESS_US:
                late.add(offset)
            within = newest is None or event.ts >= newest - DEDUPE_US
            if self.dedupe and within and (event.id, event.ts) in known:
                duplicates.add(offset)
                late.discard(offset)
            else:
                counts[offset] = event
                known.add((event.id, event.ts))
            newest = event.ts if newest is None else max(newest, event.ts)
        return Judged(counts, late, duplicates)


@dataclass
class Customers:
    """Who makes the lines: late, early, tied, repeated, broken."""

    chance: random.Random
    buyers: Sequence[str] = BUYERS
    shops: Sequence[str] = SHOPS
    made: int = 0
    recent: list[Line] = field(default_factory=list)

    def line(self, now_us: int) -> Line:
        """The next line that arrives."""
        draw = self.chance.random()
        if draw < 0.03:
            raw, why = self.chance.choice(list(BROKEN.items()))
            return Line(raw, None, now_us, why)
        if draw < 0.10 and self.recent:
            again = self.chance.choice(self.recent)
            return Line(again.raw, again.event, now_us)
        line = self._new(now_us)
        self.recent = [*self.recent[-20:], line]
        return line

    def ahead(self, now_us: int) -> Line:
        """An event that is dated too far ahead, but not in two minutes' time."""
        event = self.event(now_us + SKEW_US + self.chance.randrange(1, MINUTE_US))
        return Line(event.line(), event, now_us)

    def history(self, days: int, count: int) -> list[Event]:
        """Events of the first days."""
        return [self.event(START_US + self.chance.randrange(days * DAY_US)) for _ in range(count)]

    def _new(self, now_us: int) -> Line:
        chance = self.chance
        behind_us = chance.choices(
            [
                chance.randrange(SECOND_US),
                chance.randrange(9 * MINUTE_US),
                chance.randrange(11 * MINUTE_US, 3 * HOUR_US),
                chance.randrange(3 * HOUR_US, 2 * DAY_US),
                -chance.randrange(2 * MINUTE_US),
            ],
            [40, 40, 6, 2, 6],
        )[0]
        ts = now_us - behind_us
        edge = chance.random()
        if edge < 0.1:
            ts = floor_us(ts, chance.choice([MINUTE_US, HOUR_US])) - chance.randint(0, 1)
        elif edge < 0.2 and self.recent and (known := chance.choice(self.recent).event) is not None:
            ts = known.ts
        event = self.event(max(ts, START_US))
        return Line(event.line(), event, now_us)

    def event(self, ts: int) -> Event:
        """The next event, dated so."""
        chance = self.chance
        self.made += 1
        cents: Any = chance.choice([None, 0, 5, -300, chance.randrange(10_000)])
        return Event(
            f"e{self.made}", ts, chance.choice([*self.buyers, None]), chance.choice([*self.shops, None]), cents
        )
