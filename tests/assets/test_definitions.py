"""What Dagster is shown: keys, lineage, partitions, owners, columns, schedules. Nothing runs here."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.definitions import make_definitions
from assets.partitions import partitions_of, refreshed_within, tick_us
from assets.schedules import CATCH_UP_MAX, RANGE_END, RANGE_START, first_due
from assets.sources import source_specs
from forebay.instants import DAY_US, HOUR_US
from forebay.language.definitions import Definitions
from forebay.language.source import EventSource
from tests.backfill import shop
from tests.backfill.world import day
from tests.language.shop import VISITS


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    """The shop's."""
    return make_definitions(Definitions.load("tests.backfill.shop"))


def parents(defs: dg.Definitions, key: str) -> set[str]:
    """What an asset is made from."""
    node = defs.resolve_asset_graph().get(dg.AssetKey.from_user_string(key))
    return {parent.to_user_string() for parent in node.parent_keys}


def test_lineage_goes_from_stream_to_service(defs: dg.Definitions) -> None:
    assert parents(defs, "events/sales") == {"stream/sales"}
    assert parents(defs, "tiles/user_sales_v1") == {"events/sales"}
    assert parents(defs, "online/user_sales_v1") == {"tiles/user_sales_v1"}
    assert parents(defs, "history/user_sales_v1") == {"events/sales"}
    assert parents(defs, "features/user_spending_v1") == {"events/sales", "table/tiers"}
    assert parents(defs, "online/user_spending_v1") == {"features/user_spending_v1"}
    online = {"online/user_sales_v1", "online/user_tier_v1", "online/user_spending_v1"}
    assert parents(defs, "service/shop_v1") == online
    assert parents(defs, "service/till_v1") == {"online/user_tier_v1", "online/counter_sales_v1"}
    assert parents(defs, "training/till_v1") == {"events/sales", "features/user_tier_v1"}
    assert parents(defs, "training/shop_v1") == {"events/sales", "features/user_tier_v1", "features/user_spending_v1"}


def test_lineage_of_a_view_of_sessions_goes_through_them() -> None:
    visits = make_definitions(Definitions.of(VISITS))
    assert parents(visits, "sessions/shop_sessions") == {"events/shop"}
    assert parents(visits, "tiles/visits_v1") == {"sessions/shop_sessions"}
    node = visits.resolve_asset_graph().get(dg.AssetKey(["sessions", "shop_sessions"]))
    assert not node.is_executable
    assert (node.metadata["gap"], node.metadata["longest"]) == ("30m", "12h")


def test_what_flows_in_is_shown_and_not_run(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    external = {key.to_user_string() for key in graph.get_all_asset_keys() if not graph.get(key).is_executable}
    assert external == {"stream/sales", "events/sales", "table/tiers", "service/shop_v1", "service/till_v1"}


def test_every_asset_that_runs_takes_a_range_in_one_run(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    policies = {graph.get(key).backfill_policy for key in graph.executable_asset_keys}
    assert policies == {dg.BackfillPolicy.single_run()}


def test_a_service_says_what_of_it_is_computed_on_demand(defs: dg.Definitions) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(["service", "till_v1"]))
    assert node.description == (
        "What a model reads online under this name.\n\n"
        "- `tiered@1` is computed at the call, of tier (user_tier@1), and of the request's amount, is_gift: What a "
        "payment would count for.\n"
        "- `at_counter@1` is computed at the call, of tier (user_tier@1), sold_24h (counter_sales@1): A user at a "
        "counter."
    )
    columns = {column.name: column.type for column in node.metadata["dagster/column_schema"].columns}
    assert columns == {"tiered_amount": "Float64", "tier_per_sale": "Float64"}


def test_what_dagster_refuses_of_a_definition_is_shown_as_metadata(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    node = graph.get(dg.AssetKey(["tiles", "counter_sales_v1"]))
    assert (node.owners, node.group_name) == ([], "shop_floor")
    assert (node.metadata["owner"], node.metadata["tag a tag"]) == ("nobody in particular", "with spaces")
    owned = graph.get(dg.AssetKey(["online", "user_sales_v1"]))
    assert (list(owned.owners), owned.group_name) == (["shop@example.com"], "shop")
    columns = {column.name: column.type for column in owned.metadata["dagster/column_schema"].columns}
    assert (columns["user_id"], columns["spent_24h"], columns["last_amount_lifetime"]) == (
        "String",
        "Decimal(2)",
        "Decimal(2)",
    )


def test_partitions_are_named_by_their_start() -> None:
    moment = datetime(2024, 1, 3, 5, 30, tzinfo=UTC)
    daily, hourly, within = map(partitions_of, (shop.user_sales, shop.user_tier, shop.user_spending))
    assert daily is not None
    assert hourly is not None
    assert within is not None
    assert list(daily.get_partition_keys(current_time=moment)) == ["2024-01-01", "2024-01-02"]
    assert list(hourly.get_partition_keys(current_time=moment))[-1] == "2024-01-03-04:00"
    assert list(within.get_partition_keys(current_time=moment))[-1] == "2024-01-03"  # refreshed within its day


def test_views_with_one_grain_and_start_share_their_partitions() -> None:
    assert partitions_of(shop.user_sales) == partitions_of(shop.counter_sales)


def test_a_view_is_refreshed_within_its_partition_if_its_schedule_is_finer() -> None:
    assert (refreshed_within(shop.user_spending), refreshed_within(shop.user_tier)) == (True, False)


@pytest.mark.parametrize(
    ("cron", "now", "tick"),
    [
        ("0 * * * *", day(0, 5.5), day(0, 5)),
        ("0 * * * *", day(0, 5), day(0, 5)),
        ("0 1 * * *", day(1, 0.5), day(0, 1)),
        ("@daily", day(1, 0.5), day(1)),
        (None, day(1), None),
    ],
)
def test_a_tick_is_the_last_one_at_or_before_now(cron: str | None, now: int, tick: int | None) -> None:
    assert tick_us(cron, now) == tick
    assert DAY_US == 24 * HOUR_US


HOURS = [f"2024-01-{1 + number // 24:02}-{number % 24:02}:00" for number in range(20 * 24)]


@pytest.mark.parametrize(
    ("begun", "materialized", "first", "words"),
    [
        (3, set(), 2, "nothing is materialized"),
        (5, {0, 1}, 1, "4 since"),
        (5, {4}, 4, "1 since"),
        (CATCH_UP_MAX + 1, {1}, 1, f"{CATCH_UP_MAX} since"),
        (CATCH_UP_MAX + 2, {0, 1}, CATCH_UP_MAX + 1, f"more than {CATCH_UP_MAX}"),
    ],
)
def test_a_tick_asks_for_all_since_the_newest_materialized_partition(
    begun: int, materialized: set[int], first: int, words: str
) -> None:
    found, note = first_due(HOURS[:begun], {HOURS[number] for number in materialized})
    assert found == HOURS[first]
    assert words in note


def test_a_tick_is_skipped_while_its_table_is_missing(defs: dg.Definitions, home: Path) -> None:
    schedule = defs.resolve_schedule_def("refresh_user_tier_v1")
    assert (schedule.cron_schedule, schedule.default_status) == ("0 * * * *", dg.DefaultScheduleStatus.RUNNING)
    moment = datetime(2024, 1, 1, 3, 0, tzinfo=UTC)
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance, scheduled_execution_time=moment)
        assert "'tiers'" in str(schedule.evaluate_tick(context).skip_message)
        (home / "tiers.csv").write_text("user_id,since,tier\n")
        (request,) = schedule.evaluate_tick(context).run_requests
    assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("2024-01-01-02:00", "2024-01-01-02:00")


def test_a_view_without_refresh_has_no_schedule(defs: dg.Definitions) -> None:
    names = {schedule.name for schedule in defs.schedules or []}
    assert names == {"refresh_user_sales_v1", "refresh_user_tier_v1", "refresh_user_spending_v1", "maintain"}


def test_a_source_without_a_stream_is_an_archive_alone() -> None:
    loaded = EventSource("loaded", schema=shop.sales.schema, timestamp="ts", event_id="event_id")
    assert [spec.key.to_user_string() for spec in source_specs(loaded)] == ["events/loaded"]
