"""Years of daily partitions: a range is one commit and one pass over the archive, and a part of it costs a part."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from forebay.backfill.batch_view import EVENTS_SPAN_US, compute_batch_view
from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.instants import DAY_US
from forebay.language.view import BatchView
from forebay.offline.lake_table import LakeTable
from forebay.offline.reading import Reading
from forebay.offline.stored_table import StoredTable
from tests.backfill import world as backfill_world
from tests.backfill.shop import user_sales, user_spending
from tests.backfill.world import World, day, sale, some_sales

YEARS, YEAR = 3 * 365, 365
KEYS = ["u1", "u2", "u3", "%C3%BC%7C4", "u5", "nobody"]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often tables are read, opened and written, by what and where."""
    found: Counter[str] = Counter()
    for owner, name in ((Reading, "_pieces"), (StoredTable, "snapshot"), (LakeTable, "_write")):
        method = getattr(owner, name)

        def noted(one: Any, *rest: Any, method: Any = method, name: str = name, **how: Any) -> Any:
            found[f"{name} {one.of.path if isinstance(one, Reading) else one.path}"] += 1
            return method(one, *rest, **how)

        monkeypatch.setattr(owner, name, noted)
    return found


def commits(table: LakeTable) -> list[dict[str, Any]]:
    """What each commit did, the newest first."""
    snapshot = table.snapshot()
    assert snapshot is not None
    return DeltaTable(snapshot.table_uri).history()


def files_written(commit: dict[str, Any]) -> tuple[int, int]:
    metrics = commit["operationMetrics"]
    return int(metrics["num_added_files"]), int(metrics["num_removed_files"])


def test_three_years_of_days_are_one_commit_and_any_range_of_them_is_done_again(
    world: World, home: Path, work: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    day     0 …           400 … 460           … 1095
    first   ├───────────────────────────────────────┤
    again                  ├────┤                        nothing has changed; then one event of day 410 came late
    """
    monkeypatch.setattr(backfill_world, "NOW", day(2 * YEARS))
    (home / "tiers.csv").write_text("user_id,since,tier\nu1,2024-01-01T06:30:00Z,1\n")
    world.load(some_sales(2 * YEARS, YEARS))
    rows_are_computed(world, home, work)
    tiles_are_folded(world, work)


def tiles_are_folded(world: World, work: Counter[str]) -> None:
    """As tiles of a windowed view."""
    work.clear()
    table = world.store.tiles(user_sales)
    done = fold_dates(world.store, user_sales, day(0), day(YEARS))
    assert (done.dates, done.events) == (YEARS, 2 * YEARS)
    assert len(commits(table.table)) == 2, "made, written once"
    assert work["_pieces events/sales"] == 1
    assert work["_write tiles/user_sales@1"] == 1
    assert max(work.values()) < 20, "nothing is done day by day"

    before, folded = table.read(), table.folded()
    work.clear()
    again = fold_dates(world.store, user_sales, day(400), day(460))
    assert (again.dates, again.events < 60 * 4) == (60, True)
    assert sum(work.values()) < 30
    assert max(files_written(commits(table.table)[0])) <= 60
    assert by_key(table.read()) == by_key(before)
    assert table.folded() == folded

    world.load([sale(900_000, day(410, 6))])
    fold_dates(world.store, user_sales, day(410), day(411))
    assert table.folded() == folded | {"2025-02-14": folded["2025-02-14"] + 1}
    assert publish_view(world.redis, world.namespace, world.store, user_sales).cut_us == day(YEARS)
    assert world.online(user_sales, KEYS, day(YEARS)) == world.expected(user_sales, KEYS, day(YEARS))


def by_key(read: tuple[list[str], Any]) -> list[tuple[str, bytes]]:
    """Tiles whatever the order of their entities."""
    keys, tiles = read
    return sorted(zip((keys[code] for code in tiles.code.tolist()), map(bytes, tiles.records), strict=True))


def rows_are_computed(world: World, home: Path, work: Counter[str]) -> None:
    """As rows of a batch view, of one year: each day is a query."""
    work.clear()
    done = compute(world, home, user_spending, day(0), day(YEAR))
    assert done.partitions == YEAR
    table = world.store.rows(user_spending)
    months = -(-YEAR * DAY_US // EVENTS_SPAN_US)
    assert work["_pieces events/sales"] == months
    assert work["_write features/user_spending@1"] == 1
    before = values(world)
    work.clear()
    assert compute(world, home, user_spending, day(200), day(260)).partitions == 60
    assert work["_pieces events/sales"] == 2
    assert max(files_written(commits(table.table)[0])) <= 60
    assert values(world) == before


def compute(world: World, home: Path, view: BatchView, start: int, end: int) -> Any:
    return compute_batch_view(world.store, view, start, end, home=home, now_us=day(YEARS + 1))


def values(world: World) -> list[dict[str, Any]]:
    """The rows, but for when they were computed."""
    names = ["user_id", "event_timestamp", "partition_start", "spent_3d", "sales_seen"]
    rows: pa.Table = world.store.rows(user_spending).scan(names)
    return rows.sort_by([(name, "ascending") for name in names[:2]]).to_pylist()
