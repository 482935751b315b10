"""Redis Streams whose entries go before they are read, that are large, or whose server hangs.

a stream    (gone)  ● ┆ ● ●      the last that was read is there: nothing was lost
a stream    (gone)    ┆ ● ●      nothing was lost, if what was added since is all there
a stream    (gone)    ┆   ●      an event is lost: refused, unless that was accepted
"""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from forebay import RedisStream
from forebay.errors import StoreError, UnknownNameError
from streaming.chunk import BYTES_MAX, CHUNKS_MAX, EVENTS_MAX
from streaming.entries import CHUNKED, SINGLE, layout_of
from streaming.log import LogStart
from streaming.redis_log import (
    CHUNKED_ENTRIES,
    ENTRIES_FIRST,
    GROWTH,
    HANGS_AFTER_S,
    StreamReader,
    connect,
    partition_name,
)
from streaming.retry import Patience
from tests.infra.valkey import Valkey
from tests.streaming.test_chunked_streams import Streamed, source_of
from tests.streaming.world import await_that, lines


class Asked(redis.Redis):
    """A client that notes which commands it sends, and what it was given by reads."""

    @classmethod
    def of(cls, server: Valkey) -> Asked:
        made = cls.from_url(server.url)
        made.commands, made.counts, made.bytes = [], [], []
        return made

    commands: list[str]
    counts: list[int]
    bytes: list[int]

    def execute_command(self, *args: Any, **options: Any) -> Any:
        self.commands.append(args[0])
        return super().execute_command(*args, **options)

    def xread(self, streams: Any, count: int | None = None, *args: Any, **named: Any) -> Any:
        found: Any = super().xread(streams, count, *args, **named)
        assert count is not None
        self.counts.append(count)
        held = found.values() if isinstance(found, dict) else (entries for _, entries in found or ())
        self.bytes.append(sum(len(value) for some in held for _, fields in some for value in fields.values()))
        return found


def reader(client: redis.Redis, key: str, *, partitions: int = 1, **more: Any) -> StreamReader:
    accepted, start = more.pop("accepted", False), LogStart(more.pop("offset", 0), more.pop("applied", 0))
    source = source_of(key, partitions=partitions, **more)
    assert isinstance(source.stream, RedisStream)
    starts = {partition_name(source.stream, n): start for n in range(partitions)}
    return StreamReader(source, client, starts, Patience(), accepted=accepted)


def read(stream: StreamReader) -> list[bytes | None]:
    return [line for chunk in stream.poll() for line in chunk.lines]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_producer_that_trims_what_waits_is_noticed(valkey: Valkey, namespace: str, chunked: bool) -> None:
    client, field = valkey.connect(), "events" if chunked else "event"
    for n in range(1, 6):
        client.xadd(f"{namespace}:0", {field: b"%d" % n}, id=f"{n}-0")
    following = reader(client, namespace, chunked=chunked)
    assert len(read(following)) == 5
    for n in range(6, 21):
        client.xadd(f"{namespace}:0", {field: b"%d" % n}, id=f"{n}-0", maxlen=5, approximate=False)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"no longer holds entry 5-0, the last that is read, .*--accept-loss orders"
        ):
            following.poll()
        assert list(following.ends()) == []


def test_random_trims_are_noticed_where_they_took_what_was_unread_and_nowhere_else(
    valkey: Valkey, namespace: str
) -> None:
    """Against a model that knows every entry."""
    client, refused, gone_on, counted = valkey.connect(), 0, 0, 0
    for seed in range(250):
        chance, key = random.Random(seed), f"{namespace}-{seed}"
        added = [_add(client, key) for _ in range(chance.randrange(1, 5))]
        following = reader(client, key)
        added += [_add(client, key) for _ in range(chance.randrange(3))]
        seen = len(read(following))
        lost = False
        for _ in range(chance.randrange(1, 12)):
            step = chance.random()
            if step < 0.5:
                added += [_add(client, key) for _ in range(chance.randrange(1, 4))]
            elif step < 0.75 and added:
                keep = chance.choice([0, 1, 2, len(added) - seen, len(added) - seen + 1])
                left: int = client.xlen(f"{key}:0")
                client.xtrim(f"{key}:0", maxlen=keep, approximate=False)
                lost |= min(left, keep) < len(added) - seen
            elif lost and seen < len(added) and client.xlen(f"{key}:0"):
                with pytest.raises(StoreError, match="no longer holds"):
                    following.poll()
                refused += 1
                break
            else:
                whole = not client.xrange(f"{key}:0", "-", added[seen - 1])
                found = read(following)
                counted += bool(found) and whole
                assert found == ([] if lost else added[seen:]), f"seed {seed}"
                seen += len(found)
                gone_on += 1
    assert refused > 20
    assert gone_on > 200
    assert counted > 10, "nothing was left of what was read, and nothing was lost"


def _add(client: redis.Redis, key: str) -> bytes:
    """Append an entry whose event is its id."""
    number: Any = client.incr(f"{key}-ids")
    client.xadd(f"{key}:0", {"event": b"%d-0" % number}, id=b"%d-0" % number)
    return b"%d-0" % number


def test_what_is_looked_at_is_counted(valkey: Valkey, namespace: str) -> None:
    client, other = Asked.of(valkey), valkey.connect()
    following = reader(client, namespace, partitions=3)
    for n in range(3):
        other.xadd(f"{namespace}:{n}", {"event": b"{}"})
    read(following)
    client.commands.clear()
    read(following)
    assert client.commands == ["XREAD"], "where there is nothing"
    other.xadd(f"{namespace}:0", {"event": b"{}"})
    read(following)
    assert client.commands == ["XREAD", "XREAD", "XRANGE"]
    client.commands.clear()
    for n in range(3):
        other.xadd(f"{namespace}:{n}", {"event": b"{}"})
    assert len(read(following)) == 3
    assert client.commands == ["XREAD"], "and one pipeline"


def test_an_entry_within_which_a_flow_resumes_need_not_have_one_before_it(valkey: Valkey, namespace: str) -> None:
    client = valkey.connect()
    for n in (5, 6):
        client.xadd(f"{namespace}:0", {"events": b"1\n2\n3"}, id=f"{n}-0")
    client.xtrim(f"{namespace}:0", minid="6-0", approximate=False)
    following = reader(client, namespace, chunked=True, offset=CHUNKED.offset(b"6-0") + 1)
    assert read(following) == [b"2", b"3"]


@pytest.mark.parametrize("chunked", [False, True])
def test_an_accepted_loss_is_passed_over_and_said(valkey: Valkey, namespace: str, chunked: bool) -> None:
    client, field = valkey.connect(), "events" if chunked else "event"
    layout = CHUNKED if chunked else SINGLE
    for n in range(1, 11):
        client.xadd(f"{namespace}:0", {field: b"%d" % n}, id=f"{n}-0", maxlen=3, approximate=False)
    resumed = layout.end(b"2-0")
    with pytest.raises(StoreError, match=r"the last that is archived, .*--accept-loss orders to read on"):
        reader(client, namespace, chunked=chunked, offset=resumed)
    following = reader(client, namespace, chunked=chunked, offset=resumed, accepted=True)
    with capture_logs() as said:
        (chunk,) = following.poll()
        assert (list(chunk.lines), chunk.first_offset) == ([b"8", b"9", b"10"], resumed)
        for n in range(11, 20):
            client.xadd(f"{namespace}:0", {field: b"%d" % n}, id=f"{n}-0", maxlen=3, approximate=False)
        (chunk,) = following.poll()
        assert (list(chunk.lines), chunk.first_offset) == ([b"17", b"18", b"19"], layout.end(b"10-0"))
    named = [(one["event"], one["source"], one["first_offset"], one["end_offset"]) for one in said]
    assert "of 'orders' were deleted before they were read, and are passed over, as was accepted" in said[0]["warning"]
    assert named == [
        ("lost_unread", "orders", resumed, layout.offset(b"8-0")),
        ("lost_unread", "orders", layout.end(b"10-0"), layout.offset(b"17-0")),
    ]


def test_an_accepted_loss_of_a_stream_that_is_empty_since_need_not_be_accepted_again(
    home: Path, valkey: Valkey, namespace: str
) -> None:
    one = Streamed.make(home, valkey.url, namespace)
    some = [line for line in lines(1, 300) if line.startswith(b'{"event_id"')]
    one.append(some[:100], 1)
    one.world.run()
    one.append(some[100:150], 2)
    valkey.connect().xtrim(one.key, maxlen=0, approximate=False)
    with pytest.raises(StoreError, match="no longer holds entry"):
        one.world.run()
    with capture_logs() as said:
        assert one.world.run("--accept-loss", "orders")["events"] == 0
    assert [event["event"] for event in said if event["event"] == "lost_unread"] == ["lost_unread"]
    assert one.world.run()["events"] == 0
    client, archive = valkey.connect(), one.world.offline.archive(one.view.source)
    following = reader(client, f"{namespace}-orders", offset=archive.next_offset(one.key))
    client.xadd(one.key, {"event": b"later"})
    assert read(following) == [b"later"]


def test_a_stream_that_ends_before_what_was_read_is_said(valkey: Valkey, namespace: str) -> None:
    """Its server came back without its last entries: what it gets later is read. If it was made anew, some is not."""
    client = valkey.connect()
    for n in range(1, 4):
        client.xadd(f"{namespace}:0", {"event": b"%d" % n}, id=f"{n}-0")
    with capture_logs() as said:
        following = reader(client, namespace, offset=SINGLE.end(b"7-0"))
    assert [(event["event"], event["partition"]) for event in said] == [("log_went_back", f"{namespace}:0")]
    assert f"was read up to {SINGLE.end(b'7-0')}: its server lost its newest entries" in said[0]["warning"]
    client.xadd(f"{namespace}:0", {"event": b"8"}, id="8-0")
    assert read(following) == [b"8"]


def test_a_flow_whose_stream_was_trimmed_unread_goes_on_where_the_loss_is_accepted(
    home: Path, valkey: Valkey, namespace: str
) -> None:
    one = Streamed.make(home, valkey.url, namespace)
    some = [line for line in lines(1, 400) if line.startswith(b'{"event_id"')]
    one.append(some[:100], 1)
    one.world.run()
    one.append(some[100:], 1)
    one.world.online.xtrim(one.key, maxlen=50, approximate=False)
    with pytest.raises(StoreError, match="no longer holds"):
        one.world.run()
    with pytest.raises(UnknownNameError, match="There is no source 'others'"):
        one.world.run("--accept-loss", "others")
    assert one.world.run("--accept-loss", "orders")["events"] == 50
    assert len(one.archived()) == 150
    assert one.world.run()["events"] == 0, "the loss is behind the positions: it need not be accepted again"


def test_what_a_read_holds_is_bounded_in_bytes(valkey: Valkey, namespace: str) -> None:
    client, size = Asked.of(valkey), 256 << 10
    for n in range(200):
        client.xadd(f"{namespace}:0", {"event": b"%06d" % n, "other": bytes(size)})
    following = reader(client, namespace)
    assert [line for _ in range(40) for line in read(following)] == [b"%06d" % n for n in range(200)]
    assert client.counts[0] == ENTRIES_FIRST
    assert client.bytes[0] == ENTRIES_FIRST * (size + 6)
    assert max(client.bytes[1:]) <= BYTES_MAX
    assert max(client.counts[1:]) > 1
    client.delete(f"{namespace}:0")


@pytest.mark.parametrize(("chunked", "most"), [(False, EVENTS_MAX), (True, CHUNKED_ENTRIES)])
def test_small_entries_are_soon_read_many_at_a_time(valkey: Valkey, namespace: str, chunked: bool, most: int) -> None:
    client = Asked.of(valkey)
    with client.pipeline(transaction=False) as pipe:
        for n in range(2 * EVENTS_MAX):
            pipe.xadd(f"{namespace}:0", {"events" if chunked else "event": b"%d" % n})
        pipe.execute()
    following = reader(client, namespace, chunked=chunked)
    while read(following):
        pass
    grown = [min(ENTRIES_FIRST * GROWTH**n, most) for n in range(len(client.counts))]
    assert client.counts == grown
    assert max(client.counts) == most


def test_one_large_entry_of_a_stream_that_falls_quiet_slows_the_others_only_for_a_while(
    valkey: Valkey, namespace: str
) -> None:
    client = Asked.of(valkey)
    client.xadd(f"{namespace}:0", {"event": bytes(3 << 20)})
    with client.pipeline(transaction=False) as pipe:
        for n in range(2 * EVENTS_MAX):
            pipe.xadd(f"{namespace}:{1 + n % 3}", {"event": b"%d" % n})
        pipe.execute()
    following = reader(client, namespace, partitions=4)
    while read(following):
        pass
    assert min(client.counts) < ENTRIES_FIRST
    assert client.counts[-1] > EVENTS_MAX // 4
    client.delete(*(f"{namespace}:{n}" for n in range(4)))


def test_many_streams_share_what_a_read_may_hold(valkey: Valkey, namespace: str) -> None:
    client, size, partitions = Asked.of(valkey), 4096, 4 * CHUNKS_MAX
    with client.pipeline(transaction=False) as pipe:
        for n in range(partitions * 300):
            pipe.xadd(f"{namespace}:{n % partitions}", {"event": bytes(size)})
        pipe.execute()
    following, found = reader(client, namespace, partitions=partitions), 0
    while some := read(following):
        found += len(some)
    assert found == partitions * 300
    assert max(client.bytes) <= CHUNKS_MAX * BYTES_MAX
    assert max(client.bytes) > CHUNKS_MAX * BYTES_MAX // 2
    client.delete(*(f"{namespace}:{n}" for n in range(partitions)))


def test_a_server_that_hangs_is_given_up_soon_and_read_on_when_it_answers(own_valkey: Valkey, namespace: str) -> None:
    source = source_of(namespace, url=own_valkey.url)
    assert isinstance(source.stream, RedisStream)
    client = connect(source.stream, redis.Redis)
    known = client.connection_pool.connection_kwargs
    assert (known["socket_timeout"], known["socket_connect_timeout"]) == (HANGS_AFTER_S, HANGS_AFTER_S)
    told: list[str] = []
    following = StreamReader(
        source, client, {f"{namespace}:0": LogStart()}, Patience(60, lambda error: told.append(str(error)))
    )
    own_valkey.connect().xadd(f"{namespace}:0", {"event": b"1"})
    process = own_valkey.server.pid
    os.kill(process, signal.SIGSTOP)
    try:
        assert (read(following), following.ended, list(following.ends())) == ([], False, [])
        assert len(told) == 1
        assert (read(following), len(told)) == ([], 1), "nobody waits in the pause between two tries"
    finally:
        os.kill(process, signal.SIGCONT)
    found: list[bytes | None] = []
    await_that(_adds(found, following))
    assert found == [b"1"]
    slow = RedisStream(namespace, url=f"{own_valkey.url}?socket_timeout=7")
    assert connect(slow, redis.Redis).connection_pool.connection_kwargs["socket_timeout"] == 7


def _adds(found: list[bytes | None], following: StreamReader) -> Callable[[], bool]:
    def polled() -> bool:
        found.extend(read(following))
        return bool(found)

    return polled


def test_an_id_that_has_no_offset_is_told_from_too_many_entries_in_a_millisecond() -> None:
    with pytest.raises(StoreError, match=r"5-1048576 has no offset.*expected less than 2\^20 entries in a millisec"):
        SINGLE.offset(b"5-1048576")
    with pytest.raises(
        StoreError, match=r"has no offset.*expected milliseconds since 1970, .* less than 2\^43\. Remove"
    ):
        SINGLE.offset(b"1764300000000000-0")


def test_layouts_give_back_what_they_are_given() -> None:
    assert layout_of(RedisStream("a")).last_id(SINGLE.end(b"7-3")) == "7-3"
    assert layout_of(RedisStream("a", chunked=True)).last_id(CHUNKED.end(b"7-3")) == "7-3"
