"""Rows of batch views as of many instants: however they are read, found and laid beside, they are those of a loop."""

from __future__ import annotations

import random
import threading
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from forebay.calls.keyed import Keyed
from forebay.core import asof, lookup
from forebay.core import threads as core_threads
from forebay.history import effective, rows_asked
from forebay.instants import DAY_US
from forebay.offline import numbered
from tests.client.deployed_world import PROFILE_SCHEMA, World, profile
from tests.laws.world import MIDNIGHT_US
from tests.places import everywhere

DAYS, USERS, TTL_US = 6, 30, 2 * DAY_US
NEVER = 2**62
NAMES = ["age", "city", "balance"]
DEFAULTS = {"age": None, "city": "nowhere", "balance": 0}
Row = dict[str, Any]


def drawn(chance: random.Random, day: int, created: int = 0) -> list[Row]:
    """The rows of a day's partition, some of them of earlier instants and without values."""
    start_us = MIDNIGHT_US + day * DAY_US
    return [
        {
            "user": f"u{chance.randrange(USERS)}",
            "age": chance.choice([None, chance.randrange(99)]),
            "city": chance.choice([None, "Ede", "Epe", "Oss", ""]),
            "balance": chance.choice([None, Decimal(chance.randrange(10**6)) / 100]),
            "event_timestamp": start_us + chance.randrange(-DAY_US, DAY_US),
            "created_timestamp": start_us + DAY_US + created + number,
            "partition_start": start_us,
        }
        for number in range(40)
    ]


def write(world: World, rows: list[Row], day: int) -> None:
    start_us = MIDNIGHT_US + day * DAY_US
    world.offline.rows(profile).overwrite(start_us, start_us + DAY_US, pa.Table.from_pylist(rows, PROFILE_SCHEMA))


def expected(rows: list[tuple[Row, int]], user: str | None, us: int, *, known: bool = False) -> Row:
    """The features of the row that holds, of rows in the order of their numbers, each with when it was replaced."""
    mine = [
        row
        for row, until in rows
        if row["user"] == user and row["event_timestamp"] <= us
        if (row["created_timestamp"] <= us < until if known else until == NEVER)
    ]
    best = max(mine, key=lambda row: (row["event_timestamp"], row["created_timestamp"]), default=None)
    if best is None or us - best["event_timestamp"] > TTL_US:
        return DEFAULTS
    return {name: DEFAULTS[name] if best[name] is None else best[name] for name in NAMES}


@pytest.fixture
def asked(tmp_path: Path, online_url: str, namespace: str, place: str) -> tuple[World, pa.Table, dict[str, list[Row]]]:
    """A table of some files, two partitions of which were computed twice; rows that ask, and what they get."""
    world, chance = World(online_url, tmp_path, namespace, place), random.Random(7)
    now: dict[int, list[Row]] = {}
    replaced: list[tuple[Row, int]] = []
    for day, created in (*((day, 0) for day in range(DAYS)), (2, DAY_US), (4, DAY_US // 2)):
        rows = drawn(chance, day, created)
        replaced += [(row, rows[0]["created_timestamp"]) for row in now.get(day, [])]
        now[day] = rows
        write(world, rows, day)
    users = [chance.choice(["nobody", None, *(f"u{i}" for i in range(USERS))]) for _ in range(300)]
    us = [MIDNIGHT_US + chance.randrange(-DAY_US, (DAYS + 3) * DAY_US) for _ in users]
    spine = pa.table({"user": pa.array(users, pa.string()), "event_timestamp": pa.array(us, pa.timestamp("us", "UTC"))})
    whole = [(row, NEVER) for day in range(DAYS) for row in now[day]] + replaced
    want = {
        clock: [expected(whole, user, at, known=clock == "as_known") for user, at in zip(users, us, strict=True)]
        for clock in ("as_of", "as_known")
    }
    return world, spine, want


def answered(world: World, spine: pa.Table, **how: Any) -> pa.Table:
    features = [f"profile@1:{name}" for name in NAMES]
    return world.store.get_historical_features(spine, features=features, **how).to_arrow()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("many", [True, False])
@everywhere
def test_the_rows_that_hold_are_those_of_a_loop(
    asked: tuple[World, pa.Table, dict[str, list[Row]]],
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
    compiled: bool,
    many: bool,
) -> None:
    world, spine, want = asked
    monkeypatch.setattr(world.store._deployed.offline, "threads", threads)
    monkeypatch.setattr(effective, "PIECE_ROWS", 1)
    monkeypatch.setattr(numbered, "TAKEN_ROWS", 1)
    if threads == 1:
        monkeypatch.setattr(core_threads, "ThreadPoolExecutor", None)
    for module, name in ((asof, "COMPILED_ROWS"), (lookup, "COMPILED_ROWS"), (lookup, "COMPILED_KEYS")):
        monkeypatch.setattr(module, name, 0 if compiled else 10**9)
    monkeypatch.setattr(effective, "LOOKED_UP_MAX", 0 if many else 1_000)
    for clock, rows in want.items():
        assert answered(world, spine, clock=clock).select(NAMES).to_pylist() == rows
        assert answered(world, spine, clock=clock, with_statuses=True).select(NAMES).to_pylist() == rows


def test_a_row_group_is_read_by_one_of_the_threads_that_were_asked_for(
    asked: tuple[World, pa.Table, dict[str, list[Row]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, spine, _ = asked
    read: list[str] = []
    group = numbered.read_row_group
    monkeypatch.setattr(effective, "PIECE_ROWS", 1)
    monkeypatch.setattr(numbered, "TAKEN_ROWS", 1)

    def counted(*given: Any, **how: Any) -> pa.Table:
        read.append(threading.current_thread().name)
        return group(*given, **how)

    monkeypatch.setattr(numbered, "read_row_group", counted)
    mine = threading.current_thread().name
    for threads, by_me in ((1, DAYS * 2), (2, 0)):
        read.clear()
        monkeypatch.setattr(world.store._deployed.offline, "threads", threads)
        answered(world, spine)
        assert (len(read), read.count(mine)) == (DAYS * 2, by_me)


def test_columns_that_a_file_lacks_are_null(tmp_path: Path, online_url: str, namespace: str) -> None:
    """
    day 0    user age city              as the view was
    day 1    user age city balance
    """
    world = World(online_url, tmp_path, namespace)
    before = msgspec.structs.replace(profile, features=profile.features[:2])
    rows = [drawn(random.Random(day), day) for day in range(2)]
    for day, view in enumerate((before, profile)):
        start_us = MIDNIGHT_US + day * DAY_US
        table = pa.Table.from_pylist(rows[day], PROFILE_SCHEMA)
        names = ["balance"] if view is before else []
        world.offline.rows(view).overwrite(start_us, start_us + DAY_US, table.drop_columns(names))
    users = [row["user"] for row in rows[0]]
    us = pa.array([MIDNIGHT_US + DAY_US] * len(users), pa.timestamp("us", "UTC"))
    found = world.store.get_historical_features(
        {"user": users, "event_timestamp": us}, features=["profile@1:balance"], with_statuses=True
    ).to_arrow()
    whole = [({**row, "balance": None}, NEVER) for row in rows[0]] + [(row, NEVER) for row in rows[1]]
    assert found["balance"].to_pylist() == [expected(whole, user, MIDNIGHT_US + DAY_US)["balance"] for user in users]


def test_the_order_and_the_keys_of_the_rows_asked_are_made_once_for_all_views() -> None:
    rows = rows_asked.RowsAsked.of(Keyed(["ann", "bob"], np.array([1, 0, -1, 1])), np.array([3, 2, 1, 4]))
    assert rows.places is rows.places
    assert rows.places.order.tolist() == [2, 1, 0, 3]
    assert rows.lookup(profile.entity, 10) is rows.lookup(profile.entity, 11)
