"""Training sets and histories over sessions: the oracle over a loop's sessions, as of and as known."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from forebay.history import archived, bucketed, known_sessions
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, moment
from tests.sessions.world import GAP_US, PAGES, START, VISITORS, Visit, World, at, service, some_visits, visit


def asked(chance: random.Random, visits: list[Visit], days: int) -> list[Visit]:
    """Rows: some at random, some at and just after the instants at which sessions are over."""
    rows = []
    for number in range(25):
        ts = START + chance.randrange((days + 1) * DAY_US)
        if chance.random() < 0.6:
            ts = chance.choice(visits)["ts"] + chance.choice([GAP_US, MINUTE_US]) + chance.choice([0, 1])
        rows.append(visit(number, ts, chance.choice([*VISITORS, "nobody", None]), chance.choice(PAGES)))
    return rows


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("looked_up", [1000, 0])
def test_a_training_set_is_the_oracle(world: World, seed: int, looked_up: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archived, "LOOKED_UP_MAX", looked_up)
    chance = random.Random(seed)
    visits = some_visits(chance, 5)
    chance.shuffle(visits)
    world.archive(visits)
    world.check_training(visits, asked(chance, visits, 5))


@pytest.mark.parametrize("seed", range(3))
def test_a_training_set_as_known_is_the_oracle_over_what_had_arrived(
    world: World, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known_sessions, "PAIRS_MAX", 300)
    chance, arrived = random.Random(seed), {}
    for number, one in enumerate(visits := some_visits(chance, 4, 120)):
        arrived[one["id"]] = one["ts"] + chance.choice([1, MINUTE_US, HOUR_US, DAY_US])
        world.archive([one], f"p{number % 3}", arrived[one["id"]])
    rows = asked(chance, visits, 4)
    world.check_training(lambda us: [v for v in visits if arrived[v["id"]] <= us], rows, clock="as_known")


def test_a_chain_that_began_long_before_is_read_to_its_root(world: World) -> None:
    """
    day       0          1          2    3    4    5
              ·················································   one event every 20 minutes for five days
    cut every 2h from its first event on: where a session begins on day 5 depends on the first event of day 0
    """
    visits = [visit(number, at(0, 0, 3 + 20 * number)) for number in range(3 * 24 * 5)]
    world.archive(visits)
    rows = [visit(0, at(5, hour)) for hour in (0.1, 0.55, 3, 7.9, 26)]
    world.check_training(visits, rows)


def test_the_history_of_a_session_view_shows_each_session_when_it_is_over(world: World) -> None:
    """
    minute    0  10       50        100           gap 30m: over at 40, 80 and 130
    """
    world.archive([visit(n, at(0, 1, minute)) for n, minute in enumerate((0, 10, 50, 100))])
    history = world.features.feature_history(
        "by_visitor@1", entity={"visitor": "ann"}, start=moment(at(0)), end=moment(at(1))
    ).to_arrow()
    changes = list(zip(history["instant"].to_pylist(), history["sessions_6h"].to_pylist(), strict=True))
    over = [moment(at(0, 1, minute) + 1) for minute in (40, 80, 130)]
    assert changes == [(moment(at(0)), 0), *zip(over, (1, 2, 3), strict=True)]


def test_the_history_as_known_has_a_row_when_a_late_event_merges_sessions(world: World) -> None:
    """
    minute        0         50             at 10h the event of minute 25 arrives: two sessions are one
    """
    world.archive([visit(0, at(0, 1, 0)), visit(1, at(0, 1, 50))], "p0", at(0, 2))
    world.archive([visit(2, at(0, 1, 25))], "p1", at(0, 10))
    asked_: dict[str, Any] = {"start": moment(at(0)), "end": moment(at(1)), "clock": "as_known"}
    history = world.features.feature_history("by_visitor@1", entity={"visitor": "ann"}, **asked_).to_arrow()
    values = dict(zip(history["instant"].to_pylist(), history["sessions_lifetime"].to_pylist(), strict=True))
    assert values[moment(at(0, 2, 20) + 1)] == 2
    assert values[moment(at(0, 10))] == 1


@pytest.mark.parametrize("clock", ["as_of", "as_known"])
def test_a_training_set_bucket_by_bucket_is_the_one_in_memory(
    world: World, clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucketed, "buckets_needed", lambda *_: 3)
    chance = random.Random(9)
    visits = some_visits(chance, 5)
    world.archive(visits, arrived_us=START + 2 * DAY_US)
    rows = [{**row, "event_timestamp": moment(row["ts"])} for row in asked(chance, visits, 5)]
    spine = pa.Table.from_pylist(rows).drop_columns(["ts", "id"])
    how: dict[str, Any] = {"features": service, "clock": clock, "with_statuses": True}
    expected = world.features.get_historical_features(spine, **how).to_arrow()
    world.features.write_historical_features(spine, out=tmp_path / "set.parquet", memory="10GB", **how)
    assert pq.read_table(tmp_path / "set.parquet").equals(expected)
