"""A flow that is started while a store is away waits for it, as one does that runs; so does a reader of a log."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

import streaming.archive_log
from forebay import Count, FileStream, RedisStream, WindowedView
from forebay.deploy.registry import Registry
from forebay.errors import StoreUnavailableError
from forebay.language.definitions import Definitions
from forebay.offline.archive import Archive
from forebay.offline.replay import Stretches, replay
from forebay.online.signs import Signs
from streaming.archive_log import Archived
from streaming.log import LogStart
from streaming.ready import _say_elsewhere
from streaming.redis_log import StreamReader, connect
from streaming.retry import Patience
from tests.infra.seaweedfs import SeaweedFs
from tests.infra.valkey import Valkey
from tests.streaming.test_chunked_streams import Streamed, source_of
from tests.streaming.world import (
    VIEWS,
    World,
    await_that,
    check_archive,
    check_online,
    check_streamed,
    end,
    lines,
    orders,
    user,
)


def check(world: World) -> None:
    check_archive(world)
    check_streamed(world)
    check_online(world)


def first_warning(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_flow_begins_once_redis_is_there(home: Path, own_valkey: Valkey, namespace: str, workers: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    world.append("a.ndjson", lines(1, 200))
    own_valkey.kill()
    with world.flow("--workers", workers) as process:
        assert first_warning(process).startswith("warning: waiting up to 60 s: Redis at")
        own_valkey.restart()
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        assert end(process)[0] == 0
    check(world)


def test_a_flow_begins_once_s3_is_there(home: Path, online_url: str, namespace: str, own_s3: SeaweedFs) -> None:
    world = World.make(home, online_url, namespace, f"{own_s3.url}/{namespace}")
    world.append("a.ndjson", lines(1, 200))
    own_s3.kill()
    with world.flow() as process:
        assert "offline store" in first_warning(process)
        own_s3.restart()
        await_that(lambda: world.applied() == len(world.log["a.ndjson"]), process)
        assert end(process)[0] == 0
    check(world)


def test_a_flow_that_waits_to_begin_gives_up_in_one_line(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    own_valkey.kill()
    with world.flow("--give-up-after", "0.3") as process:
        said = process.communicate(timeout=60)[1].splitlines()
    assert process.returncode == 2
    assert [line.partition(":")[0] for line in said] == ["warning", "error"]
    assert "cannot be reached" in said[1]


def test_sigterm_ends_a_flow_that_waits_to_begin(home: Path, own_valkey: Valkey, namespace: str) -> None:
    world = World.make(home, own_valkey.url, namespace)
    own_valkey.kill()
    with world.flow("--give-up-after", "100000") as process:
        assert "waiting" in first_warning(process)
        code, _, errors = end(process, signal.SIGTERM)
    assert (code, errors.count("\n")) == (2, 1)
    assert errors.startswith("error: Redis at")


def test_whose_source_nobody_streams_any_more_is_said(home: Path, valkey: Valkey, namespace: str) -> None:
    """A flow of one source replaces one of two, which ends."""
    world = World.make(home, valkey.url, namespace)
    others = replace(orders, name="others", stream=FileStream("${FOREBAY_HOME}/others"))
    of_others = WindowedView("of_others", 1, user, others, features=[Count("n", windows=["1h"], default=0)])
    (home / "others").mkdir()
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, of_others))
    with world.flow() as first:
        look = Signs(world.online, namespace)
        await_that(lambda: bool(look.read("others")), first)
        with world.flow("--source", "orders") as second:
            assert first_warning(second) == (
                "warning: flow 1, which this one replaces, also streamed others, and ends: nobody streams that now. "
                "Start `forebay stream --source others` beside this one, or one flow for all\n"
            )
            assert end(second)[0] == 0
        with world.flow("--source", "others") as third, world.flow("--source", "orders") as fourth:
            for process, source in ((third, "others"), (fourth, "orders")):
                await_that(lambda: look.read(source)[0].flow > 2, process)  # noqa: B023  asked within this turn
            ended = [end(process) for process in (third, fourth)]
            assert [(code, errors) for code, _, errors in ended] == [(0, ""), (0, "")], "each its own"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], ""),
        (["a.ndjson", "b.json"], ""),
        (["b.ndjson.gz", "a.json"], "of the 2 files in {folder}, 2 cannot be read for 'orders', such as a.json: "),
        (
            ["a.ndjson", "a.ndjson.gz", "b.json"],
            "of the 3 files in {folder}, 1 cannot be read for 'orders', such as a.nd",
        ),
    ],
)
def test_a_folder_of_files_that_are_not_read_is_told_of(
    home: Path, online_url: str, namespace: str, names: list[str], said: str
) -> None:
    world = World.make(home, online_url, namespace)
    for name in names:
        (home / "orders" / name).write_bytes(b"")
    with capture_logs() as told:
        world.run()
    warnings = "\n".join(one["warning"] for one in told if "warning" in one)
    assert warnings.startswith(said.format(folder=home / "orders"))
    assert warnings.count("expected names that end in .ndjson, .jsonl, .parquet") == bool(said)


def test_a_stream_of_the_key_itself_is_not_read_and_told_of(home: Path, valkey: Valkey, namespace: str) -> None:
    one = Streamed.make(home, valkey.url, namespace)
    bare = one.key.rpartition(":")[0]
    client = valkey.connect()
    client.xadd(bare, {"event": b"{}"})
    with capture_logs() as told:
        one.world.run()
        one.append([line for line in lines(1, 40) if line.startswith(b'{"event_id"')][:5], 1)
        one.world.run()
    assert [one["event"] for one in told if "warning" in one] == ["stream_elsewhere"]
    (warning,) = [one["warning"] for one in told if "warning" in one]
    assert f"partition i of RedisStream({bare!r}) is the stream {bare}:i" in warning


def test_whoever_may_only_read_the_partitions_of_a_stream_is_let_begin(
    home: Path, valkey: Valkey, log_valkey: Valkey, namespace: str
) -> None:
    client, place = log_valkey.connect(), log_valkey.url.partition("://")[2].partition("@")[2] or log_valkey.url[8:]
    reading = (
        "resetkeys",
        f"~{namespace}log:*",
        "-@all",
        "+xread",
        "+xinfo",
        "+xrange",
        "+xrevrange",
        "+ping",
        "+info",
    )
    client.execute_command("ACL", "SETUSER", "reader", "on", ">secret", *reading, "+exists", "+client", "+hello")
    source = source_of(f"{namespace}log", url=f"redis://reader:secret@{place}")
    assert isinstance(source.stream, RedisStream)
    limited = connect(source.stream, valkey.connect)
    with capture_logs() as told:
        _say_elsewhere(source, source.stream, limited)
    assert told == []


def test_a_flow_that_nobody_listens_to_ends_as_any_other(home: Path, online_url: str, namespace: str) -> None:
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 100))
    with world.flow("--until-end", "--json") as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait()) == ("", 0)
    check(world)


@pytest.fixture
def log_valkey() -> Iterator[Valkey]:
    with Valkey(durable=True) as valkey:
        yield valkey


def test_a_log_in_a_redis_that_goes_away_is_waited_for(
    home: Path, valkey: Valkey, log_valkey: Valkey, namespace: str
) -> None:
    one = Streamed.make(home, valkey.url, namespace, trim=True, url=log_valkey.url)
    some = [line for line in lines(1, 400) if line.startswith(b'{"event_id"')]
    one.append(some[:200], 1)
    with one.world.flow() as process:
        await_that(lambda: len(one.archived()) == 200, process)
        log_valkey.kill()
        log_valkey.restart()
        one.append(some[200:], 2)
        await_that(lambda: len(one.archived()) == len(some), process)
        assert end(process)[0] == 0
        log_valkey.kill()
    with one.world.flow("--until-end", "--give-up-after", "0.2") as process:
        assert "cannot be reached" in process.communicate(timeout=60)[1]
    assert process.returncode == 2


def test_a_stream_that_is_away_has_no_end_and_gives_nothing(own_valkey: Valkey, namespace: str) -> None:
    clock = Clock()
    source = source_of(namespace)
    own_valkey.connect().xadd(f"{namespace}:0", {"event": b"{}"})
    reader = StreamReader(source, own_valkey.connect(), {f"{namespace}:0": LogStart()}, Patience(10))
    reader._forbearance._clock_s = clock
    assert len(reader.poll()) == 1
    assert not reader.poll()
    assert reader.ended
    assert reader.ends()
    own_valkey.kill()
    assert not reader.poll()
    assert not reader.ended
    assert not reader.ends()
    clock.now_s += 9
    assert not reader.poll()
    clock.now_s += 1
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        reader.poll()


def test_an_archive_that_goes_away_in_a_replay_is_read_on_from_there(
    home: Path, valkey: Valkey, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.make(home, valkey.url, namespace)
    world.append("a.ndjson", lines(1, 3000))
    world.run()
    left = iter([2, 0, 0, 1, 100])

    def interrupted(archive: Archive, stretches: Stretches) -> Iterator[tuple[str, pa.Table]]:
        for _, (name, rows) in zip(range(next(left)), pieces(archive, stretches), strict=False):
            yield name, rows
        if stretches:
            raise StoreUnavailableError("The offline store is away")

    def pieces(archive: Archive, stretches: Stretches) -> Iterator[tuple[str, pa.Table]]:
        for name, rows in replay(archive, stretches):
            for first in range(0, len(rows), 500):
                yield name, rows.slice(first, 500)

    monkeypatch.setattr(streaming.archive_log, "replay", interrupted)
    archive, end_offset = world.offline.archive(orders), len(world.log["a.ndjson"])
    read = Archived(archive, {"a.ndjson": (0, end_offset)}, Patience(60, again_after_s=0))
    chunks, polls, away = [], 0, 0
    while (some := read.poll()) or read.away:
        chunks += some
        polls, away = polls + 1, away + read.away
    offsets = [n for chunk in chunks for n in chunk.table["source_offset"].to_pylist()]
    assert offsets == sorted(n for _, n in world.valid())
    assert [chunk.first_offset for chunk in chunks[1:]] == [chunk.next_offset for chunk in chunks[:-1]]
    assert (chunks[0].first_offset, chunks[-1].next_offset, away) == (0, end_offset, 2)


class Clock:
    """Stands still until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s
