"""Sessions folded by day and published: what is online equals the oracle, and a day that is behind is known to be."""

from __future__ import annotations

import random

import pytest

from forebay.backfill import tiles as folding
from forebay.backfill.publication import Reported, publish_view
from forebay.backfill.tiles import fold_dates
from forebay.language.view import WindowedView
from tests.places import everywhere
from tests.sessions.world import VIEWS, World, at, by_visitor, some_visits, visit

LOADED = "load:" + "0" * 16
"""A partition of the archive that no stream is behind."""


def publish(world: World, view: WindowedView = by_visitor) -> Reported:
    return publish_view(world.redis, world.settings.namespace, world.store, view)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("chunk", [folding.EVENTS_MAX, 60])
@everywhere
def test_published_sessions_are_the_oracles(
    world: World, seed: int, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folding, "EVENTS_MAX", chunk)
    world.archive(some_visits(random.Random(seed), 5), LOADED)
    for view in VIEWS:
        fold_dates(world.store, view, at(0), at(6))
        assert publish(world, view).cut_us == at(6)
    world.check_online(world.archived, at(6))


def test_a_session_is_of_the_day_on_which_it_is_over(world: World) -> None:
    """
    day      0                       1         2
    minute            23:10 23:40 23:50 │
    over                                │00:20        a day without events has a session
    """
    world.archive([visit(0, at(0, 23, 10)), visit(1, at(0, 23, 40)), visit(2, at(0, 23, 50))], LOADED)
    fold_dates(world.store, by_visitor, at(0), at(3))
    _, tiles = world.store.tiles(by_visitor).read(None, at(0), at(3))
    assert set(tiles.records["newest"].tolist()) == {at(1, 0, 20)}
    assert publish(world).cut_us == at(3)
    world.check_online(world.archived, at(3), [by_visitor])


def test_a_day_alone_is_folded_as_all_of_them_are(world: World) -> None:
    """A chain of three days, cut every two hours from where it began; the third day alone, then all."""
    world.archive([visit(number, at(0, 0, 7 + 20 * number)) for number in range(3 * 72)], LOADED)
    table = world.store.tiles(by_visitor)
    fold_dates(world.store, by_visitor, at(2), at(3))
    alone = table.read(None, at(2), at(3))[1].records.tobytes()
    fold_dates(world.store, by_visitor, at(0), at(4))
    assert table.read(None, at(2), at(3))[1].records.tobytes() == alone


def test_a_day_is_behind_once_something_came_to_what_it_was_folded_from(world: World) -> None:
    """
    day          0           1           2           3
    ann    ●                           ●●│●
    bob    ●           ●                                ●
    then               ▲ late            folded from day 1 on: day 2 has a session that is over in it, day 3 has it too
    """
    world.archive(
        [visit(0, at(0, 1)), visit(1, at(2, 23, 40)), visit(2, at(2, 23, 59)), visit(3, at(3, 0, 20))], LOADED
    )
    world.archive([visit(4, at(0, 2), "eve"), visit(5, at(1, 12), "eve"), visit(6, at(3, 12), "eve")], LOADED)
    fold_dates(world.store, by_visitor, at(0), at(5))
    table, archive = world.store.tiles(by_visitor), world.store.archive(by_visitor.source)
    assert table.behind(archive.events_by_date()) == {}
    world.archive([visit(7, at(2, 23, 20))], LOADED)  # 20 minutes before a session that is over on day 3
    behind = table.behind(archive.events_by_date())
    assert behind == {"2024-03-03": "2024-03-02", "2024-03-04": "2024-03-03"}
    report = publish(world)
    assert (report.cut_us, report.behind) == (at(2), ("2024-03-03", "2024-03-04"))
    fold_dates(world.store, by_visitor, at(2), at(4))
    assert publish(world).cut_us == at(5)
    world.check_online(world.archived, at(5), [by_visitor])


@everywhere
def test_a_late_event_before_midnight_stops_no_cut_and_is_repaired_on_both_days(world: World) -> None:
    """
    day        0                  1              2
    stream          23:30  ─ ─ ─ ─│─ ─ ─ ─ ─ ─ ─ ─ ─│─ ─ ●
    late                  23:55   ▲ on day 2: the session is over at 00:25 instead of 00:00
    """
    world.archive([visit(0, at(0, 23, 30)), visit(1, at(2, 2))])
    fold_dates(world.store, by_visitor, at(0), at(2))
    assert publish(world).cut_us == at(2)
    world.archive([visit(2, at(0, 23, 55))])
    world.store.repairs().append([("visits", "2024-03-01", "late")], at(9))
    world.archive([visit(3, at(3, 2))])
    fold_dates(world.store, by_visitor, at(2), at(3))
    report = publish(world)
    assert (report.cut_us, report.behind) == (at(3), ("2024-03-01", "2024-03-02"))
    assert set(world.store.repairs().scan("visits")["day"].to_pylist()) == {"2024-03-01", "2024-03-02"}
    fold_dates(world.store, by_visitor, at(0), at(2))
    assert publish(world).behind == ()
    world.check_online([one for one in world.archived if one["ts"] < at(3)], at(3), [by_visitor])


@pytest.mark.parametrize("seed", range(6))
def test_after_the_days_behind_were_folded_again_nothing_is_wrong(world: World, seed: int) -> None:
    """Whatever is loaded afterwards, wherever: folding what is said to be behind is enough."""
    chance = random.Random(seed)
    visits = some_visits(chance, 5, 120)
    chance.shuffle(visits)
    world.archive(visits[:90], LOADED)
    for view in VIEWS:
        fold_dates(world.store, view, at(0), at(6))
    for one in visits[90:]:
        world.archive([one], LOADED)
        if chance.random() < 0.8:
            continue
        for view in VIEWS:
            behind = world.store.tiles(view).behind(world.store.archive(view.source).events_by_date())
            days = [number for number in range(6) if f"2024-03-{number + 1:02}" in behind]
            for day in days:
                fold_dates(world.store, view, at(day), at(day + 1))
            assert publish(world, view).cut_us == at(6)
        world.check_online(world.archived, at(6))
