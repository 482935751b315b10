"""Quiet is told from behind and from dead; an idle partition holds nobody back; what comes behind is repaired.

A flow is driven by hand, step by step, at a clock of its own. Timelines: `●` an event, `beat` a look at the end of a
log, `┆` the instant of a read.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forebay import Count, Entity, EventSource, FileStream, String, Timestamp, WindowedView
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.core.codec import NO_CUT
from forebay.core.values import Status
from forebay.errors import StoreUnavailableError
from forebay.ingest.batch import EventBatch
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, day_text, day_us, floor_us, instant_text
from forebay.language.definitions import Definitions
from forebay.offline.archive import Archive
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.read import OnlineReader
from forebay.online.source_clock import LIVE_WITHIN_US, clock_us
from forebay.settings import Settings
from streaming import parts
from streaming.chunk import EVENTS_MAX, Chunk
from streaming.delta_writer import BEAT_INTERVAL_US
from streaming.file_reader import FileReader
from streaming.heartbeat import End, Heartbeat, Pulse, interval_us
from streaming.offline import IDLE_AFTER_US
from streaming.parts import Task, take_over
from streaming.stop import Stop
from streaming.summary import Summary
from tests.oracle import oracle

NOON_US = day_us("2026-03-02") + 12 * HOUR_US
FRESHNESS_US = 2 * SECOND_US

clicks = EventSource(
    "clicks",
    schema={"id": String(max_bytes=8), "user": String, "ts": Timestamp},
    timestamp="ts",
    event_id="id",
    stream=FileStream("${FOREBAY_HOME}/clicks"),
    lateness="10m",
    history_start="2026-03-01",
)
by_user = WindowedView(
    "by_user",
    version=1,
    entity=Entity("user", keys={"user": String}),
    source=clicks,
    features=[Count("n", windows=["1h", "2d", None], default=0)],
    freshness="2s",
)
USERS = ("ann", "bob")


class Killed(BaseException):
    """The process died here."""


@dataclass
class Driven:
    """A deployment, its log, and one flow over it that does nothing by itself."""

    settings: Settings
    now_us: int = NOON_US
    events: list[tuple[str, int, str, None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.online, self.offline = connect_online(self.settings), OfflineStore(self.settings)
        self.folder = self.settings.home / "clicks"
        self.folder.mkdir()

    def write(self, partition: str, user: str, *instants_us: int) -> None:
        """Append events to a partition now."""
        path = self.folder / f"{partition}.ndjson"
        with path.open("a") as file:
            for ts in instants_us:
                event = {"id": f"e{len(self.events)}", "user": user, "ts": instant_text(ts)}
                self.events.append((user, ts, event["id"], None))
                file.write(json.dumps(event) + "\n")
        os.utime(path, ns=(self.now_us * 1000, self.now_us * 1000))

    def start(self, *, until_end: bool = False) -> None:
        """A new flow takes over."""
        definitions = Definitions.of(by_user)
        task = Task(self.settings, definitions, [clicks], until_end=until_end, now_us=lambda: self.now_us)
        self.summary, stop = Summary(), Stop()
        self.parts = take_over(task, self.online, stop, self.summary)
        self.reader, self.writer = self.parts.reader(0), self.parts.writer(0)

    def step(self, times: int = 2) -> None:
        """Poll the log, apply what it held and make it durable."""
        for _ in range(times):
            for item in self.reader.next_batch():
                decoded = item if isinstance(item, Heartbeat) else self.parts.decode([item])[0]
                self.parts.delta.archive(decoded)
                self.writer.write(self.parts.split([decoded]))
            assert self.parts.stop.error is None
            self.parts.delta.flush()

    def run_until(self, now_us: int, every_us: int) -> None:
        """Let time pass, with a step now and then."""
        while self.now_us < now_us:
            self.now_us = min(self.now_us + every_us, now_us)
            self.step()

    def statuses(self, at_us: int, users: Sequence[str] = USERS) -> set[str]:
        """What a reader at an instant would be told of the lifetime counts."""
        read = OnlineReader(self.online, self.settings.namespace).read([by_user], {by_user.key: users}, at_us, at_us)
        return {Status(status).name for status in read.views[by_user.key].columns[2].status.tolist()}

    def watermark_us(self) -> int:
        """The view's watermark, as a reader gets it."""
        read = OnlineReader(self.online, self.settings.namespace).read([by_user], {by_user.key: ["ann"]}, None, 0)
        return int(read.views[by_user.key].watermarks[0])

    def archived_watermark_us(self) -> int | None:
        """The archive's watermark, which decides the cut."""
        return OfflineStore(self.settings).archive(clicks).watermark_us()

    def archived(self, partition: str) -> int:
        """How far a partition is archived."""
        return OfflineStore(self.settings).archive(clicks).next_offset(f"{partition}.ndjson")

    def marks(self) -> list[tuple[str, str]]:
        """The days that are marked, and why, each as often as it is."""
        table = OfflineStore(self.settings).repairs().scan()
        return list(zip(table["day"].to_pylist(), table["reason"].to_pylist(), strict=True))

    def repairs(self) -> set[tuple[str, str]]:
        """The days that are marked, and why."""
        return set(self.marks())

    def publish(self, *days: str) -> int | None:
        """Fold these days and publish; the cut."""
        for day in days:
            fold_dates(self.offline, by_user, day_us(day), day_us(day) + DAY_US)
        return publish_view(self.online, self.settings.namespace, self.offline, by_user).cut_us

    def wrong(self) -> set[str]:
        """The features that are not the oracle's, now."""
        at_us = max(self.now_us, *(ts + 1 for _, ts, _, _ in self.events))
        keys = {by_user.key: list(USERS)}
        read = OnlineReader(self.online, self.settings.namespace).read([by_user], keys, at_us, at_us)
        found = set()
        for column, (text, window) in zip(
            read.views[by_user.key].columns,
            ((text, by_user.features[0].window(text)) for text in by_user.features[0].windows),
            strict=True,
        ):
            for row, user in enumerate(USERS):
                expected, _ = oracle(
                    "Count", self.events, user, at_us, window.length_us, window.hop_us,
                    of=False, scale=0, ttl_us=None, default=0,
                )  # fmt: skip
                if int(column.values[row]) != expected:
                    found.add(f"{user} {text}: {column.values[row]}, expected {expected}")
        return found


@pytest.fixture
def driven(home: Path, online_url: str, namespace: str) -> Driven:
    return Driven(Settings(home, online_url, str(home / "offline"), namespace=namespace))


def test_a_quiet_stream_stays_fresh_and_a_dead_one_turns_stale(driven: Driven) -> None:
    """
    flow    ● beat beat beat …           (nothing for an hour)                beat †
    read                                                     PRESENT ┆             ┆ + 2 s PRESENT ┆ later STALE
    """
    driven.write("a", "ann", NOON_US - SECOND_US)
    driven.write("a", "bob", NOON_US)
    driven.start()
    driven.step()
    for _ in range(20):
        driven.run_until(driven.now_us + SECOND_US, every_us=SECOND_US // 4)
        assert driven.statuses(driven.now_us + SECOND_US) == {"PRESENT"}
    driven.now_us += HOUR_US
    assert driven.statuses(driven.now_us) == {"STALE"}, "paused for an hour"
    driven.step()
    assert driven.statuses(driven.now_us) == {"PRESENT"}, "and it goes on"
    dead_us = driven.now_us
    assert driven.watermark_us() == dead_us
    assert driven.statuses(dead_us + FRESHNESS_US) == {"PRESENT"}
    assert driven.statuses(dead_us + FRESHNESS_US + 1) == {"STALE"}


def test_events_that_wait_are_being_behind(driven: Driven) -> None:
    count = EVENTS_MAX + 100
    driven.write("a", "ann", *(NOON_US - (count - n) * SECOND_US // 10 for n in range(count)))
    driven.write("b", "bob", NOON_US)
    driven.start()
    driven.step(1)
    assert driven.watermark_us() < NOON_US - 9 * SECOND_US, "a chunk is behind the other"
    assert driven.statuses(NOON_US + 1) == {"STALE"}
    driven.step(2)
    assert driven.statuses(NOON_US + 1) == {"PRESENT"}


def test_an_idle_partition_does_not_hold_the_view_back(driven: Driven) -> None:
    driven.write("a", "ann", NOON_US - 3 * HOUR_US)
    driven.write("b", "bob", NOON_US - SECOND_US)
    driven.start()
    driven.step(1)
    assert driven.watermark_us() == NOON_US - 3 * HOUR_US
    driven.step(1)
    assert driven.watermark_us() == NOON_US
    assert driven.statuses(NOON_US + SECOND_US) == {"PRESENT"}


def test_a_log_of_old_events_has_a_time_of_its_own(driven: Driven) -> None:
    old_us = NOON_US - 35 * HOUR_US
    driven.write("a", "ann", old_us)
    driven.write("b", "bob", old_us + HOUR_US)
    driven.start()
    driven.step()
    assert driven.watermark_us() == old_us + HOUR_US, "the idle partition follows the other, and not the wall clock"
    assert driven.statuses(old_us + HOUR_US + FRESHNESS_US) == {"PRESENT"}
    assert driven.statuses(NOON_US) == {"STALE"}


def test_a_log_was_at_its_end_when_it_was_polled_and_not_a_moment_later(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    poll       ├───────────┤ finds nothing, takes a minute
    a          ↑ the beat    ● comes while it lasts
    """
    real = FileReader.poll

    def slow(self: FileReader) -> Sequence[Chunk]:
        found = real(self)
        driven.now_us += MINUTE_US
        return found

    driven.write("a", "ann", NOON_US)
    driven.start()
    driven.step()
    monkeypatch.setattr(FileReader, "poll", slow)
    driven.now_us += HOUR_US
    began_us = driven.now_us
    (beat,) = driven.reader.next_batch()
    assert isinstance(beat, Heartbeat)
    assert (beat.seen_us, driven.now_us) == (began_us, began_us + MINUTE_US)
    driven.writer.write(driven.parts.split([beat]))
    assert driven.watermark_us() == began_us


def test_the_clock_of_a_source() -> None:
    assert clock_us(NOON_US - LIVE_WITHIN_US, NOON_US) == NOON_US
    assert clock_us(NOON_US - LIVE_WITHIN_US - 1, NOON_US) == NOON_US - LIVE_WITHIN_US - 1
    assert clock_us(NOON_US + SECOND_US, NOON_US) == NOON_US + SECOND_US, "a producer's clock runs ahead"
    assert clock_us(-(2**63), NOON_US) == -(2**63), "before its first event there is none"


def test_the_archives_watermark_follows_once_a_partition_is_idle_and_seldom(driven: Driven) -> None:
    """
    a      ● ● ● ● ● ● ● …
    b      ●              idle after a minute
    archive at b's event  │ at the clock      + 5 min │ at the clock
    """
    driven.write("a", "ann", NOON_US)
    driven.write("b", "bob", NOON_US)
    driven.start()
    moves = list[int]()
    for n in range(1, 14):
        driven.now_us = NOON_US + n * MINUTE_US // 2
        driven.write("a", "ann", driven.now_us)
        driven.step()
        moves.append(((driven.archived_watermark_us() or 0) - NOON_US) // (MINUTE_US // 2))
    assert moves == [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 12, 12]
    assert (IDLE_AFTER_US, BEAT_INTERVAL_US) == (MINUTE_US, 5 * MINUTE_US)


def test_a_run_to_the_end_leaves_idle_files_behind(driven: Driven) -> None:
    """A file a day, each read to its end by a run of its own: yesterday's does not hold the watermark."""
    driven.now_us = NOON_US - DAY_US
    driven.write("day-1", "ann", driven.now_us)
    driven.now_us = NOON_US
    driven.write("day-2", "bob", NOON_US)
    driven.start(until_end=True)
    with pytest.raises(StopIteration):
        driven.step(9)
    driven.parts.delta.start()
    driven.parts.delta.close()
    assert driven.archived_watermark_us() == NOON_US


def test_what_comes_behind_a_heartbeat_is_late_also_for_a_successor(driven: Driven) -> None:
    driven.write("a", "ann", NOON_US)
    driven.write("b", "bob", NOON_US - HOUR_US)
    driven.start()
    driven.step()
    driven.now_us = NOON_US + 2 * MINUTE_US
    driven.step()
    assert driven.archived_watermark_us() == driven.now_us
    edge_us = driven.now_us - clicks.lateness_us
    driven.write("b", "bob", edge_us, edge_us + 1)
    driven.step()
    assert (driven.summary.late["clicks"], driven.repairs()) == (0, set())
    driven.start()
    driven.write("b", "bob", edge_us - 1)
    driven.step()
    assert driven.summary.late["clicks"] == 1
    assert driven.repairs() == {(day_text(NOON_US), "late")}
    assert driven.wrong() == set(), "it counts at once all the same: no cut has passed it"


def test_out_of_order_within_lateness_is_exact_on_both_sides_of_a_cut(driven: Driven) -> None:
    """
    day 1                       ┆ midnight, the cut      lateness 10m
    a      ●23:40        ●23:55 ┆  ●00:05 ●23:56 ●00:09  │ publish: the watermark is 00:09, the cut stays on day 1
                                ┆                ●00:10  │ publish: the cut is midnight
    a                           ┆  ●00:01 ●00:00 ●00:02
    """
    midnight_us = floor_us(NOON_US, DAY_US)

    def at(minute: int) -> int:
        return midnight_us + minute * MINUTE_US

    driven.now_us = at(10)
    driven.write("a", "ann", *map(at, (-20, -5, 5, -4, 9)))
    driven.start()
    driven.step()
    assert driven.publish("2026-03-01") is None
    assert driven.wrong() == set()
    driven.write("a", "bob", at(10), at(0))
    driven.step()
    assert driven.publish("2026-03-01") == midnight_us
    driven.write("a", "ann", *map(at, (1, 0, 2)))
    driven.step()
    assert driven.wrong() == set()
    assert (driven.summary.late["clicks"], driven.repairs()) == (0, set())


def test_an_idle_partition_lets_the_cut_pass_and_what_then_comes_is_repaired_by_its_date_alone(driven: Driven) -> None:
    """
    day 1              ┆ day 2
    a      ●      ●    ┆  ●   ●
    b      ● idle      ┆         beat: the cut may pass       then ●23:00 of day 1
    """
    midnight_us = floor_us(NOON_US, DAY_US)
    driven.write("b", "bob", midnight_us - 6 * HOUR_US)
    driven.write("a", "ann", midnight_us - 5 * HOUR_US, midnight_us + HOUR_US, NOON_US)
    driven.start()
    driven.step(1)
    assert driven.publish("2026-03-01") is None, "b holds the cut"
    driven.now_us = NOON_US + 2 * MINUTE_US
    driven.step()
    assert driven.publish("2026-03-01") == midnight_us
    assert driven.wrong() == set()

    driven.write("b", "bob", midnight_us - HOUR_US)
    driven.step()
    assert driven.repairs() == {("2026-03-01", "late"), ("2026-03-01", "before the cut")}
    assert driven.wrong() == {"bob 2d: 1, expected 2", "bob None: 1, expected 2"}, "until its date is folded again"
    driven.write("b", "bob", NOON_US)
    driven.step()
    assert driven.publish("2026-03-01") == midnight_us
    assert driven.wrong() == set()


def test_a_pulse_beats_at_its_interval_and_not_in_the_middle_of_a_burst() -> None:
    pulse = Pulse(interval_us(Definitions.of(by_user).windowed_views()))
    assert pulse.is_due(NOON_US, busy=True)
    beat = pulse.beat(clicks, [End("a", 5), End("b", 7, NOON_US - HOUR_US)], NOON_US)
    assert beat is not None
    assert (beat.ends["a"].since_us, beat.ends["b"].since_us) == (NOON_US, NOON_US - HOUR_US)
    half_us = FRESHNESS_US // 4
    assert not pulse.is_due(NOON_US + half_us - 1, busy=False)
    assert pulse.is_due(NOON_US + half_us, busy=False)
    assert not pulse.is_due(NOON_US + half_us, busy=True)
    assert pulse.is_due(NOON_US + 2 * half_us, busy=True)
    assert pulse.is_due(NOON_US - HOUR_US, busy=True), "the clock was set back"
    later = pulse.beat(clicks, [End("a", 5), End("b", 8)], NOON_US + HOUR_US)
    assert later is not None
    assert (later.ends["a"].since_us, later.ends["b"].since_us) == (NOON_US, NOON_US + HOUR_US)
    assert pulse.beat(clicks, [], NOON_US) is None


def test_what_the_archive_took_unheard_is_counted(driven: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    append, tries = Archive.append, itertools.count()

    def lost(self: Archive, batches: Sequence[EventBatch], arrived_at_us: int) -> int:
        added = append(self, batches, arrived_at_us)
        if next(tries) == 0:
            raise StoreUnavailableError("the reply was lost")
        return added

    monkeypatch.setattr(Archive, "append", lost)
    driven.write("a", "ann", NOON_US - SECOND_US, NOON_US)
    with (driven.folder / "a.ndjson").open("a") as file:
        file.write("no event\n")
    driven.start()
    driven.step()
    assert driven.offline.archive(clicks).next_offset("a.ndjson") == 3
    assert next(tries) == 2
    assert (dict(driven.summary.events), sum(driven.summary.dead.values())) == ({"clicks": 2}, 1)


def test_what_a_cut_passed_while_it_was_archived_is_marked_by_the_next_flow(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    day 1          ┆ day 2
    a      ●       ┆       ●
    b         ●    ┆                  its first event: it is behind nothing of its partition, so not late
    flow                              looks at the cut              archives b  │ †          marks
    batch                                               publishes               │
    """
    midnight_us, looks = floor_us(NOON_US, DAY_US), itertools.count()
    driven.write("a", "ann", midnight_us - 2 * HOUR_US, NOON_US)
    driven.start()
    driven.step()

    def cut_us(source: EventSource) -> int:
        if next(looks):
            raise Killed
        assert driven.publish("2026-03-01") == midnight_us
        return NO_CUT

    driven.write("b", "bob", midnight_us - HOUR_US)
    with monkeypatch.context() as patch:
        patch.setattr(parts, "published_cut", lambda *of: cut_us)
        driven.start()
    (chunk,) = (item for item in driven.reader.next_batch() if not isinstance(item, Heartbeat))
    driven.parts.delta.archive(driven.parts.decode([chunk])[0])
    with pytest.raises(Killed):
        driven.parts.delta.flush()
    assert (driven.archived("b"), driven.marks()) == (1, [])

    for _ in range(2):
        driven.start()
        driven.step()
        assert driven.marks() == [("2026-03-01", "before the cut")]
    assert driven.summary.late["clicks"] == 0
    assert driven.publish("2026-03-01") == midnight_us
    assert driven.wrong() == set()
    driven.start()
    assert driven.marks() == [("2026-03-01", "before the cut")], "what was folded since is not marked again"
