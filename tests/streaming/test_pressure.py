"""What a slow store, a hot key or a signal does to a flow: memory stays bounded, and nothing is lost.

reader ──▶ backlog (bounded) ──▶ online, offline        a reader waits while the backlog is full
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tenacity import RetryCallState

from forebay.deploy.registry import Registry
from forebay.errors import FencedError, StoreError, StoreMovingError, StoreUnavailableError
from forebay.instants import instant_text
from streaming.backlog import Backlog
from streaming.board import Board
from streaming.offline import Offline
from streaming.partials import Partials
from streaming.retry import Patience
from tests.infra.valkey import Valkey
from tests.streaming.world import START_US, VIEWS, WAIT_S, World, await_that, check, end, lines, merchant_orders, orders

BOUND, CHUNK, FILES = 2000, 100, 4
POLL = 2 * CHUNK * FILES
"""What one poll of the one reader adds at most: a chunk of each file, counted for both stores."""


@pytest.fixture
def backlogs(monkeypatch: pytest.MonkeyPatch) -> list[Backlog]:
    """The backlogs of the flows that are made from now on; they are small."""
    made: list[Backlog] = []

    def small(*arguments: Any, **named: Any) -> Backlog:
        made.append(Backlog(BOUND, *arguments, **named))
        return made[-1]

    monkeypatch.setattr("streaming.parts.Backlog", small)
    monkeypatch.setattr("streaming.file_log.EVENTS_MAX", CHUNK)
    monkeypatch.setattr("streaming.file_log.BYTES_MAX", 1 << 14)
    return made


def fill_log(world: World, count: int) -> None:
    for n in range(FILES):
        world.append(f"{n}.ndjson", lines(n, count))


def test_a_valkey_that_pauses_slows_reading_and_loses_nothing(
    home: Path, own_valkey: Valkey, namespace: str, backlogs: list[Backlog]
) -> None:
    world = World.make(home, own_valkey.url, namespace)
    fill_log(world, 1500)
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        await_that(lambda: world.applied() > 0)
        for _ in range(3):
            world.online.execute_command("CLIENT", "PAUSE", "400", "WRITE")
            world.online.set(f"{namespace}-probe", 1)  # answered when the pause is over
            pauses += 1

    thread = threading.Thread(target=pause)
    thread.start()
    world.run()
    thread.join()
    (backlog,) = backlogs
    assert pauses == 3
    assert 0 < backlog.most <= BOUND + POLL
    assert (backlog.waiting("online"), backlog.waiting("offline")) == (0, 0)
    check(world)


def test_what_is_much_is_archived_before_its_time(
    world: World, backlogs: list[Backlog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that waits for room does not wait for the next flush."""
    monkeypatch.setattr("streaming.delta_writer.FLUSH_INTERVAL_S", 3600.0)
    monkeypatch.setattr("streaming.delta_writer.FLUSH_EVENTS", BOUND // 2)
    fill_log(world, 1500)
    thread = threading.Thread(target=world.run, daemon=True)
    thread.start()
    thread.join(WAIT_S)
    assert not thread.is_alive()
    assert backlogs[0].most > BOUND // 2
    check(world)


def test_a_valkey_that_has_no_room_is_waited_for_and_loses_nothing(
    home: Path, own_valkey: Valkey, namespace: str, backlogs: list[Backlog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """commits ● ● ● ╳ (OOM) ╳ ╳ … ● ●      each refused commit is made again, as soon as there is room"""
    world = World.make(home, own_valkey.url, namespace)
    fill_log(world, 1500)
    refused: list[str] = []

    def told(self: Patience, state: RetryCallState) -> None:
        assert state.outcome is not None
        refused.append(str(state.outcome.exception()))
        if len(refused) == 3:
            world.online.config_set("maxmemory", 0)

    def full() -> None:
        await_that(lambda: world.applied() > 0)
        world.online.config_set("maxmemory", 1)

    monkeypatch.setattr(Patience, "_tell", told)
    thread = threading.Thread(target=full)
    thread.start()
    world.run()
    thread.join()
    assert len(refused) == 3
    assert all("takes no writes at the moment (OOM" in why and "INFO memory" in why for why in refused)
    check(world)


def test_an_offline_store_that_hangs_stops_reading_at_the_bound(
    home: Path, online_url: str, namespace: str, backlogs: list[Backlog], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World.make(home, online_url, namespace)
    fill_log(world, 1500)
    append, seen = Offline.append_events, list[int]()

    def hanging(offline: Offline, chunks: Any) -> Any:
        if not seen:
            await_that(backlogs[0].full)
            seen.append(world.applied())
        return append(offline, chunks)

    monkeypatch.setattr(Offline, "append_events", hanging)
    world.run()
    assert BOUND < backlogs[0].most <= BOUND + POLL
    assert 0 < seen[0] <= BOUND + POLL < sum(map(len, world.log.values())), "the rest had not been read by then"
    check(world)


def test_a_table_of_partials_that_hangs_stops_reading_also_from_the_archive(
    home: Path, own_valkey: Valkey, namespace: str, backlogs: list[Backlog], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read from the archive waits for no archive: only its partials say that a store is behind."""
    world = World.make(home, own_valkey.url, namespace)
    fill_log(world, 3000)
    world.run()
    world.online.flushall()
    shutil.rmtree(home / "offline" / "streamed")
    Registry.open(world.settings, world.online).restore()
    monkeypatch.setattr("forebay.offline.replay.ROWS_MAX", CHUNK)
    append, seen = Offline.append_partials, list[int]()

    def hanging(offline: Offline, partials: Sequence[Partials]) -> None:
        if not seen:
            await_that(backlogs[-1].full)
            seen.append(world.applied())
        append(offline, partials)

    monkeypatch.setattr(Offline, "append_partials", hanging)
    world.run()
    most = backlogs[-1].partials_max
    assert most == 2 * BOUND * len(VIEWS)
    assert 0 < seen[0] < sum(map(len, world.log.values())), "the rest had not been read by then"
    assert backlogs[-1].waiting("streamed") == 0
    check(world)


def test_each_worker_may_hold_as_much_as_the_only_one_of_a_flow() -> None:
    """Two processes have twice the memory, and the archive takes what has come once a second, whoever has read it."""
    board = Board(2)
    mine, theirs = Backlog(100, board, 0), Backlog(100, board, 1)
    mine.add("offline", 150)
    theirs.add("online", 50)
    assert not mine.full()
    assert not theirs.full()
    theirs.add("offline", 1)
    assert mine.full()
    assert theirs.full()
    mine.done("online", 50)  # what one has read the other writes
    assert not theirs.full()
    alone = Backlog(100)
    alone.add("online", 101)
    assert alone.full()


def hot(seed: int, count: int, share: float) -> list[bytes]:
    """Events of which a share is of one user and one merchant."""
    rng = random.Random(seed)
    out = []
    for n in range(count):
        is_hot = rng.random() < share
        user, merchant = ("hot", "hot") if is_hot else (f"u{rng.randrange(3000)}", f"m{rng.randrange(500)}")
        event = {"event_id": f"h{n}", "user": user, "merchant": merchant, "amount": 1, "kind": "paid"}
        out.append(json.dumps(event | {"ts": instant_text(START_US + n * 1000)}).encode())
    return out


def writes(world: World) -> int:
    """How many tiles' blobs the server was told to grow."""
    stats: Any = world.online.info("commandstats")
    return int(stats["cmdstat_append"]["calls"])


def test_a_hot_key_costs_one_write_a_commit_however_many_events_it_has(
    home: Path, own_valkey: Valkey, namespace: str
) -> None:
    """30 % of the events are of one entity: what is written for the others is what they alone would cost."""
    counts = []
    for n, share in enumerate((0.0, 0.3)):
        (home / str(n)).mkdir()
        world = World.make(home / str(n), own_valkey.url, f"{namespace}{n}")
        world.online.config_resetstat()
        world.append("a.ndjson", hot(1, 6000, share))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FOREBAY_HOME", str(world.home))
            world.run()
        counts.append(writes(world))
        assert int(world.offline.streamed(merchant_orders).read()[1].records["events"].sum()) == 6000
    assert counts[1] < counts[0]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_signal_in_the_middle_of_a_log_drains_what_was_read(
    home: Path, online_url: str, namespace: str, workers: str
) -> None:
    world = World.make(home, online_url, namespace)
    fill_log(world, 4000)
    with world.flow("--workers", workers) as process:
        await_that(lambda: world.applied() > 0, process)
        code, said, errors = end(process, signal.SIGTERM)
    assert (code, errors) == (0, "")
    archived = world.archived()
    assert world.applied() == archived > 0, "both stores have what was read, and no more"
    assert json.loads(said)["events"] == world.offline.archive(orders).size()[0]  # type: ignore[index]  # it has some
    world.run()
    check(world)


def test_only_a_store_that_is_away_is_tried_again_and_not_for_ever() -> None:
    said: list[BaseException] = []
    tries = 0

    def away() -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailableError("away")

    with pytest.raises(StoreUnavailableError):
        Patience(0.3, said.append)(away)
    assert tries == len(said) + 1 > 2
    for error in (FencedError("another"), StoreError("refused"), ValueError("a bug")):
        tries = 0

        def refused(error: Exception = error) -> None:
            nonlocal tries
            tries += 1
            raise error

        with pytest.raises(type(error)):
            Patience(10)(refused)
        assert tries == 1
    assert Patience(10)(partial(int, "7")) == 7


def test_the_first_try_uses_patience_up_as_any_other() -> None:
    tries = 0

    def hanging() -> None:
        nonlocal tries
        tries += 1
        time.sleep(0.3)
        raise StoreUnavailableError("it answered nothing")

    with pytest.raises(StoreUnavailableError, match="it answered nothing"):
        Patience(0.2)(hanging)
    assert tries == 1


def test_what_is_on_its_way_between_two_nodes_uses_no_patience_up() -> None:
    """Somebody moves a slot of a cluster, and is not done after the time that a dead node is given."""
    told, tries = list[BaseException](), iter([StoreMovingError("on its way")] * 3)

    def moving() -> str:
        for error in tries:
            raise error
        return "there"

    assert Patience(0.0, told.append)(moving) == "there"
    assert len(told) == 3
    tries = iter([StoreMovingError("on its way"), StoreUnavailableError("its node died")])
    with pytest.raises(StoreUnavailableError, match="its node died"):
        Patience(0.0)(moving)


def test_what_was_waited_for_once_is_no_patience_for_the_next_call() -> None:
    """The same patience is that of every call of a flow, and of all of its threads."""
    patience, tries = Patience(0.0), iter([StoreMovingError("on its way")] * 3)

    def moving() -> None:
        for error in tries:
            raise error

    patience(moving)
    told: list[str] = []

    def away() -> None:
        told.append("tried")
        raise StoreUnavailableError("its node died")

    with pytest.raises(StoreUnavailableError):
        patience(away)
    assert told == ["tried"], "the bound is reached at once, however long the first call took"
