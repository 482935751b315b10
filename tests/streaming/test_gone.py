"""A partition that the log no longer has is quiet: it holds neither a view's watermark nor the archive's for ever.

the stores know    a ────┤            b ─────▶
the log has                           b ─────▶          a is read to its end: nobody reads it any more
"""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from forebay import FileStream, KafkaTopic, RedisStream, WindowedView
from forebay.core.identity import SLOTS
from forebay.deploy.registry import Registry
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, day_text, floor_us
from forebay.language.definitions import Definitions
from forebay.online.keys import Keys
from forebay.online.progress import Progress
from streaming.heartbeat import End, Heartbeat
from streaming.kafka_log import ANSWERED_WITHIN_S
from streaming.routing import reader_of
from tests.infra.kafka import Broker
from tests.infra.valkey import Valkey
from tests.streaming import test_watermarks
from tests.streaming.kafka_world import KafkaWorld
from tests.streaming.test_chunked_streams import Streamed
from tests.streaming.test_kafka_log import Following, numbers
from tests.streaming.test_watermarks import NOON_US, Driven, by_user, clicks, driven
from tests.streaming.world import VIEWS, World, lines, orders

__all__ = ["driven"]


def watermarks(world: World, view: WindowedView) -> tuple[int, int | None]:
    """How far a view is, and the archive."""
    blobs = world.online.mget(Keys(world.settings.namespace).progress(view.key, range(SLOTS)))
    online = min(Progress.decode(bytes(blob)).watermark_us for blob in blobs if blob)
    return online, world.offline.archive(view.source).watermark_us()


def test_a_file_that_was_deleted_holds_nothing_back_and_is_read_on_when_it_is_put_back(driven: Driven) -> None:
    """
    day 1   ●11:00                deleted               put back, and ● of day 1 behind it
    day 2             ●12:00      restart ● ● ●
    """
    driven.write("day-1", "ann", NOON_US - HOUR_US)
    driven.write("day-2", "bob", NOON_US)
    driven.start()
    driven.step(1)
    assert driven.watermark_us() == NOON_US - HOUR_US
    path = driven.folder / "day-1.ndjson"
    kept = path.read_bytes()
    path.unlink()
    driven.start()
    for hours in (1, 2):
        driven.now_us = NOON_US + hours * HOUR_US
        driven.write("day-2", "bob", driven.now_us - SECOND_US)
        driven.step()
        assert driven.watermark_us() >= driven.now_us - SECOND_US
        assert driven.archived_watermark_us() == driven.now_us - SECOND_US
        assert driven.statuses(driven.now_us) == {"PRESENT"}
    driven.now_us = NOON_US + DAY_US
    driven.write("day-2", "bob", driven.now_us)
    driven.step()
    assert driven.publish("2026-03-01", "2026-03-02") == floor_us(driven.now_us, DAY_US), "the cut moves"
    path.write_bytes(kept)
    driven.write("day-1", "ann", NOON_US - HOUR_US + MINUTE_US)
    driven.start()
    driven.step()
    assert driven.repairs() == {(day_text(NOON_US), "late"), (day_text(NOON_US), "before the cut")}
    driven.publish("2026-03-02")
    assert driven.wrong() == set()


def test_a_run_to_the_end_leaves_what_is_gone_behind_at_once(driven: Driven) -> None:
    driven.write("day-1", "ann", NOON_US - HOUR_US)
    driven.write("day-2", "bob", NOON_US)
    driven.start()
    driven.step(1)
    (driven.folder / "day-1.ndjson").unlink()
    driven.start(until_end=True)
    with pytest.raises(StopIteration):
        driven.step(9)
    driven.parts.delta.start()
    driven.parts.delta.close()
    assert (driven.watermark_us(), driven.archived_watermark_us()) == (NOON_US, NOON_US)


def test_what_was_applied_and_not_archived_before_its_file_was_deleted_is_said(driven: Driven) -> None:
    """
    day 1   ● archived   ● ● applied, killed   deleted
    day 2   ●                                            restart: two events are lost to the archive
    """
    driven.write("day-1", "ann", NOON_US - HOUR_US)
    driven.write("day-2", "bob", NOON_US)
    driven.start()
    driven.step(1)
    driven.write("day-1", "ann", NOON_US + 1, NOON_US + 2)
    for item in (one for one in driven.reader.next_batch() if not isinstance(one, Heartbeat)):
        driven.writer.write(driven.parts.split([driven.parts.decode([item])[0]]))
    with capture_logs() as said:
        driven.start()
    assert [one for one in said if one["event"] == "lost_unarchived"] == [], "the file is there: it is read again"
    (driven.folder / "day-1.ndjson").unlink()
    with capture_logs() as said:
        driven.start()
        driven.step(3)
    (lost,) = [one for one in said if one["event"] == "lost_unarchived"]
    assert (lost["source"], lost["partition"]) == ("clicks", "day-1.ndjson")
    assert (lost["first_offset"], lost["end_offset"]) == (1, 3)
    assert "from offset 1 to before 3 are in no archive" in lost["warning"]


def test_an_empty_folder_says_nothing_because_a_disk_may_be_away(driven: Driven) -> None:
    driven.write("day-1", "ann", NOON_US)
    driven.start()
    driven.step()
    (driven.folder / "day-1.ndjson").unlink()
    driven.start()
    driven.now_us += HOUR_US
    driven.step()
    assert driven.watermark_us() == NOON_US
    driven.write("day-2", "bob", driven.now_us)
    driven.start()
    driven.step()
    assert driven.watermark_us() == driven.now_us


def test_the_files_of_a_folder_that_was_declared_before_hold_nothing_back(
    driven: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    driven.write("a", "ann", NOON_US)
    driven.start()
    driven.step()
    source = replace(clicks, stream=FileStream("${FOREBAY_HOME}/clicks2"))
    monkeypatch.setattr(test_watermarks, "clicks", source)
    monkeypatch.setattr(test_watermarks, "by_user", replace(by_user, source=source))
    driven.folder = driven.settings.home / "clicks2"
    driven.folder.mkdir()
    driven.now_us = NOON_US + HOUR_US
    driven.write("b", "bob", driven.now_us)
    driven.start()
    driven.step()
    assert (driven.watermark_us(), driven.archived_watermark_us()) == (driven.now_us, driven.now_us)


def test_the_partitions_of_an_earlier_epoch_hold_nothing_back(
    noida: Broker, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(noida, home, online_url, namespace, partitions=2)
    for partition in (0, 1):
        world.append(str(partition), lines(partition, 50))
    world.run()
    before, _ = watermarks(world, VIEWS[0])
    noida.delete(world.topic)
    noida.create(world.topic)
    source = replace(orders, stream=KafkaTopic(world.topic, epoch=1))
    definitions = Definitions.of(*(replace(view, source=source) for view in VIEWS))
    Registry.open(world.settings, world.online).apply(definitions)
    world.append("0", lines(3, 50, first=4000))
    world.run()
    newest = world.offline.archive(orders).positions()[f"{world.topic}~1:0"].newest_us
    assert newest is not None
    assert newest > before + 10 * MINUTE_US
    assert [watermarks(world, view) for view in VIEWS] == [(newest, newest)] * len(VIEWS)


@pytest.mark.parametrize("later", [{"partitions": 1}, {"partitions": 2, "chunked": True}])
def test_streams_that_are_no_longer_declared_hold_nothing_back(
    home: Path, valkey: Valkey, namespace: str, later: dict[str, int]
) -> None:
    one = Streamed.make(home, valkey.url, namespace, partitions=2)
    some = [line for line in lines(1, 100) if line.startswith(b'{"event_id"')]
    for n, line in enumerate(some):
        one.world.online.xadd(f"{one.stream.key}:{n % 2}", {"event": line})
    one.world.run()
    before, _ = watermarks(one.world, one.view)
    source = replace(one.view.source, stream=RedisStream(one.stream.key, **later))  # type: ignore[arg-type]  # options of either kind
    Registry.open(one.world.settings, one.world.online).apply(Definitions.of(replace(one.view, source=source)))
    for line in lines(2, 50, first=4000):
        one.world.online.xadd(f"{one.stream.key}:0", {"events" if "chunked" in later else "event": line})
    one.world.run()
    newest = max(one.newest_us or 0 for one in one.world.offline.archive(orders).positions().values())
    assert newest > before + 10 * MINUTE_US
    assert watermarks(one.world, one.view) == (newest, newest)


def test_a_cluster_that_does_not_answer_says_nothing_of_what_is_gone(
    noida: Broker, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noida.create(namespace)
    noida.append(namespace, 0, numbers(0, 5))
    following = Following(noida.brokers, namespace)
    following.await_that(lambda: following.reader.ends() == [End(f"{namespace}:0", 5)])
    assert following.reader.names == {f"{namespace}:0"}
    monkeypatch.setattr("streaming.kafka_log.ANSWERED_WITHIN_S", -1.0)
    assert (following.reader.names, following.reader.ends()) == (None, [])
    assert ANSWERED_WITHIN_S > 0
    following.reader.close()


def test_what_is_gone_falls_to_the_reader_that_would_have_read_it(driven: Driven) -> None:
    names = [f"{n}.ndjson" for n in range(9)]
    for n in range(9):
        driven.write(str(n), "ann", NOON_US + n)
    driven.start()
    driven.step()
    for name in names[1:]:
        (driven.folder / name).unlink()
    driven.start()
    found: list[list[End]] = []
    for reader in range(3):
        (log,) = driven.parts.logs.open(reader, 3)
        log.poll()
        found.append([*log.ends()])
        assert [reader_of("clicks", end.partition, 3) for end in found[-1]] == [reader] * len(found[-1])
        log.close()
    assert sorted(end.partition for some in found for end in some) == names
    assert {end.next_offset for some in found for end in some} == {1}
    assert sum(map(bool, found)) > 1
