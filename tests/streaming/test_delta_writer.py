"""The writer of the offline store: what is away once is tried again, and nothing moves before its events are there.

A flow is driven by hand, step by step, at a clock of its own (`test_watermarks.py`).
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from forebay.core.codec import NO_CUT
from forebay.errors import StoreUnavailableError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, floor_us
from forebay.language.source import EventSource
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from streaming import delta_writer, parts
from streaming.delta_writer import BEAT_INTERVAL_US
from streaming.heartbeat import Heartbeat
from streaming.offline import Offline
from tests.streaming.test_watermarks import NOON_US, Driven, by_user

MIDNIGHT_US = floor_us(NOON_US, DAY_US)


@pytest.fixture
def driven(home: Path, online_url: str, namespace: str) -> Driven:
    """A log of two partitions, of which one has events of the day before."""
    driven = Driven(Settings(home, online_url, str(home / "offline"), namespace=namespace))
    driven.write("a", "ann", MIDNIGHT_US - 2 * HOUR_US, NOON_US)
    driven.write("b", "bob", NOON_US - HOUR_US)
    return driven


def streamed(driven: Driven) -> set[tuple[str, int]]:
    """How far the lanes of each partition are in the view's streamed tiles."""
    positions = OfflineStore(driven.settings).streamed(by_user).positions()
    return {(name.partition("/")[2], end) for name, end in positions.items()}


@pytest.mark.parametrize("name", ["append_partials", "not_archived", "beat"])
def test_a_store_that_is_away_once_is_tried_again(driven: Driven, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real, tries = getattr(Offline, name), itertools.count()

    def away_once(self: Offline, of: Any) -> Any:
        if next(tries) == 0:
            raise StoreUnavailableError("The offline store is away")
        return real(self, of)

    driven.start()
    driven.now_us += 2 * MINUTE_US
    monkeypatch.setattr(Offline, name, away_once)
    driven.step()
    assert next(tries) > 1
    assert streamed(driven) == {("a.ndjson", 2), ("b.ndjson", 1)}
    assert driven.archived_watermark_us() == driven.now_us


def test_the_position_of_a_view_without_events_is_moved_once_it_is_due(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven.start()
    driven.step()
    for partition in ("a", "b"):
        with (driven.folder / f"{partition}.ndjson").open("a") as file:
            file.write("no event\n")
    monkeypatch.setattr(delta_writer, "IDLE_INTERVAL_S", math.inf)
    driven.step()
    assert (driven.archived("a"), driven.archived("b")) == (3, 2)
    assert streamed(driven) == {("a.ndjson", 2), ("b.ndjson", 1)}
    monkeypatch.setattr(delta_writer, "IDLE_INTERVAL_S", -1.0)
    driven.parts.delta.flush()
    assert streamed(driven) == {("a.ndjson", 3), ("b.ndjson", 2)}


def test_what_a_cut_passed_while_it_was_archived_is_marked_at_once(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    day 1          ┆ day 2
    a      ●       ┆       ●
    c         ●    ┆                  its first event: it is behind nothing of its partition, so not late
    flow                              looks at the cut              archives c │ looks again, marks
    batch                                               publishes
    """
    looks = itertools.count()
    driven.start()
    driven.step()

    def cut_us(source: EventSource) -> int:
        if next(looks) == 0:
            assert driven.publish("2026-03-01") == MIDNIGHT_US
            return NO_CUT
        return MIDNIGHT_US

    driven.write("c", "bob", MIDNIGHT_US - HOUR_US)
    monkeypatch.setattr(parts, "published_cut", lambda *of: cut_us)
    driven.start()
    (chunk,) = (item for item in driven.reader.next_batch() if not isinstance(item, Heartbeat))
    driven.parts.delta.archive(driven.parts.decode([chunk])[0])
    driven.parts.delta.flush()
    assert driven.marks() == [("2026-03-01", "before the cut")]
    assert driven.summary.late["clicks"] == 0


def test_an_idle_partition_moves_the_archives_watermark_only_once_all_of_it_is_archived(driven: Driven) -> None:
    """
    b        ●            ●             idle
    reader                              chunk, then nothing: beat
    archive  ├─────────── the beat ──── chunk, and the next beat
    """
    driven.start()
    driven.step()
    driven.now_us += MINUTE_US
    driven.write("b", "bob", driven.now_us)
    driven.now_us += 2 * MINUTE_US
    chunk, _ = driven.reader.next_batch()
    driven.now_us += MINUTE_US
    (beat,) = driven.reader.next_batch()
    assert isinstance(beat, Heartbeat)
    assert not isinstance(chunk, Heartbeat)
    assert beat.ends["b.ndjson"].next_offset == 2
    driven.parts.delta.archive(beat)
    driven.parts.delta.flush()
    assert driven.archived_watermark_us() == NOON_US - HOUR_US
    driven.parts.delta.archive(driven.parts.decode([chunk])[0])
    driven.parts.delta.flush()
    assert driven.archived_watermark_us() == NOON_US + MINUTE_US
    driven.now_us += BEAT_INTERVAL_US
    driven.step()
    assert driven.archived_watermark_us() == driven.now_us
