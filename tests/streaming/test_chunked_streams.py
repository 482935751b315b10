"""Redis Streams whose entries hold many events, and which are trimmed: each event is exactly one, and none is lost."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from forebay import Count, EventSource, RedisStream, Sum, WindowedView
from forebay.deploy.registry import Registry
from forebay.errors import StoreError, StoreUnavailableError
from forebay.ingest.batch import EventBatch
from forebay.language.definitions import Definitions
from forebay.offline.archive import Archive
from forebay.online.connection import connect_online
from forebay.settings import Settings
from streaming.chunk import EVENTS_MAX
from streaming.entries import CHUNKED, EVENTS_PER_ENTRY_MAX, SINGLE, layout_of
from streaming.log import LogStart
from streaming.log_ends import LogEnd, LogEnds
from streaming.redis_log import StreamReader, connect, partition_name
from streaming.retry import Patience
from streaming.trimming import Trimming
from tests.infra.server import free_port
from tests.infra.valkey import Valkey
from tests.streaming.world import World, await_that, lines, merchant, orders, with_repeats

MERCHANTS = [f"m{n}" for n in range(20)]


def source_of(key: str, dedupe: str | None = None, **more: Any) -> EventSource:
    """The orders, in one stream."""
    stream = RedisStream(key, **more)
    return EventSource(
        "orders",
        schema=orders.schema,
        timestamp="ts",
        event_id="event_id",
        stream=stream,
        history_start="2024-02-01",
        dedupe=dedupe,
    )


def reader(client: redis.Redis, key: str, offset: int = 0) -> StreamReader:
    return StreamReader(source_of(key, chunked=True), client, {f"{key}~chunked:0": LogStart(offset)}, Patience())


def read_all(stream: StreamReader) -> dict[int, bytes | None]:
    """Everything that can be read now, by offset; the chunks join without a gap."""
    found: dict[int, bytes | None] = {}
    at = None
    while chunks := stream.poll():
        for chunk in chunks:
            assert at is None or chunk.first_offset == at
            at = chunk.next_offset
            assert chunk.offsets is not None
            offsets = chunk.offsets.tolist()
            assert offsets == sorted(set(offsets))
            assert all(chunk.first_offset <= offset < at for offset in offsets)
            found |= dict(zip(offsets, chunk.lines, strict=True))
    return found


def test_an_offset_is_of_one_event_and_a_reader_resumes_at_any_of_them(valkey: Valkey, namespace: str) -> None:
    client, chance = valkey.connect(), random.Random(3)
    expected: dict[int, bytes] = {}
    for n in range(200):
        size = chance.choice([1, 1, 2, 7, EVENTS_PER_ENTRY_MAX])
        events = [b'{"n":%d,"i":%d}' % (n, i) for i in range(size)]
        name = f"{n // 5 + 1}-{n % 5}".encode()
        client.xadd(f"{namespace}:0", {"events": b"\n".join(events) + b"\n" * (n % 2)}, id=name)
        expected |= {CHUNKED.offset(name) + i: event for i, event in enumerate(events)}
    assert len(expected) > 2 * EVENTS_MAX
    found = read_all(reader(client, namespace))
    assert found == expected
    assert list(found) == sorted(found)
    behind = max(found) + 1
    for offset in [*chance.sample(sorted(found), 20), *(n + 1 for n in chance.sample(sorted(found), 20)), behind]:
        assert read_all(reader(client, namespace, offset)) == {n: e for n, e in expected.items() if n >= offset}
    done = reader(client, namespace, CHUNKED.end(b"40-4"))
    assert (done.poll(), [end.next_offset for end in done.ends()]) == ([], [CHUNKED.end(b"40-4")])


def test_what_is_no_event_has_a_place_of_its_own(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    many = b"\n".join([b"{}"] * (EVENTS_PER_ENTRY_MAX + 1))
    for n, fields in enumerate([{"events": b'{"n":1}\n\n[\r\n'}, {"event": b"{}"}, {"events": b""}, {"events": many}]):
        client.xadd(f"{namespace}:0", fields, id=f"{n + 1}-0")
    first = CHUNKED.offset(b"1-0")
    assert read_all(reader(client, namespace)) == {
        first: b'{"n":1}',
        first + 1: b"",
        first + 2: b"[\r",
        CHUNKED.offset(b"2-0"): b"",
        CHUNKED.offset(b"3-0"): b"",
        CHUNKED.offset(b"4-0"): many,
    }


def test_an_entry_that_was_trimmed_before_it_was_archived_is_refused(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    for n in range(1, 6):
        client.xadd(f"{namespace}:0", {"events": b"{}\n{}"}, id=f"{n}-0")
    client.xtrim(f"{namespace}:0", minid="4-0", approximate=False)
    assert len(read_all(reader(client, namespace, CHUNKED.end(b"4-0")))) == 2
    with pytest.raises(StoreError, match="no longer holds entry 2-0, the last that is archived"):
        reader(client, namespace, CHUNKED.end(b"2-0"))
    client.xtrim(f"{namespace}:0", maxlen=0, approximate=False)
    assert reader(client, namespace, CHUNKED.end(b"5-0")).poll() == []
    with pytest.raises(StoreError, match="no longer holds entry 4-0"):
        reader(client, namespace, CHUNKED.end(b"4-0"))
    with pytest.raises(StoreError, match="has no offset of 64 bits"):
        CHUNKED.offset(b"1-2048")
    assert (CHUNKED.offset(b"5-2"), CHUNKED.end(b"5-2")) == ((5 << 21) + (2 << 10), (5 << 21) + (3 << 10))


@dataclass
class Streamed:
    """A deployment that reads one stream."""

    world: World
    view: WindowedView
    stream: RedisStream
    key: str

    @classmethod
    def make(cls, home: Path, online_url: str, namespace: str, **more: Any) -> Streamed:
        source = source_of(f"{namespace}-orders", **more)
        features = [Count("n", windows=[None], default=0), Sum("spend", of="amount", windows=["1h"], default=0)]
        view = WindowedView("v", version=1, entity=merchant, source=source, features=features)
        home.mkdir(exist_ok=True)
        settings = Settings(home, online_url, str(home / "offline"), namespace=namespace)
        online = connect_online(settings)
        Registry.open(settings, online).apply(Definitions.of(view))
        assert isinstance(source.stream, RedisStream)
        return cls(World(home, settings, online), view, source.stream, f"{namespace}-orders:0")

    def append(self, more: Sequence[bytes], seed: int) -> None:
        """Append events, in chunks of any size where they may be chunks."""
        chance, at = random.Random(seed), 0
        log = connect(self.stream, lambda: self.world.online)
        while at < len(more):
            size = chance.choice([1, 2, 3, 9]) if self.stream.chunked else 1
            field = "events" if self.stream.chunked else "event"
            log.xadd(self.key, {field: b"\n".join(more[at : at + size])})
            at += size

    def archived(self) -> list[tuple[Any, ...]]:
        """The events of the archive in the order of their offsets."""
        archive = self.world.offline.archive(self.view.source)
        columns = ["source_offset", "event_id", "merchant", "amount", "ts"]
        rows = archive.scan(columns).sort_by("source_offset")
        return list(zip(*(rows[name].to_pylist() for name in columns[1:]), strict=True))

    def dead(self) -> list[bytes]:
        """The bytes of the dead letters, in the order of their offsets."""
        rows = (
            self.world.offline.dead_letters().table.reading(["source_offset", "raw"]).table().sort_by("source_offset")
        )
        assert len(set(rows["source_offset"].to_pylist())) == len(rows)
        return [bytes(raw) for raw in rows["raw"].to_pylist()]


def test_chunks_are_the_same_events_as_entries_of_one_each(home: Path, valkey: Valkey, namespace: str) -> None:
    single = Streamed.make(home / "single", valkey.url, f"{namespace}-s", dedupe="10m")
    chunked = Streamed.make(home / "chunked", valkey.url, f"{namespace}-c", dedupe="10m", chunked=True)
    for turn in range(3):
        some = with_repeats(turn, lines(turn, 400, first=400 * turn))
        single.append(some, turn)
        chunked.append(some, turn)
        single.world.run()
        chunked.world.run("--workers", str(1 + turn % 2))
    assert chunked.archived() == single.archived()
    assert len(chunked.archived()) > 1000
    assert chunked.dead() == single.dead()
    assert len(chunked.dead()) > 3
    expected = single.world.read(single.view, MERCHANTS)
    assert chunked.world.read(chunked.view, MERCHANTS) == expected
    assert sum(expected) == len(single.archived())


def test_a_flow_that_is_killed_between_entries_and_commits_counts_each_event_once(
    home: Path, valkey: Valkey, namespace: str
) -> None:
    one = Streamed.make(home, valkey.url, namespace, chunked=True)
    archive = one.world.offline.archive(one.view.source)
    partition, some = f"{namespace}-orders~chunked:0", lines(1, 2000)
    with one.world.flow() as process:
        one.append(some[:1000], 1)
        await_that(lambda: archive.next_offset(partition) > 0, process)
        one.append(some[1000:], 2)
        process.kill()
    one.world.run("--workers", "2")
    events = [line for line in some if line.startswith(b'{"event_id"')]
    assert len(one.archived()) == len(events) == sum(one.world.read(one.view, MERCHANTS))
    assert len(one.dead()) == len(some) - len(events)


def test_how_many_events_wait_in_chunks_is_not_known(home: Path, valkey: Valkey, namespace: str) -> None:
    client = redis.Redis.from_url(valkey.url)
    last: Any = client.xadd(f"{namespace}:0", {"events": b"{}\n{}"})
    ends, source = LogEnds(Settings(home, valkey.url, str(home)), lambda: client), source_of(namespace, chunked=True)
    partition, end = f"{namespace}~chunked:0", CHUNKED.end(last)
    assert ends(source, {}) == {partition: LogEnd(end, None)}
    assert ends(source, {partition: end}) == {partition: LogEnd(end, 0)}


@pytest.mark.parametrize("chunked", [False, True])
def test_a_flow_trims_what_is_archived_and_loses_nothing_by_it(
    home: Path, valkey: Valkey, namespace: str, chunked: bool
) -> None:
    """
    archived   ├──────────────┤                 killed, begun again, everything online lost, a view added
    the stream          ├─────┴───────────────┤
    """
    one = Streamed.make(home, valkey.url, namespace, chunked=chunked, trim=True)
    client, archive = one.world.online, one.world.offline.archive(one.view.source)
    partition = partition_name(one.stream, 0)
    some, added = [line for line in lines(1, 3600) if line.startswith(b'{"event_id"')][:3000], 0
    for turn in range(3):
        with one.world.flow() as process:
            before = archive.next_offset(partition)
            one.append(some[added : added + 800], turn)
            await_that(lambda before=before: archive.next_offset(partition) > before, process)
            one.append(some[added + 800 : added + 1000], turn)
            process.kill()
        added += 1000
        oldest: Any = client.xinfo_stream(one.key)["first-entry"]
        assert layout_of(one.stream).offset(oldest[0]) < archive.next_offset(partition)
    one.world.run("--workers", "2")
    assert client.xlen(one.key) < client.xinfo_stream(one.key)["entries-added"] / 2
    for key in client.scan_iter(f"{namespace}:*", 1000):
        client.delete(key)
    assert one.world.run()["events"] == 0
    assert sum(one.world.read(one.view, MERCHANTS)) == len(one.archived()) == len(some)
    later = WindowedView(
        "w", version=1, entity=merchant, source=one.view.source, features=[Count("m", windows=[None], default=0)]
    )
    Registry.open(one.world.settings, client).apply(Definitions.of(one.view, later))
    one.world.run()
    assert sum(one.world.read(later, MERCHANTS)) == len(some)


def test_a_stream_is_trimmed_to_the_last_entry_that_is_archived_and_no_further(valkey: Valkey, namespace: str) -> None:
    client, source = valkey.connect(), source_of(namespace, trim=True)
    for n in range(1, 1001):
        client.xadd(f"{namespace}:0", {"event": b"{}"}, id=f"{n}-0")
    trimming = Trimming([source], valkey.connect)
    for archived in (b"1-0", b"99-0", b"100-0", b"101-0", b"750-0", b"1000-0"):
        trimming("orders", {f"{namespace}:0": SINGLE.end(archived), "revived": 7})
        oldest: Any = client.xinfo_stream(f"{namespace}:0")["first-entry"]
        assert SINGLE.offset(oldest[0]) <= SINGLE.offset(archived)
        assert len(client.xrange(f"{namespace}:0", archived)) == 1001 - int(archived[:-2])
    assert client.xlen(f"{namespace}:0") <= 100
    before = client.xlen(f"{namespace}:0")
    trimming("orders", {f"{namespace}:0": SINGLE.end(b"1500-0")})
    assert client.xlen(f"{namespace}:0") == before, "a server that lost that entry keeps what proves the rest"
    Trimming([source_of(namespace)], valkey.connect)("orders", {f"{namespace}:0": SINGLE.end(b"1000-0")})


def test_a_stream_that_cannot_be_trimmed_now_stops_nothing(namespace: str) -> None:
    away = source_of(namespace, trim=True, url="redis://127.0.0.1:1/0")
    Trimming([away], redis.Redis)("orders", {f"{namespace}:0": SINGLE.end(b"5-0")})


def test_a_server_that_refuses_to_trim_stops_nothing_and_is_told_of_once(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    client.execute_command("ACL", "SETUSER", namespace, "on", ">secret", "~*", "+@all", "-xtrim")
    client.xadd(f"{namespace}:0", {"event": b"{}"}, id="5-0")
    limited = redis.Redis.from_url(valkey.url, username=namespace, password="secret")
    trimming = Trimming([source_of(namespace, trim=True)], lambda: limited)
    with capture_logs() as said:
        for _ in range(3):
            trimming("orders", {f"{namespace}:0": SINGLE.end(b"5-0")})
    assert [one["event"] for one in said] == ["untrimmed"]
    assert "'orders' are not trimmed, though trim=True says so" in said[0]["warning"]
    assert "xtrim" in said[0]["why"]
    client.execute_command("ACL", "DELUSER", namespace)


def test_nothing_is_trimmed_that_the_archive_could_not_take(
    home: Path, valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(self: Archive, batches: Sequence[EventBatch], arrived_at_us: int) -> int:
        raise StoreUnavailableError("The offline store is away")

    one = Streamed.make(home, valkey.url, namespace, trim=True)
    some = [line for line in lines(1, 500) if line.startswith(b'{"event_id"')]
    one.append(some, 1)
    with monkeypatch.context() as patch:
        patch.setattr(Archive, "append", away)
        with pytest.raises(StoreUnavailableError, match="is away"):
            one.world.run("--give-up-after", "0.2")
    assert one.world.online.xlen(one.key) == len(some)
    one.world.run()
    assert one.world.online.xlen(one.key) < len(some)
    assert sum(one.world.read(one.view, MERCHANTS)) == len(one.archived()) == len(some)


def test_a_stream_on_a_server_of_its_own_says_whose_url_to_look_at(namespace: str) -> None:
    stream = RedisStream(namespace, url=f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(StoreUnavailableError, match=rf"that the url of RedisStream\('{namespace}'\) is right"):
        connect(stream, redis.Redis)
