"""A new version of a view is filled beside the stream: the old one goes on undisturbed, and neither ever lies.

v1      ══ streamed and read all the time ═══════════════════════════
v2            UNAVAILABLE ……… │ right for every instant from the start on
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

from forebay import Count, Sessionize, Sum, WindowedView
from forebay.core.identity import entity_key
from forebay.core.values import Status
from forebay.deploy.registry import Registry
from forebay.errors import ConfigError, FencedError, InstantTooEarlyError, RequestError, StoreUnavailableError
from forebay.instants import HOUR_US, MINUTE_US, SECOND_US, floor_us, instant_text, instant_us
from forebay.language.definitions import Definitions
from forebay.online import takeover
from forebay.online.lane import wall_clock_us
from forebay.online.read import OnlineReader
from streaming.filling import Start, fill
from streaming.log_ends import LogEnds
from streaming.parts import Task
from streaming.run import parse, run
from streaming.status import Status as Look
from streaming.stop import Stop
from streaming.summary import Summary
from tests.laws.asked import asked
from tests.streaming.test_flow import publish
from tests.streaming.world import START_US, VIEWS, World, await_that, check_online, end, lines, merchant, orders

SECOND = WindowedView(
    "merchant_orders",
    version=2,
    entity=merchant,
    source=orders,
    features=[
        Count("orders", windows=["10m", "1h"], default=0),
        Sum("spend", of="amount", windows=["30m"], default=0),
    ],
)
LIFETIME = replace(SECOND, version=3, features=[Count("ever", windows=[None], default=0)])
VISITS = WindowedView(
    "visits",
    version=1,
    entity=merchant,
    source=Sessionize(orders, gap="4m", longest="20m"),
    features=[Count("visits", windows=["1h", None], default=0), Sum("time", of="duration", windows=["1h"], default=0)],
)
MERCHANTS = [f"m{n}" for n in range(20)]
KEYS = [entity_key(merchant, {"merchant": name}) for name in MERCHANTS]


@pytest.fixture
def world(home: Path, online_url: str, namespace: str) -> World:
    """A log of some hours."""
    world = World.make(home, online_url, namespace)
    world.append("a.ndjson", lines(1, 1500, rate=0.1))
    world.append("b.ndjson", lines(2, 500, rate=0.05))
    return world


def apply(world: World, *views: WindowedView) -> None:
    Registry.open(world.settings, world.online).apply(Definitions.of(*VIEWS, *views))


def run_fill(world: World, view: WindowedView, start: Start | None = None, stop: Stop | None = None) -> Stop:
    stop, start = stop or Stop(), start or Start()
    task = Task(world.settings, Definitions.of(view), [view.source], until_end=True)
    fill(task, view, start, world.online, stop, Summary())
    if stop.error is not None:
        raise stop.error
    return stop


def read(world: World, view: WindowedView, at_us: int) -> list[list[tuple[int, str]]]:
    """Value and status of each feature for every merchant."""
    found = OnlineReader(world.online, world.settings.namespace).read([view], {view.key: KEYS}, at_us, at_us)
    return [
        [(int(value), Status(status).name) for value, status in zip(column.values, column.status, strict=True)]
        for column in found.views[view.key].columns
    ]


def expected(world: World, view: WindowedView, at_us: int) -> list[list[tuple[int, str]]]:
    """The oracle's."""
    plain = [
        (event["merchant"], instant_us(event["ts"]), event["event_id"], orders.schema["amount"].units(event["amount"]))
        for event in world.valid().values()
    ]
    out = []
    for feature in view.features:
        for text in feature.windows:
            values = [asked(view, feature, text, plain, name, at_us) for name in MERCHANTS]
            out.append([(int(value), status) for value, status in values])
    return out


def filling(world: World) -> dict[str, bool]:
    """What `--status` says of each view."""
    ends = LogEnds(world.settings, lambda: world.online)
    look = Look(world.online, world.settings.namespace, world.offline, ends)
    (found,) = look(Definitions.of(*VIEWS, SECOND), [orders], wall_clock_us())
    return {view.view: view.filling for view in found.views}


def image(world: World) -> dict[bytes, bytes | None]:
    """Everything that is online."""
    names = cast("list[bytes]", world.online.keys(f"{world.settings.namespace}:*"))
    return {name: cast("bytes | None", world.online.dump(name)) for name in names}


def newest_us(world: World) -> int:
    return max(instant_us(event["ts"]) for event in world.valid().values())


def check(world: World, view: WindowedView, instants: Sequence[int]) -> None:
    for at_us in instants:
        assert read(world, view, at_us) == expected(world, view, at_us), instant_text(at_us)


def test_a_second_version_is_filled_while_the_first_is_streamed(world: World) -> None:
    with world.flow() as flow:
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        apply(world, SECOND)
        fences = world.fences()
        world.append("a.ndjson", lines(3, 300, first=1500, rate=0.1))
        run_fill(world, SECOND)
        assert read(world, SECOND, newest_us(world) + 1)[0][0][1] != "UNAVAILABLE"
        world.append("a.ndjson", lines(4, 100, first=1800, rate=0.1))
        await_that(lambda: world.archived() == sum(map(len, world.log.values())), flow)
        assert world.fences() == fences, "the stream was not touched"
        assert check_online(world) > 200
        assert end(flow)[0] == 0
    run_fill(world, SECOND)
    after_us = newest_us(world) + 1
    check(world, SECOND, [after_us, after_us + 20 * MINUTE_US, after_us + HOUR_US])
    said = world.run()
    assert said["events"] == 0
    world.append("b.ndjson", lines(5, 100, first=500, rate=0.05))
    world.run()
    check(world, SECOND, [newest_us(world) + 1])
    assert check_online(world) > 200
    counted = world.offline.streamed(SECOND).read()[1].records["events"].sum()
    assert int(counted) == len(world.valid())


@pytest.mark.parametrize("how", ["instant", "offset"])
def test_from_a_start_on_every_instant_is_right_and_less_is_read(world: World, how: str) -> None:
    world.run()
    apply(world, SECOND, LIFETIME)
    archive, events = world.offline.archive(orders), world.valid()
    offset = len(world.log["a.ndjson"]) * 9 // 10
    start = Start(max(instant_us(e["ts"]) for (name, n), e in events.items() if name == "a.ndjson" and n < offset) + 1)
    if how == "offset":
        assert Start.after(archive, {"a.ndjson": offset}) == start
    run_fill(world, SECOND, start)
    counted = int(world.offline.streamed(SECOND).read()[1].records["events"].sum())
    assert 0 < counted < len(events) * 0.8
    after_us = max(newest_us(world) + 1, start.instant_us or 0)
    check(world, SECOND, [after_us, after_us + 5 * MINUTE_US, after_us + HOUR_US])
    run_fill(world, LIFETIME, start)
    check(world, LIFETIME, [after_us])
    world.append("a.ndjson", lines(3, 200, first=1500, rate=0.1))
    world.run("--workers", "2")
    after_us = newest_us(world) + 1
    check(world, SECOND, [after_us, after_us + HOUR_US])
    check(world, LIFETIME, [after_us])


@pytest.mark.parametrize("option", ["--from-instant", "--from-offset"])
def test_the_options_say_from_where_on_a_version_is_right(
    world: World, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run()
    apply(world, SECOND)
    events, offset = world.valid(), len(world.log["a.ndjson"]) * 9 // 10
    start_us = 1 + max(instant_us(e["ts"]) for (name, n), e in events.items() if name == "a.ndjson" and n < offset)
    instant = instant_text(start_us)
    world.run("--replay", SECOND.key, option, instant if option == "--from-instant" else f"a.ndjson={offset}")
    assert f"It is right for instants from {instant} on." in capsys.readouterr().out
    counted = int(world.offline.streamed(SECOND).read()[1].records["events"].sum())
    assert 0 < counted < len(events) * 0.8
    after_us = max(newest_us(world) + 1, start_us)
    check(world, SECOND, [after_us, after_us + HOUR_US])


def test_a_filling_is_right_from_its_latest_start_on_and_answers_nothing_before(world: World) -> None:
    """What an earlier start would need is not read again, so that is refused, and so is reading there."""
    world.run()
    apply(world, SECOND)
    last_us = floor_us(newest_us(world), MINUTE_US) + MINUTE_US
    middle_us, late_us, end_us = START_US + (last_us - START_US) // 2, last_us + HOUR_US // 2, last_us + HOUR_US
    run_fill(world, SECOND, Start(middle_us))
    run_fill(world, SECOND, Start(late_us))
    before = image(world)
    for start in (Start(middle_us), Start()):
        with pytest.raises(ConfigError, match=rf"was filled from {instant_text(late_us)} on.*declare version 3"):
            run_fill(world, SECOND, start)
    assert image(world) == before, "who fills it now may go on"
    for _ in ("filled", "streamed"):
        with pytest.raises(InstantTooEarlyError, match=f"from a start on, which is {instant_text(late_us)}"):
            read(world, SECOND, late_us - 1)
        check(world, SECOND, [late_us, end_us])
        world.run()
    publish(world, SECOND, late_us)
    check(world, SECOND, [late_us, end_us])


def test_what_only_later_instants_need_answers_no_earlier_ones(world: World) -> None:
    """Also of entities whose newest event is long before the start."""
    world.run()
    apply(world, SECOND)
    start_us = floor_us(newest_us(world), MINUTE_US) + 50 * MINUTE_US
    run_fill(world, SECOND, Start(start_us))
    with pytest.raises(InstantTooEarlyError, match="use feature_history"):
        read(world, SECOND, start_us - 40 * MINUTE_US)
    check(world, SECOND, [start_us])


def test_until_it_is_full_a_version_says_so_and_what_was_interrupted_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    apply(world, SECOND)
    monkeypatch.setattr("forebay.offline.replay.ROWS_MAX", 100)
    monkeypatch.setattr("streaming.archive_log.CHUNKS_MAX", 1)
    stop, after_us = Stop(), newest_us(world) + 1
    monkeypatch.setattr(Summary, "committed", lambda summary, view, commit: stop.request() if commit == 3 else None)
    run_fill(world, SECOND, stop=stop)
    assert {status for column in read(world, SECOND, after_us) for _, status in column} == {"UNAVAILABLE"}
    assert {value for column in read(world, SECOND, after_us) for value, _ in column} == {0}
    assert check_online(world) > 200
    assert filling(world) == {"merchant_orders@1": False, "merchant_orders@2": True, "user_orders@1": False}
    monkeypatch.undo()
    run_fill(world, SECOND)
    check(world, SECOND, [after_us])
    assert not any(filling(world).values())


def test_a_filling_says_what_it_waits_for(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.run()
    apply(world, SECOND)
    away, beside = [StoreUnavailableError("Redis is away")], takeover.beside

    def once_away(*arguments: Any) -> Any:
        if away:
            raise away.pop()
        return beside(*arguments)

    monkeypatch.setattr(takeover, "beside", once_away)
    stop = Stop()
    run(world.settings, parse(["--replay", SECOND.key]), stop, Summary())
    assert stop.error is None
    assert capsys.readouterr().err == "warning: waiting up to 60 s: Redis is away\n"
    check(world, SECOND, [newest_us(world) + 1])


def test_the_stream_takes_over_a_filling_and_finishes_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    apply(world, SECOND)
    monkeypatch.setattr("forebay.offline.replay.ROWS_MAX", 100)
    began = takeover.beside

    def restarted(*arguments: Any) -> Any:
        found = began(*arguments)
        monkeypatch.undo()
        world.run()  # the stream, with the new view, begins after it was looked at and before anything is written
        return found

    monkeypatch.setattr(takeover, "beside", restarted)
    with pytest.raises(FencedError, match="Another writer took over 64 slots of merchant_orders@2"):
        run_fill(world, SECOND)
    check(world, SECOND, [newest_us(world) + 1])
    with pytest.raises(Exception, match="Nothing is to be replayed beside it"):
        run_fill(world, SECOND)
    assert int(world.offline.streamed(SECOND).read()[1].records["events"].sum()) == len(world.valid())


def test_a_killed_filling_is_repeated(world: World) -> None:
    world.run()
    apply(world, SECOND)
    keys = f"{world.settings.namespace}:*:progress:{SECOND.key}"
    for _ in range(3):
        with world.flow("--replay", SECOND.key) as process:
            await_that(lambda: next(iter(world.online.scan_iter(keys, 1000)), None) is not None, process)
            process.send_signal(signal.SIGKILL)
            process.wait()
    process = world.start("--replay", SECOND.key)
    said, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert f'"view": "{SECOND.key}", "from": null, "complete": true' in said
    check(world, SECOND, [newest_us(world) + 1])
    assert int(world.offline.streamed(SECOND).read()[1].records["events"].sum()) == len(world.valid())


def test_sessions_are_filled_as_the_stream_makes_them(world: World) -> None:
    """The stream itself is the witness: the same view under another version, which it has from the beginning on."""
    apply(world, VISITS)
    world.run()
    second = replace(VISITS, version=2)
    apply(world, VISITS, second)
    run_fill(world, second)
    after_us = newest_us(world) + 1
    for at_us in (after_us, after_us + 5 * MINUTE_US, after_us + HOUR_US):
        values = read(world, VISITS, at_us)
        assert sum(value for value, _ in values[1]) > 100
        assert read(world, second, at_us) == values


def test_what_an_event_on_time_may_join_to_a_session_is_filled(home: Path, online_url: str, namespace: str) -> None:
    """
          midnight
    ■        ┆            ■      filled for instants whose windows begin behind the first
             ┆  ■                comes then, on time, and makes one session of the two
    """
    world, midnight_us = World.make(home, online_url, namespace), START_US + 2 * HOUR_US

    def visit(number: int, seconds: int) -> bytes:
        event = {"event_id": f"e{number}", "user": "u", "merchant": "m1", "ts": midnight_us + seconds * SECOND_US}
        return json.dumps(event | {"amount": 1, "kind": "paid"}).encode()

    world.append("a.ndjson", [visit(1, -200), visit(2, 260)])
    features = [replace(feature, windows=("1h",)) for feature in VISITS.features]
    visits = replace(VISITS, source=Sessionize(orders, gap="4m", longest="4m"), features=features)
    first, second = visits, replace(visits, version=2)
    apply(world, first)
    world.run()
    apply(world, first, second)
    start_us = midnight_us + HOUR_US + 8 * MINUTE_US
    run_fill(world, second, Start(start_us))
    world.append("a.ndjson", [visit(3, 30)])
    assert world.run()["late"] == 0
    values = read(world, first, start_us)
    assert [(1, "PRESENT") in values[0], (0, "PRESENT") in values[1]] == [True, True]
    assert read(world, second, start_us) == values


def test_a_published_version_starts_at_its_cut(world: World) -> None:
    world.run()
    apply(world, SECOND)
    publish(world, SECOND, START_US + 30 * MINUTE_US)
    run_fill(world, SECOND, Start(newest_us(world)))
    check(world, SECOND, [newest_us(world) + 1])


def test_what_cannot_be_replayed_is_refused(world: World) -> None:
    world.run()
    with pytest.raises(RequestError, match=r"There is no partition 'c.ndjson'.*Did you mean"):
        Start.after(world.offline.archive(orders), {"c.ndjson": 3})
    with pytest.raises(RequestError, match=r"partition 'a.ndjson' before offset \d+; 1000000 is not archived yet"):
        Start.after(world.offline.archive(orders), {"a.ndjson": 1_000_000})
    for arguments, message in [
        (("--replay", "merchant_orders@1"), "The stream has view"),
        (("--replay", "merchant_order@1"), "merchant_orders"),
        (("--replay", "merchant_orders@1", "--workers", "2", "--linger", "0.1"), "leave out --workers, --linger"),
        (("--replay", "merchant_orders@1", "--from-offset", "x"), "is not PARTITION=OFFSET"),
        (("--replay", "merchant_orders@1", "--from-instant", "2999-01-01T00:00:00Z"), "has not come yet"),
        (("--from-instant", "2024-01-01T00:00:00Z"), "a stream resumes by itself"),
    ]:
        with pytest.raises(Exception, match=message):
            world.run(*arguments)
