"""The newest rows by what was kept of them == the newest rows among all, whatever was replaced since."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from forebay import Entity, Feature, Int64, String, TableSource, Timestamp, batch_view
from forebay.backfill import newest as module
from forebay.backfill.newest import newest_rows
from forebay.backfill.publication import publish_view
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.offline.clustering import Clustering
from forebay.offline.newest_table import NewestTable
from forebay.offline.tables import OfflineStore
from forebay.online.publish import publish_rows
from tests.backfill.world import World

START_US = day_us("2024-01-01")
INSTANT = pa.timestamp("us", "UTC")
DAYS = 12
PEOPLE = TableSource("people", schema={"user_id": String, "at": Timestamp}, effective="at", path="people.csv")


@batch_view(
    entity=Entity("user", keys={"user_id": String}),
    version=1,
    sources=[PEOPLE],
    partitions="hourly",
    ttl="2d",
    history_start="2024-01-01",
    features=[Feature("score", Int64, default=0)],
)
def scores(context: Any, people: Any) -> Any:
    return people


def table(rows: list[tuple[str | None, int, int, int]], created_us: int, first: int = 0) -> pa.Table:
    """Rows of (user, event_timestamp, partition_start, score)."""
    users, events, starts, values = zip(*rows, strict=True) if rows else ((), (), (), ())
    return pa.table(
        {
            "user_id": pa.array(users, pa.string()),
            "score": pa.array(values, pa.int64()),
            "event_timestamp": pa.array(events, INSTANT),
            "created_timestamp": pa.array([created_us] * len(rows), INSTANT),
            "partition_start": pa.array(starts, INSTANT),
        }
    )


class Edited:
    """A table of rows that is edited at random; each score is another one, so that one sees which row holds."""

    def __init__(self, store: OfflineStore, seed: int) -> None:
        self.store, self.rows, self.chance, self.number = store, store.rows(scores), random.Random(seed), 0

    def edit(self) -> None:
        """Replace some hours or days by rows of some users, or of none; or put a date in order."""
        chance = self.chance
        if chance.random() < 0.2:
            dates = sorted(self.rows.table.rows_by_date())
            if dates:
                self.rows.table.cluster(chance.choice(dates), Clustering(("user_id",), last=("event_timestamp",)))
            return
        step_us = chance.choice([DAY_US, 6 * HOUR_US])
        start_us = START_US + chance.randrange(DAYS) * DAY_US
        end_us = start_us + chance.choice([1, 1, 2]) * step_us
        made = []
        for _ in range(chance.choice([0, 1, 5])):
            user = chance.choice([None, *(f"u{i}" for i in range(8))])
            partition_us = start_us + chance.randrange((end_us - start_us) // HOUR_US) * HOUR_US
            event_us = START_US + chance.choice([0, 3, 3, 7]) * DAY_US  # alike in many partitions
            self.number += 1
            made.append((user, event_us, partition_us, self.number))
        created_us = START_US + chance.choice([20, 21, 22]) * DAY_US  # alike in many computations
        self.rows.overwrite(start_us, end_us, table(made, created_us), created_us)

    def full(self) -> pa.Table:
        """The newest rows among all, by a fresh look."""
        snapshot = OfflineStore(self.store.location.url).rows(scores).table.snapshot()
        assert snapshot is not None
        return module.RowsAt(scores, snapshot, 2, remote=False).newest().rows


@pytest.fixture
def keeps(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Everything is kept, and used; how often it was, and how often not."""
    for name, value in (("KEPT_ROWS", 0), ("KEPT_TIMES", 0), ("CHANGED_SHARE", 1.0)):
        monkeypatch.setattr(module, name, value)
    used: Counter[str] = Counter()
    since = module.RowsAt.since

    def counted(self: Any, before: Any) -> Any:
        found = since(self, before)
        used["all" if found is None else "kept"] += 1
        return found

    monkeypatch.setattr(module.RowsAt, "since", counted)
    return used


def plain(rows: pa.Table) -> list[dict[str, Any]]:
    return rows.select(["user_id", "score", "event_timestamp", "created_timestamp"]).sort_by("user_id").to_pylist()


@pytest.mark.parametrize("seed", range(6))
def test_what_was_kept_changes_nothing(tmp_path: Path, keeps: Counter[str], seed: int) -> None:
    edited = Edited(OfflineStore(str(tmp_path)), seed)
    for number in range(25):
        for _ in range(edited.chance.choice([0, 1, 1, 3])):
            edited.edit()
        if edited.rows.table.snapshot() is not None:
            found = newest_rows(edited.store, scores).rows
            assert plain(found) == plain(edited.full()), f"seed {seed}, step {number}"
    assert keeps["kept"] > 15


def test_it_runs_on_s3_too(offline_url: str, keeps: Counter[str]) -> None:
    edited = Edited(OfflineStore(offline_url), 7)
    for _ in range(5):
        edited.edit()
        if edited.rows.table.snapshot() is not None:
            assert plain(newest_rows(edited.store, scores).rows) == plain(edited.full())
    assert keeps["kept"] >= 2


def a_month(store: OfflineStore, users: int = 20) -> None:
    """A row of each user, each day."""
    for day in range(30):
        start_us = START_US + day * DAY_US
        made = [(f"u{i:02}", start_us + DAY_US, start_us, 100 * day + i) for i in range(users)]
        store.rows(scores).overwrite(start_us, start_us + DAY_US, table(made, start_us + DAY_US))


def replace_day(store: OfflineStore, day: int, made: list[tuple[str, int]]) -> None:
    """Compute a day again: (user, score)."""
    start_us = START_US + day * DAY_US
    rows = [(user, start_us + DAY_US, start_us, score) for user, score in made]
    store.rows(scores).overwrite(start_us, start_us + DAY_US, table(rows, START_US + 90 * DAY_US), 90 * DAY_US)


def test_only_the_dates_that_changed_are_read(tmp_path: Path, keeps: Counter[str]) -> None:
    store = OfflineStore(str(tmp_path))
    a_month(store)
    assert newest_rows(store, scores).looked_at == 600
    assert newest_rows(store, scores).looked_at == 20, "nothing has changed: what was kept"
    replace_day(store, 29, [(f"u{i:02}", i) for i in range(20)])
    found = newest_rows(store, scores)
    assert found.looked_at == 20 + 20
    assert sorted(found.rows["score"].to_pylist()) == list(range(20))
    replace_day(store, 29, [(f"u{i:02}", i) for i in range(19)])
    found = newest_rows(store, scores)
    assert {row["user_id"]: row["score"] for row in found.rows.to_pylist()}["u19"] == 2819, "of the day before"
    assert found.looked_at == 20 + 19 + 580, "dates in no order are read whole"


def test_an_entity_that_has_lost_its_row_is_looked_up_by_its_hash(tmp_path: Path, keeps: Counter[str]) -> None:
    store = OfflineStore(str(tmp_path))
    a_month(store)
    lake = store.rows(scores).table
    for date in lake.rows_by_date():
        lake.cluster(date, Clustering(("user_id",)))
    newest_rows(store, scores)
    replace_day(store, 29, [])
    found = newest_rows(store, scores).rows
    assert sorted(found["score"].to_pylist()) == [2800 + i for i in range(20)]
    replace_day(store, 28, [(f"u{i:02}", i) for i in range(1, 20)])
    assert sorted(newest_rows(store, scores).rows["score"].to_pylist()) == [*range(1, 20), 2700]
    assert keeps == {"kept": 2}


def test_of_rows_alike_in_both_instants_that_of_the_later_date_holds(tmp_path: Path, keeps: Counter[str]) -> None:
    """
    day       0    1    2
    kept      1    2   (3)     all alike in both instants
    then      4    2    .      day 2 is emptied and day 0 computed again: the row of day 1 holds
    """
    store, at_us = OfflineStore(str(tmp_path)), START_US - DAY_US

    def compute(day: int, *scores_: int) -> None:
        start_us = START_US + day * DAY_US
        rows = table([("ann", at_us, start_us, score) for score in scores_], at_us)
        store.rows(scores).overwrite(start_us, start_us + DAY_US, rows, at_us)

    for day in range(3):
        compute(day, day + 1)
    assert newest_rows(store, scores).rows["score"].to_pylist() == [3]
    compute(2)
    compute(0, 4)
    assert newest_rows(store, scores).rows["score"].to_pylist() == [2]
    assert keeps == {"kept": 1}


def test_what_cannot_be_used_is_not(tmp_path: Path, keeps: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = OfflineStore(str(tmp_path))
    a_month(store)
    newest_rows(store, scores)
    replace_day(store, 29, [("u00", 1)])
    with monkeypatch.context() as patch:
        patch.setattr(module, "LOOKED_UP_MAX", 18)
        assert newest_rows(store, scores).looked_at == 581
        assert keeps == {"all": 1}
    kept = NewestTable(store.location, scores)
    lake = store.rows(scores).table
    replace_day(store, 28, [("u00", 2)])
    table_ = DeltaTable(lake.location.at(lake.path))
    table_.create_checkpoint()
    for entry in (tmp_path / "features" / scores.key / "_delta_log").glob("*.json"):
        if int(entry.stem) < table_.version():
            entry.unlink()
    assert kept.before(OfflineStore(str(tmp_path)).rows(scores).table.snapshot()) is None, "the log is gone"
    assert newest_rows(store, scores).looked_at == 562
    (tmp_path / "features" / scores.key).rename(tmp_path / "gone")
    again = OfflineStore(str(tmp_path))
    a_month(again, users=1)
    assert again.rows(scores).table.snapshot() is not None
    assert newest_rows(again, scores).looked_at == 30, "another table of this name"
    assert keeps == {"all": 1}


def test_a_short_table_keeps_nothing(tmp_path: Path) -> None:
    store = OfflineStore(str(tmp_path))
    a_month(store)
    assert newest_rows(store, scores).looked_at == newest_rows(store, scores).looked_at == 600
    assert not (tmp_path / "newest").exists()


def test_publications_by_what_was_kept_write_what_full_ones_write(
    world: World, keeps: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same keys with the same bytes, after each edit: rows, rows that go, entities that vanish."""
    edited, whole = Edited(world.store, 3), f"{world.namespace}-whole"

    def written(namespace: str) -> dict[bytes, bytes | None]:
        names = world.redis.keys(f"{namespace}:*")
        values = {name: world.redis.get(name) for name in names}
        return {name.removeprefix(namespace.encode()): value for name, value in values.items()}

    for _ in range(12):
        edited.edit()
        if edited.rows.table.snapshot() is None:
            continue
        publish_view(world.redis, world.namespace, world.store, scores)
        publish_rows(world.redis, whole, scores, edited.full())
        assert written(world.namespace) == written(whole)
    assert keeps["kept"] > 5
