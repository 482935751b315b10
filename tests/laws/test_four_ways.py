"""The law on real stores: what is read online equals the training set and the oracle, whatever batch and stream do
meanwhile.

A seeded little world: three days are loaded as history, three more arrive through two stream partitions, out of order
within their lateness and some of them twice. Stream commits, takeovers with a replay from too far back, folds and
publications of whole days happen in random order; after each of them every entity is read.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from forebay import (
    Count,
    CountDistinct,
    DecayedCount,
    DecayedSum,
    Decimal,
    Derived,
    Entity,
    EventSource,
    FeatureService,
    FeatureStore,
    FileStream,
    First,
    FirstK,
    Histogram,
    Int64,
    Last,
    LastK,
    Max,
    Mean,
    Min,
    Quantile,
    SecondsSince,
    StdDev,
    String,
    Sum,
    Timestamp,
    TopK,
    WindowedView,
)
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.codec import NO_CUT
from forebay.core.identity import SLOTS, slots_of
from forebay.ingest.select import Selector
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, day_us, floor_us, instant_text, moment
from forebay.language.definitions import Definitions
from forebay.language.types import AnyType
from forebay.offline.loading import load
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.lane import Lane, Stretch
from forebay.settings import Settings
from streaming.chunk import Chunk
from streaming.decode import Decoded, Decoder
from streaming.offline import Offline
from streaming.remembered import Remembered
from streaming.retry import Patience
from tests.laws.asked import asked

START_US = day_us("2024-03-01")
HISTORY_DAYS, STREAM_DAYS = 3, 3
LATENESS_US = 10 * MINUTE_US
DEDUPE_US = 5 * MINUTE_US
PARTITIONS = ("p0", "p1")
WINDOWS = ["30m", "6h", "2d", None]

sales = EventSource(
    "sales",
    schema={
        "id": String(max_bytes=12),
        "buyer": String,
        "shop": String,
        "till": Int64,
        "kind": String,
        "amount": Decimal(2),
        "ts": Timestamp,
    },
    timestamp="ts",
    event_id="id",
    stream=FileStream("unused"),
    lateness="10m",
    dedupe="5m",
    history_start="2024-03-01",
)
by_buyer = WindowedView(
    "by_buyer",
    version=1,
    entity=Entity("buyer", keys={"buyer": String}),
    source=sales,
    where="kind = 'sale'",
    derived={"doubled": Derived("amount * 2", Decimal(2))},
    features=[
        Count("buys", windows=WINDOWS, default=0),
        Sum("spent", of="amount", windows=WINDOWS, default=0),
        Mean("mean_doubled", of="doubled", windows=WINDOWS, default=-1.0),
        StdDev("std_amount", of="amount", windows=WINDOWS, default=0.0),
        Last("last_amount", of="amount", windows=WINDOWS, default=None),
        SecondsSince("since", windows=WINDOWS, default=-1.0),
        FirstK("first_amounts", of="amount", k=2, windows=WINDOWS, default=[]),
        DecayedCount("recent", half_life="3h", windows=WINDOWS, default=0.0),
    ],
    ttl="1d",
)
by_till = WindowedView(
    "by_till",
    version=3,
    entity=Entity("till", keys={"shop": String, "till": Int64}),
    source=sales,
    features=[
        Max("largest", of="amount", windows=WINDOWS, default=0),
        Min("least", of="amount", windows=WINDOWS, default=0),
        First("first_amount", of="amount", windows=WINDOWS, default=0),
        Count("events", windows=WINDOWS, default=0),
        LastK("last_amounts", of="amount", k=3, windows=WINDOWS, default=[]),
        CountDistinct("amounts", of="amount", k=16, windows=WINDOWS, default=0),
        Quantile("high", of="amount", q=0.9, windows=WINDOWS, default=None),
        TopK("frequent", of="amount", k=2, cap=40, windows=WINDOWS, default=None),
        Histogram("spread", of="amount", edges=[0, "4.99", 5000], windows=WINDOWS, default=[0, 0, 0, 0]),
        DecayedSum("fresh", of="amount", half_life="3h", windows=WINDOWS, default=0.0),
    ],
)
service = FeatureService("shop", version=1, features=[by_buyer, by_till])
VIEWS = (by_buyer, by_till)
BUYERS = ["ann", "b:o b", "ça|va", "{d}", "eve"]
TILLS = [("x", 1), ("x", -2), ("y|", 1)]


@dataclass
class World:
    """The logs and how far they were read, and the stores that hold the events so far."""

    store: OfflineStore
    settings: Settings
    chance: random.Random
    history: list[dict[str, Any]]
    logs: list[list[dict[str, Any]]]
    read_to: list[int] = field(default_factory=lambda: [0, 0])
    applied_to: list[int] = field(default_factory=lambda: [0, 0])

    def __post_init__(self) -> None:
        self.client = connect_online(self.settings)
        self.archive = self.store.archive(sales)
        self.distinct = [_distinct(events) for events in (self.history, *self.logs)]
        self.selectors = [Selector(view) for view in VIEWS]
        self.features = FeatureStore(self.settings, Definitions.of(service))
        self.take_over()

    def take_over(self) -> None:
        """A new writer, which replays some of what was applied."""
        self.lane = Lane(self.client, self.settings.namespace, VIEWS, range(SLOTS))
        self.lane.take_over()
        self.read_to = [self.chance.randint(0, end) for end in self.read_to]
        offline = Offline(self.store, lambda source: NO_CUT)
        archived = offline.archived(sales)
        again = dict(zip(PARTITIONS, self.read_to, strict=True))
        stretches = {name: (again[name], one.next_offset) for name, one in archived.items()}
        past = offline.replay(sales, stretches, Patience())
        remembered = offline.remembered(sales, archived, {})
        now_us = START_US + 400 * DAY_US
        self.decode = Decoder(
            {}, lambda source, name: remembered.get(name, Remembered()), lambda: now_us, recall=offline.recalled
        )
        while chunks := past.poll():
            for decoded in self.decode(chunks):
                self.apply(PARTITIONS.index(decoded.batch.partition), decoded)

    @property
    def seen(self) -> list[dict[str, Any]]:
        """The events that count: those of the history and those of the logs that were applied, each once."""
        ends = (len(self.history), *self.applied_to)
        logs = zip((self.history, *self.logs), self.distinct, ends, strict=True)
        return [event for log, counts, end in logs for event, once in zip(log[:end], counts, strict=False) if once]

    def stream(self) -> None:
        """The next batch of one partition, into both stores in either order."""
        part = self.chance.randrange(2)
        first = self.read_to[part]
        events = self.logs[part][first : first + self.chance.randint(1, 60)]
        if not events:
            return
        lines = [json.dumps(event).encode() for event in events]
        (decoded,) = self.decode([Chunk(sales, PARTITIONS[part], first, first + len(lines), lines=lines)])
        assert not decoded.dead
        self.archive.append([decoded.batch], START_US)
        self.apply(part, decoded)

    def apply(self, part: int, decoded: Decoded) -> None:
        """Events of a partition, into the online store."""
        batch = decoded.batch
        newest_us = max(_us(event) for event in self.logs[part][: batch.next_offset])
        chosen = {view.key: one.select(batch.table) for view, one in zip(VIEWS, self.selectors, strict=True)}
        assert all(len(slots_of(events.keys)) == len(events.keys) for events in chosen.values())
        self.lane.commit([Stretch(PARTITIONS[part], batch.next_offset, newest_us, chosen)])
        self.read_to[part] = batch.next_offset
        self.applied_to[part] = max(self.applied_to[part], batch.next_offset)

    def publish(self) -> None:
        """Fold the days that have ended, or some of them, and publish."""
        newest = max((_us(event) for event in self.seen), default=START_US)
        days = max(1, (floor_us(newest, DAY_US) - START_US) // DAY_US)
        first = self.chance.randrange(days)
        for view in VIEWS:
            fold_dates(self.store, view, START_US + first * DAY_US, START_US + days * DAY_US)
            publish_view(self.client, self.settings.namespace, self.store, view)

    def rows(self) -> list[dict[str, Any]]:
        """Every entity, known or not."""
        buyers = [*BUYERS, "nobody", None]
        return [{"buyer": b, "shop": s, "till": t} for b, (s, t) in zip(buyers, [*TILLS, ("z", 0)] * 2, strict=False)]

    def check_online(self, at_us: int) -> None:
        answer = self.features.get_online_features("shop@1", entity_rows=self.rows(), at=moment(at_us))
        _check(self.seen, self.rows(), [at_us] * len(self.rows()), answer.to_dict(), answer.statuses)

    def check_training(self, instants_us: list[int]) -> None:
        rows = [row for _ in instants_us for row in self.rows()]
        ats = [at for at in instants_us for _ in self.rows()]
        schema = pa.schema([("buyer", pa.string()), ("shop", pa.string()), ("till", pa.int64())])
        spine = pa.Table.from_pylist(rows, schema=schema)
        spine = spine.append_column("event_timestamp", pa.array(ats, pa.timestamp("us", "UTC")))
        found = (
            self.features.get_historical_features(spine, features="shop@1", with_statuses=True).to_arrow().to_pydict()
        )
        names = [name for _, name in service.columns()]
        _check(self.seen, rows, ats, found, {name: found[f"{name}__status"] for name in names})


def _distinct(log: list[dict[str, Any]]) -> list[bool]:
    """Which events of a partition count: those that are no duplicate, by the definition in words."""
    counts = []
    for n, event in enumerate(log):
        newest_us = max((_us(other) for other in log[:n]), default=None)
        known = any((other["id"], _us(other)) == (event["id"], _us(event)) for other in log[:n])
        counts.append(not known or newest_us is None or _us(event) < newest_us - DEDUPE_US)
    return counts


def _us(event: dict[str, Any]) -> int:
    return int(event["ts"])


def _check(
    seen: list[dict[str, Any]], rows: list[dict[str, Any]], ats: list[int], values: dict[str, Any], statuses: Any
) -> None:
    for view in VIEWS:
        for feature in view.features:
            kind = view.column(feature.of)
            triples = [
                (_entity(view, e), _us(e), e["id"], _value(e, feature.of, kind)) for e in seen if _counts(view, e)
            ]
            for text in feature.windows:
                name = feature.feature_name(text)
                for i, (row, at_us) in enumerate(zip(rows, ats, strict=True)):
                    expected, status = asked(view, feature, text, triples, _entity(view, row), at_us)
                    where = f"{name} of {_entity(view, row)} at {instant_text(at_us)}"
                    exact = feature.output(kind).python(expected)
                    if type(feature) in (DecayedCount, DecayedSum):
                        exact = pytest.approx(exact, rel=0, abs=1e-3)  # 1e-9 of what may be added up
                    assert (values[name][i], str(statuses[name][i])) == (exact, status), where


def _entity(view: WindowedView, row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in view.entity.keys)


def _counts(view: WindowedView, event: dict[str, Any]) -> bool:
    return (view is by_till or event["kind"] == "sale") and None not in _entity(view, event)


def _value(event: dict[str, Any], of: str | None, kind: AnyType | None) -> Any:
    if of is None or event["amount"] is None:
        return None
    cents = Decimal(2).units(event["amount"])
    return cents * 2 if of == "doubled" and cents is not None else cents


def _events(chance: random.Random, count: int) -> tuple[list[dict[str, Any]], list[list[dict[str, Any]]]]:
    """History, and the logs of two partitions in order of arrival: each event up to its lateness late."""
    events = []
    for number in range(count):
        shop, till = chance.choice(TILLS)
        ts = START_US + chance.randrange((HISTORY_DAYS + STREAM_DAYS) * DAY_US)
        if chance.random() < 0.3:
            ts = floor_us(ts, chance.choice([MINUTE_US, HOUR_US, DAY_US])) - chance.randint(0, 1)
        events.append(
            {
                "id": f"e{number}",
                "buyer": chance.choice([*BUYERS, None]),
                "shop": shop,
                "till": till,
                "kind": chance.choice(["sale", "sale", "refund", None]),
                "amount": chance.choice([None, round(chance.uniform(-1e4, 1e4), 2), chance.randint(0, 9)]),
                "ts": max(ts, START_US),
            }
        )
    split_us = START_US + HISTORY_DAYS * DAY_US
    history = [event for event in events if _us(event) < split_us]
    late = {event["id"]: chance.choice([0, 0, chance.randrange(LATENESS_US)]) for event in events}
    arriving = sorted((e for e in events if _us(e) >= split_us), key=lambda e: _us(e) + late[e["id"]])
    return _repeated(chance, history), [_repeated(chance, arriving[part::2]) for part in range(2)]


def _repeated(chance: random.Random, log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A log with some of its events sent again, within their lateness: most are duplicates, the others count again."""
    repeated: list[dict[str, Any]] = []
    for event in log:
        repeated.append(event)
        newest_us = max(map(_us, repeated))
        again = [event for event in repeated[-4:] if _us(event) >= newest_us - LATENESS_US and chance.random() < 0.3]
        repeated += again
    return repeated


@pytest.mark.parametrize(
    ("place", "seed", "count"), [*(("folder", seed, 400) for seed in range(6)), ("s3", 6, 160)], indirect=["place"]
)
def test_online_training_and_oracle_agree(
    place: str, seed: int, count: int, online_url: str, namespace: str, tmp_path: Path
) -> None:
    """On S3 a world that is smaller still: a commit takes longer there."""
    chance = random.Random(seed)
    history, logs = _events(chance, count)
    settings = Settings(
        home=tmp_path, online_url=online_url, offline_url=place, definitions="feature_defs", namespace=namespace
    )
    world = World(OfflineStore(settings), settings, chance, history, logs)
    file = tmp_path / "history.ndjson"
    file.write_text("".join(json.dumps(event) + "\n" for event in history))
    loaded = load(world.archive, file)
    assert (loaded.rows, loaded.rows + loaded.duplicates) == (sum(world.distinct[0]), len(history))
    assert loaded.duplicates > 0
    for view in VIEWS:
        fold_dates(world.store, view, START_US, START_US + HISTORY_DAYS * DAY_US)
        publish_view(world.client, namespace, world.store, view)
    world.check_online(START_US + HISTORY_DAYS * DAY_US)
    while any(end < len(log) for end, log in zip(world.read_to, logs, strict=True)):
        chance.choices([world.stream, world.publish, world.take_over], [8, 1, 1])[0]()
        newest_us = max(_us(event) for event in world.seen)
        world.check_online(newest_us + chance.choice([1, MINUTE_US, HOUR_US, 2 * DAY_US]))
    ends = [START_US + chance.randrange(8 * DAY_US) for _ in range(12)]
    world.check_training([*ends, START_US, START_US + DAY_US, START_US + 3 * DAY_US])
