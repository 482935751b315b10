"""What is read of a batch view for a training set: narrow columns of what may hold, wide ones where a row does hold.

    row groups of a day   ┌──┬──┬──┬──┐   first     user, event_timestamp, created_timestamp   of all before the last T
                          └──┴──┴──┴──┘   then      the features that are asked for            of those that hold a row

Here are four days of eight row groups, with twenty features in each row.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from forebay import BatchView, Entity, Feature, FeatureService, Float64, String, TableSource, Timestamp
from forebay.client.feature_store import FeatureStore
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.language.definitions import Definitions
from forebay.offline import lake_table, numbered, upkeep
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from tests.client.many_rows_run import BOUND_MB, ENTITIES, NARROW_BYTES, ROWS_EACH, SPINE
from tests.places import everywhere

START_US = day_us("2024-03-01")
DAYS, ROWS, GROUP, USERS = 4, 8_192, 1_024, 64
WIDE = BatchView(
    name="wide",
    version=1,
    entity=Entity("user", keys={"user": String}),
    sources=[TableSource("people", schema={"user": String, "at": Timestamp}, effective="at", path="people.csv")],
    partitions="daily",
    history_start="2024-03-01",
    features=[Feature(f"f{number}", Float64, default=0.0) for number in range(20)],
)
DEFINITIONS = Definitions.of(FeatureService("wide", version=1, features=[WIDE]))
NARROW = ("user", "event_timestamp", "created_timestamp")
ASKED = [("u7", START_US + DAY_US // 2), ("u7", START_US + DAY_US // 2 + 1), ("u9", START_US + 2 * DAY_US + HOUR_US)]
Group = tuple[int, int]
"""A day, and the number of a row group in its file."""


def users_of(day: int) -> list[str]:
    return [f"u{i}" for i in np.random.default_rng(day).integers(0, USERS, ROWS).tolist()]


def instants_of(day: int) -> list[int]:
    """In order, as they lie in the file of a day."""
    us = np.random.default_rng(100 + day).integers(0, DAY_US, ROWS)
    return [START_US + day * DAY_US + one for one in sorted(us.tolist())]


def rows_of(day: int, created_us: int) -> pa.Table:
    rng = np.random.default_rng(200 + day)
    columns: dict[str, Any] = {"user": users_of(day)}
    columns |= {feature.name: rng.random(ROWS) for feature in WIDE.features}
    stamp = pa.timestamp("us", "UTC")
    for name, us in (("event_timestamp", instants_of(day)), ("created_timestamp", [created_us] * ROWS)):
        columns[name] = pa.array(us, stamp)
    return pa.table(columns | {"partition_start": pa.array([START_US + day * DAY_US] * ROWS, stamp)})


@pytest.fixture
def store(home: Path, place: str, monkeypatch: pytest.MonkeyPatch) -> FeatureStore:
    """A table of small row groups; the rows of the first day were computed twice."""
    for name in ("_WRITER", "_APPENDER", "_CLUSTERED_WRITER"):
        writer = lake_table.WriterProperties(compression="ZSTD", max_row_group_size=GROUP)
        monkeypatch.setattr(lake_table, name, writer)
    settings = Settings(home, "redis://127.0.0.1:1/0", place)
    table = OfflineStore(settings).rows(WIDE)
    for day, created_us in ((0, 1), *((day, START_US + (day + 1) * DAY_US) for day in range(DAYS))):
        start_us = START_US + day * DAY_US
        table.overwrite(start_us, start_us + DAY_US, rows_of(day, created_us), created_us)
    return FeatureStore(settings, DEFINITIONS)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str, int, tuple[str, ...]]]:
    """How often what was read: table, date, row group, columns."""
    found: Counter[tuple[str, str, int, tuple[str, ...]]] = Counter()
    group = numbered.read_row_group

    def counted(fragment: Any, schema: pa.Schema, *rest: Any, **how: Any) -> pa.Table:
        ((_, date),) = ((part, part[-10:]) for part in fragment.path.split("/") if part.startswith("date="))
        table = "superseded" if "superseded_timestamp" in fragment.physical_schema.names else "features"
        found[table, date, fragment.row_groups[0].id, tuple(schema.names)] += 1
        return group(fragment, schema, *rest, **how)

    monkeypatch.setattr(numbered, "read_row_group", counted)
    return found


def answered(store: FeatureStore, clock: Any = "as_of", asked: list[tuple[str, int]] = ASKED) -> pa.Table:
    us = pa.array([us for _, us in asked], pa.timestamp("us", "UTC"))
    spine = pa.table({"user": [user for user, _ in asked], "event_timestamp": us})
    return store.get_historical_features(spine, features=["wide@1:f3", "wide@1:f17"], clock=clock).to_arrow()


def holding(user: str, at_us: int) -> Group:
    """Where the newest row of a user at an instant lies."""
    found = [
        (us, day, place // GROUP)
        for day in range(DAYS)
        for place, (name, us) in enumerate(zip(users_of(day), instants_of(day), strict=True))
        if name == user and us <= at_us
    ]
    return max(found)[1:]


def before(at_us: int) -> set[Group]:
    """The row groups with a row at an instant or before it."""
    firsts = {(day, place): instants_of(day)[place * GROUP] for day in range(DAYS) for place in range(ROWS // GROUP)}
    return {group for group, first_us in firsts.items() if first_us <= at_us}


def dated(groups: set[Group]) -> set[tuple[str, int]]:
    return {(f"2024-03-{day + 1:02}", place) for day, place in groups}


@everywhere
def test_keys_and_instants_are_read_first_and_features_of_the_rows_that_hold(
    store: FeatureStore, read: Counter[tuple[str, str, int, tuple[str, ...]]]
) -> None:
    table = answered(store)
    assert 0.0 not in table["f3"].to_pylist()
    assert set(read.values()) == {1}, "nothing is read twice"
    assert {columns for *_, columns in read} == {NARROW, ("f3", "f17")}
    assert {table for table, *_ in read} == {"features"}, "what was replaced is of the past"
    narrow = {(date, place) for _, date, place, columns in read if columns == NARROW}
    wide = {(date, place) for _, date, place, columns in read if columns != NARROW}
    assert narrow == dated(before(max(us for _, us in ASKED)))
    assert wide == dated({holding(user, us) for user, us in ASKED})
    assert (len(narrow), len(wide)) == (17, 2)


def test_as_known_what_was_replaced_is_read_in_the_same_way(
    store: FeatureStore, read: Counter[tuple[str, str, int, tuple[str, ...]]]
) -> None:
    answered(store, "as_known")
    assert set(read.values()) == {1}
    columns = {(table, columns) for table, _, _, columns in read}
    wide = ("f3", "f17")
    assert columns == {
        ("features", NARROW),
        ("superseded", (*NARROW, "superseded_timestamp")),
        ("features", wide),
        ("superseded", wide),
    }
    assert sum(names == wide for *_, names in read) == 2, "one row of each table holds"


def test_of_dates_in_order_a_row_group_each_says_what_holds(
    store: FeatureStore, read: Counter[tuple[str, str, int, tuple[str, ...]]]
) -> None:
    expected = answered(store, asked=ASKED[:1])
    for table, by in upkeep.tables(OfflineStore(store._deployed.offline.location.url), DEFINITIONS):
        upkeep.keep_up(table, by)
    read.clear()
    assert answered(store, asked=ASKED[:1]).equals(expected)
    assert sum(read.values()) <= DAYS + 1
    assert sum(columns != NARROW for *_, columns in read) == 1


def test_few_bytes_are_read(store: FeatureStore, reads: dict[str, int]) -> None:
    answered(store)
    sizes = store._deployed.offline.rows(WIDE).table.size()
    assert sizes is not None
    assert 0 < sum(reads.values()) < sizes[1] / 4, "of a table that is twenty features wide"


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the most that a process held")
def test_many_rows_of_few_entities_take_no_more_memory_than_what_is_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.client.many_rows_run", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["rows"] == ENTITIES * ROWS_EACH
    assert found["right"] == SPINE
    assert found["rows"] * NARROW_BYTES > 3 * BOUND_MB * 1_000_000, "what decides alone is more than may be held"
    for clock in ("as_of", "as_known"):
        assert found[clock] < BOUND_MB * 1_000_000, clock
