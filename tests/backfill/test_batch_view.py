"""Batch views: what a function may see, what it must return, and what a partition is computed for."""

from __future__ import annotations

import time
from collections.abc import Callable
from decimal import Decimal as Number
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forebay import Decimal, Entity, Feature, Int64, String, TableSource, Timestamp, batch_view
from forebay.backfill.batch_view import Computed, compute_batch_view
from forebay.backfill.newest import newest_rows
from forebay.backfill.publication import publish_view
from forebay.errors import DefinitionError, RequestError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US
from forebay.language.view import BatchView
from forebay.offline import numbered
from tests.backfill.shop import sales, user, user_spending, user_tier
from tests.backfill.world import World, day, sale
from tests.places import everywhere

TIERS = "user_id,since,tier\nu1,2024-01-01T06:30:00Z,1\nu1,2024-01-02T00:00:00Z,2\nu2,2024-01-02T05:00:00Z,9\n"
LATER = day(400)


@pytest.fixture(autouse=True)
def tiers(home: Path) -> None:
    """The table that the views read."""
    (home / "tiers.csv").write_text(TIERS)


def compute(
    world: World, home: Path, view: BatchView, start: int, end: int, now: int = LATER, tick: int | None = None
) -> Computed:
    """Compute a range at some time."""
    return compute_batch_view(world.store, view, start, end, home=home, now_us=now, tick_us=tick)


def rows(world: World, view: BatchView, *names: str) -> list[tuple[Any, ...]]:
    """The stored rows: key, features, and the hour (since history began) from which each holds."""
    table = world.store.rows(view).scan().sort_by([("event_timestamp", "ascending"), ("user_id", "ascending")])
    hours = [(us - day(0)) / HOUR_US for us in table["event_timestamp"].cast(pa.int64()).to_pylist()]
    return [*zip(table["user_id"].to_pylist(), *(table[name].to_pylist() for name in names), hours, strict=True)]


def test_a_partition_sees_only_what_was_effective_before_its_end(world: World, home: Path) -> None:
    """
    tiers of u1        .....●1................●2          06:30 and midnight
    hours of day 0      …6 │7 │8 │…         23│24
    """
    done = compute(world, home, user_tier, day(0), day(1, 2))
    assert (done.partitions, done.rows, done.entities) == (26, 20, 1)
    found = {hour: tier for _, tier, hour in rows(world, user_tier, "tier")}
    assert 6 not in found
    assert (found[7], found[24], found[25], found[26]) == (1, 1, 2, 2)


def test_events_are_seen_within_reach_before_the_end(world: World, home: Path) -> None:
    world.load([sale(0, day(0)), sale(1, day(2, 23.9)), sale(2, day(3)), sale(3, day(3, 12), amount="2.50")])
    compute(world, home, user_spending, day(2), day(5))
    assert rows(world, user_spending, "spent_3d", "sales_seen") == [
        ("u1", Number("2.00"), 2, 72.0),  # [day 0, day 3): the one at midnight of day 0 is in, that of day 3 isn't
        ("u1", Number("4.50"), 3, 96.0),
        ("u1", Number("4.50"), 3, 120.0),
    ]


def test_a_partition_under_way_is_computed_as_of_the_tick_and_anew_when_it_is_over(world: World, home: Path) -> None:
    """
    day 1      ●01:00      ●05:30      ●12:10
    ticks      every hour; now is 12:05, then two days later
    """
    world.load([sale(0, day(1, 1)), sale(1, day(1, 5.5)), sale(2, day(1, 12) + 10 * MINUTE_US)])
    compute(world, home, user_spending, day(1), day(2), now=day(1, 12) + 5 * MINUTE_US, tick=day(1, 12))
    assert rows(world, user_spending, "sales_seen") == [("u1", 2, 36.0)]
    compute(world, home, user_spending, day(1), day(2), now=day(3), tick=day(3))
    assert rows(world, user_spending, "sales_seen") == [("u1", 3, 48.0)]


def test_a_partition_that_has_not_begun_is_not_computed(world: World, home: Path) -> None:
    now = day(1) + 5 * MINUTE_US
    assert compute(world, home, user_spending, day(1), day(3), now=now, tick=day(1)).partitions == 0
    assert compute(world, home, user_spending, day(0), day(3), now=now, tick=day(1)).partitions == 1


@everywhere
def test_a_rerun_replaces_its_partitions_and_no_others(world: World, home: Path) -> None:
    compute(world, home, user_tier, day(0), day(2))
    before = rows(world, user_tier, "tier")
    (home / "tiers.csv").write_text(TIERS.replace(",1\n", ",5\n"))
    compute(world, home, user_tier, day(0, 10), day(0, 12))
    after = rows(world, user_tier, "tier")
    assert [row for row in after if row not in before] == [("u1", 5, 11.0), ("u1", 5, 12.0)]
    assert len(after) == len(before)


@everywhere
def test_a_failing_partition_leaves_what_was_there(world: World, home: Path) -> None:
    compute(world, home, user_tier, day(0), day(1))
    before = rows(world, user_tier, "tier")
    failing = declare(lambda context, tiers: 1 / 0 if context.end.hour == 9 else context.sql(QUERY))
    with pytest.raises(DefinitionError, match=r"user_tier@1.*2024-01-01-08:00.*ZeroDivisionError"):
        compute(world, home, failing, day(0), day(1))
    assert rows(world, user_tier, "tier") == before


def test_many_hours_are_one_quick_run_and_one_commit(world: World, home: Path) -> None:
    began = time.process_time()
    done = compute(world, home, user_tier, day(0), day(40))
    assert done.partitions == 960
    assert time.process_time() - began < 6.8, "a year of hours would take a minute of CPU"
    assert len(world.store.rows(user_tier).table.snapshot().history()) == 2  # made, written once


@pytest.mark.parametrize("piece_rows", [numbered.PIECE_ROWS, 5])
@everywhere
def test_the_newest_row_of_every_entity_is_published(
    world: World, home: Path, monkeypatch: pytest.MonkeyPatch, piece_rows: int
) -> None:
    """Keys and instants of all rows are read, piece by piece, and the rest of one row per entity."""
    monkeypatch.setattr(numbered, "PIECE_ROWS", piece_rows)
    compute(world, home, user_tier, day(0), day(2))
    assert len(newest_rows(world.store, user_tier).rows) == 2 < len(world.store.rows(user_tier).scan())
    report = publish_view(world.redis, world.namespace, world.store, user_tier)
    assert (report.rows, report.deleted) == (2, 0)
    online = world.online_rows(user_tier, ["u1", "u2", "u3"], day(2))
    assert online == [("tier", [2, 9, 0], ["PRESENT", "PRESENT", "DEFAULT_MISSING"])]
    late = world.online_rows(user_tier, ["u1"], day(4) + 1)
    assert late == [("tier", [0], ["DEFAULT_EXPIRED"])]


QUERY = "SELECT DISTINCT user_id, 1 AS tier, {end} AS event_timestamp FROM tiers"
COLUMNS = {"user_id": ["u1"], "tier": [4]}


def declare(compute: Callable[[Any, Any], Any], partitions: str = "hourly") -> BatchView:
    """`user_tier` with another function."""
    return BatchView(
        name="user_tier",
        version=1,
        entity=user,
        sources=user_tier.sources,
        features=user_tier.features,
        partitions=partitions,
        history_start="2024-01-01",
        compute=lambda context, tiers: compute(context, tiers),
    )


RESULTS: list[Callable[[Any, Any], Any]] = [
    lambda context, tiers: context.sql(QUERY.replace(" 1 ", " 4::UTINYINT ")),
    lambda context, tiers: tiers.project(
        f"user_id, 4 AS tier, make_timestamptz({day(1)}) AS event_timestamp"
    ).distinct(),
    lambda context, tiers: pa.table({**COLUMNS, "event_timestamp": [context.end]}),
    lambda context, tiers: pa.table({**COLUMNS, "event_timestamp": [context.end]}).to_batches()[0],
    lambda context, tiers: pa.table({**COLUMNS, "event_timestamp": [context.end]}).to_reader(),
    lambda context, tiers: pd.DataFrame({**COLUMNS, "event_timestamp": [context.end]}, index=[7]),
    lambda context, tiers: {**COLUMNS, "event_timestamp": [context.end], "more": ["ignored"]},
    lambda context, tiers: [{"user_id": "u1", "tier": 4.0, "event_timestamp": context.end}],
    lambda context, tiers: [
        {"user_id": "u1", "tier": 4, "event_timestamp": context.end},
        {"user_id": None, "tier": 9, "event_timestamp": context.end},
    ],
]


@pytest.mark.parametrize("result", RESULTS)
def test_anything_that_arrow_can_read_is_a_result(world: World, home: Path, result: Callable[[Any, Any], Any]) -> None:
    compute(world, home, declare(result, "daily"), day(0), day(1))
    assert rows(world, user_tier, "tier") == [("u1", 4, 24.0)]


REFUSED: list[tuple[str, Callable[[Any, Any], Any]]] = [
    ("no column 'tier'.*'teir'", lambda context, tiers: context.sql(QUERY.replace("tier,", "teir,"))),
    ("no column 'event_timestamp'", lambda context, tiers: COLUMNS),
    ("'tier' holds 'x'", lambda context, tiers: context.sql(QUERY.replace(" 1 ", " 'x' "))),
    ("'tier' holds.*no Int64", lambda context, tiers: context.sql(QUERY.replace(" 1 ", " 1.5 "))),
    (
        "'event_timestamp'.*no Timestamp.*use {end}",
        lambda context, tiers: context.sql(QUERY.replace("{end}", "{end}::TIMESTAMP")),
    ),
    (
        "after {end}.*2024-01-01T01:00:00.000001Z",
        lambda context, tiers: context.sql(QUERY.replace("{end}", "{end} + INTERVAL 1 MICROSECOND")),
    ),
    ("'event_timestamp' is null", lambda context, tiers: context.sql(QUERY.replace("{end}", "NULL::TIMESTAMPTZ"))),
    (
        "two rows of user 'u1'",
        lambda context, tiers: [{**{n: v[0] for n, v in COLUMNS.items()}, "event_timestamp": context.end}] * 2,
    ),
    ("it returned NoneType", lambda context, tiers: None),
    ("BinderException|Binder Error", lambda context, tiers: context.sql("SELECT nothing FROM tiers")),
    ("cannot be read", lambda context, tiers: {"user_id": ["u1"], "tier": [1, 2]}),
]


@pytest.mark.parametrize(("words", "result"), REFUSED)
def test_a_result_that_is_not_as_declared_is_refused(
    world: World, home: Path, words: str, result: Callable[[Any, Any], Any]
) -> None:
    (home / "tiers.csv").write_text(TIERS.replace("2024-01-01T06:30", "2023-12-01T00:00"))
    with pytest.raises(DefinitionError, match=f"(?s)View 'user_tier@1', partition 2024-01-01-00:00.*({words})"):
        compute(world, home, declare(result), day(0), day(0, 3))


def test_decimals_and_instants_keep_their_values(world: World, home: Path) -> None:
    @batch_view(
        entity=user,
        version=1,
        sources=[sales],
        partitions="daily",
        features=[Feature("dearest", Decimal(2), default=None), Feature("first_at", Timestamp, default=None)],
    )
    def extremes(context: Any, sales: Any) -> Any:
        return context.sql(
            "SELECT user_id, max(amount) AS dearest, min(ts) AS first_at, {end} AS event_timestamp "
            "FROM sales GROUP BY 1"
        )

    world.load([sale(0, day(0, 1), amount="0.10"), sale(1, day(0, 2), amount="19.99")])
    compute(world, home, extremes, day(0), day(1))
    (row,) = world.store.rows(extremes).scan().to_pylist()
    assert (row["dearest"], int(row["first_at"].timestamp() * 1_000_000)) == (Number("19.99"), day(0, 1))


def test_an_unpartitioned_view_adds_a_set_of_rows_per_refresh(world: World, home: Path) -> None:
    view = declare(
        lambda context, tiers: context.sql(
            "SELECT user_id, max(tier) AS tier, {end} AS event_timestamp FROM tiers WHERE since >= {start} GROUP BY 1"
        ),
        "none",
    )
    for tick in (day(0, 7), day(1, 6), day(1, 6)):
        compute(world, home, view, 0, tick, now=tick + 5, tick=tick)
    assert rows(world, view, "tier") == [("u1", 1, 7.0), ("u1", 2, 30.0), ("u2", 9, 30.0)]


def test_ranges_are_of_whole_partitions(world: World, home: Path) -> None:
    for start, end in ((day(0, 0.5), day(1)), (day(1), day(1)), (day(0), day(0) + 300_000 * HOUR_US)):
        with pytest.raises(RequestError, match="hourly partitions"):
            compute(world, home, user_tier, start, end)


def test_a_view_from_a_manifest_has_no_function_to_run(world: World, home: Path) -> None:
    from forebay.language.definitions import Definitions
    from forebay.language.manifest import from_manifest, to_manifest

    view = from_manifest(to_manifest(Definitions.of(user_tier))).views["user_tier@1"]
    assert isinstance(view, BatchView)
    with pytest.raises(DefinitionError, match="FOREBAY_DEFINITIONS"):
        compute(world, home, view, day(0), day(1))


def test_many_rows_of_many_partitions_are_checked_together(world: World, home: Path) -> None:
    place = Entity("place", keys={"country": String, "shop": Int64})
    shops = TableSource(
        "shops",
        schema={"country": String, "at": Timestamp},
        effective="at",
        path="${FOREBAY_HOME}/tiers.csv",
        sql="SELECT 'NL' AS country, since AS at FROM read_csv('{path}')",
    )

    @batch_view(
        entity=place,
        version=1,
        sources=[shops],
        history_start="2024-01-01",
        features=[Feature("size", Int64, default=0)],
    )
    def sizes(context: Any, shops: Any) -> Any:
        count = 2000
        return pa.table(
            {
                "country": ["NL"] * count,
                "shop": np.arange(count),
                "size": np.arange(count),
                "event_timestamp": [context.end] * count,
            }
        )

    done = compute(world, home, sizes, day(0), day(50))
    assert (done.partitions, done.rows, done.entities) == (50, 100_000, 2000)
    report = publish_view(world.redis, world.namespace, world.store, sizes)
    assert report.rows == 2000
    assert day(50) % DAY_US == 0
