"""Assets as they are run: from the command line without a daemon, and as jobs of a schedule; on real stores."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from assets.definitions import make_definitions
from assets.schedules import RANGE_END, RANGE_START
from assets.storage import HomeStorage
from forebay.cli.app import app
from forebay.deploy.registry import Registry
from forebay.instants import moment
from forebay.language.definitions import Definitions
from forebay.language.view import AnyView
from forebay.offline.tables import OfflineStore
from forebay.offline.training_table import TrainingTable
from forebay.online.connection import connect_online
from forebay.online.slot_state import read_cut
from forebay.settings import Settings
from tests.backfill.shop import shop, user_sales, user_tier
from tests.backfill.world import World, day, sale, some_sales

CHECKOUT = Path(__file__).parents[2]
TIERS = "user_id,since,tier\nu1,2023-12-31T00:00:00Z,1\nu2,2024-01-01T05:00:00Z,9\n"


@pytest.fixture
def world(home: Path, online_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> World:
    """A shop that the environment points at, for this process and those it starts."""
    monkeypatch.setenv("FOREBAY_ONLINE_URL", online_url)
    monkeypatch.setenv("FOREBAY_NAMESPACE", namespace)
    monkeypatch.setenv("FOREBAY_DEFINITIONS", "tests.backfill.shop")
    (home / "tiers.csv").write_text(TIERS)
    settings = Settings.from_env()
    return World(OfflineStore(settings), connect_online(settings), namespace)


@pytest.fixture(scope="module")
def defs() -> dg.Definitions:
    """The shop's."""
    return make_definitions(Definitions.load("tests.backfill.shop"))


def materialize(*arguments: str) -> str:
    """`dagster asset materialize …`, as a user types it in the checkout."""
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "assets.definitions", *arguments]
    run = subprocess.run(command, cwd=CHECKOUT, env=os.environ, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    return run.stderr


def test_the_command_line_computes_publishes_and_keeps_its_record(world: World, home: Path) -> None:
    """One partition, then a range, in two processes; without DAGSTER_HOME, the second knows of the first."""
    world.load(some_sales(200, 3))
    materialize("--select", "tiles/user_sales_v1", "--partition", "2024-01-01")
    log = materialize(
        *("--select", "tiles/user_sales_v1,online/user_sales_v1", "--partition-range", "2024-01-02...2024-01-03")
    )
    assert "cut at 2024-01-04T00:00:00Z" in log
    assert read_cut(world.redis, world.namespace, user_sales) == day(3)
    keys = ["u1", "u2", "u3"]
    assert world.online(user_sales, keys, day(3, 1)) == world.expected(user_sales, keys, day(3, 1))
    with dg.DagsterInstance.from_config(str(CHECKOUT)) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey(["tiles", "user_sales_v1"])) == {
            "2024-01-01",
            "2024-01-02",
            "2024-01-03",
        }
    assert (home / "dagster" / "history").is_dir()
    assert not list(CHECKOUT.glob(".tmp_dagster_home_*"))


def test_ninety_days_are_one_run(world: World, defs: dg.Definitions) -> None:
    world.load([sale(number, day(number, 5)) for number in range(90)])
    tags = {RANGE_START: "2024-01-01", RANGE_END: "2024-03-30"}
    with dg.instance_for_test() as instance:
        job = defs.resolve_job_def("refresh_user_sales_v1")
        result = job.execute_in_process(instance=instance, tags=tags)
        assert len(instance.get_materialized_partitions(dg.AssetKey(["tiles", "user_sales_v1"]))) == 90
    (published,) = result.asset_materializations_for_node("online__user_sales_v1")
    assert published.metadata["cut"].value == day(90) / 1e6
    folded = result.asset_materializations_for_node("tiles__user_sales_v1")
    assert {name: folded[0].metadata[name].value for name in ("dates", "events", "entities")} == {
        "dates": 90,
        "events": 90,
        "entities": 1,
    }
    assert len(world.store.tiles(user_sales).table.snapshot().history()) == 3  # made, written once, noted as published


def test_a_history_of_days_is_one_run(world: World, defs: dg.Definitions) -> None:
    world.load([sale(number, day(number, 5)) for number in range(3)])
    key = dg.AssetKey(["history", "user_sales_v1"])
    tags = {RANGE_START: "2024-01-01", RANGE_END: "2024-01-03"}
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        result = job.execute_in_process(instance=instance, asset_selection=[key], tags=tags)
        assert len(instance.get_materialized_partitions(key)) == 3
    written = result.asset_materializations_for_node("history__user_sales_v1")
    assert written[0].metadata["dates"].value == 3
    table = world.store.history(user_sales).scan(["feature", "value", "computed_at"]).to_pylist()
    bought = {row["computed_at"]: row["value"] for row in table if row["feature"] == "bought_lifetime"}
    assert bought[moment(day(0, 6))] == 1.0
    assert bought[moment(day(2, 6))] == 3.0


def test_rows_of_hours_are_computed_and_published(world: World, defs: dg.Definitions) -> None:
    tags = {RANGE_START: "2024-01-01-00:00", RANGE_END: "2024-01-01-05:00"}
    result = defs.resolve_job_def("refresh_user_tier_v1").execute_in_process(tags=tags)
    assert result.success
    answers = world.online_rows(user_tier, ["u1", "u2"], day(0, 6))
    assert answers == [("tier", [1, 9], ["PRESENT", "PRESENT"])]


@pytest.mark.parametrize("view", [user_sales, user_tier], ids=["windowed", "batch"])
def test_assets_and_rebuild_publish_no_faster_than_the_environment_says(
    world: World, defs: dg.Definitions, waits: list[float], monkeypatch: pytest.MonkeyPatch, view: AnyView
) -> None:
    """u1 and u2 are in two slots: of each a value, and the list of its slot, before and after."""
    monkeypatch.setenv("FOREBAY_PUBLISH_RATE", "200")
    world.load([sale(number, day(0, 1), user) for number, user in enumerate(("u1", "u2"))])
    hour = "-00:00" if view is user_tier else ""
    tags = {RANGE_START: f"2024-01-01{hour}", RANGE_END: f"2024-01-01{hour.replace('00:', '05:')}"}
    assert defs.resolve_job_def(f"refresh_{view.asset_name}").execute_in_process(tags=tags).success
    assert sum(waits) == pytest.approx(5 / 200), "all but the last of six have had their time"
    Registry.open(Settings.from_env(), world.redis).apply(Definitions.of(view))
    world.redis.delete(*world.redis.keys(f"{world.namespace}:{{*"))
    waits.clear()
    assert CliRunner().invoke(app, ["rebuild"]).exit_code == 0
    assert sum(waits) == pytest.approx(5 / 200)


def test_one_hour_is_computed_alone(world: World, defs: dg.Definitions) -> None:
    """As `--partition` and a single partition in the UI ask: with the partition's key, without a range."""
    key = dg.AssetKey(["features", "user_tier_v1"])
    job = defs.resolve_implicit_global_asset_job_def()
    with dg.instance_for_test() as instance:
        job.execute_in_process(instance=instance, asset_selection=[key], partition_key="2024-01-01-05:00")
        assert instance.get_materialized_partitions(key) == {"2024-01-01-05:00"}


def test_a_training_set_is_built_from_a_spine(world: World, home: Path, defs: dg.Definitions) -> None:
    import pyarrow as pa

    Registry.open(Settings.from_env(), world.redis).apply(Definitions.load("tests.backfill.shop"))
    world.load([sale(number, day(number, 5)) for number in range(4)])
    instants = pa.array([day(2), day(3, 6), day(1)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"user_id": ["u1", "u1", "u9"], "event_timestamp": instants}), home / "spine.parquet")
    job, key = defs.resolve_implicit_global_asset_job_def(), dg.AssetKey(["training", "shop_v1"])

    def built(**config: str) -> dg.ExecuteInProcessResult:
        ops = {"training__shop_v1": {"config": {"spine": str(home / "spine.parquet"), **config}}}
        return job.execute_in_process(run_config={"ops": ops}, asset_selection=[key], raise_on_error=False)

    result = built(scratch=str(home))
    assert result.success
    (made,) = result.get_asset_materialization_events()
    metadata = {name: value.value for name, value in made.materialization.metadata.items()}
    assert (metadata["dagster/row_count"], metadata["buckets"]) == (3, 1), "it is written bucket by bucket"
    (failure,) = [event for event in built(memory="1MB").all_events if event.is_step_failure]
    assert "memory='1MB' leaves nothing to work with" in failure.step_failure_data.user_failure_data.description
    assert list(home.glob("forebay-spill-*")) == []
    table = TrainingTable(world.store.location, shop).read()
    assert (table["user_id"].to_pylist(), table["bought_lifetime"].to_pylist()) == (["u1", "u1", "u9"], [2, 4, 0])


def test_a_failing_view_fails_its_run_with_what_to_do(world: World, home: Path, defs: dg.Definitions) -> None:
    (home / "tiers.csv").unlink()
    tags = {RANGE_START: "2024-01-01-00:00", RANGE_END: "2024-01-01-05:00"}
    result = defs.resolve_job_def("refresh_user_tier_v1").execute_in_process(tags=tags, raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "TableSource 'tiers'" in failure.step_failure_data.user_failure_data.description


def test_runs_that_begin_together_make_one_record(home: Path) -> None:
    """Dagster alone breaks its new databases when two processes make them at once."""
    with ThreadPoolExecutor(4) as pool:
        storages = list(pool.map(HomeStorage.from_local, [str(home / "dagster")] * 4))
    assert [storage.run_storage.get_runs_count() for storage in storages] == [0] * 4
