"""The maintenance of the tables as Dagster runs it: on real tables, beside writers, by its job and its schedule."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from assets.definitions import make_definitions
from assets.keys import maintained_key
from assets.maintenance import tables_of
from forebay import Count, EventSource, WindowedView
from forebay.deploy.registry import Registry
from forebay.ingest.arrow import conform
from forebay.language.definitions import Definitions
from forebay.offline import upkeep
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.settings import Settings
from tests.backfill import shop
from tests.backfill.world import NOW, Sale, day, sale

KEPT = EventSource(
    "sales",
    schema=shop.sales.schema,
    timestamp="ts",
    event_id="event_id",
    lateness="10m",
    history_start=shop.HISTORY_START,
    keep="20d",
)
BOUGHT = WindowedView(
    "bought", version=1, entity=shop.user, source=KEPT, features=[Count("bought", windows=["7d"], default=0)]
)
DEFINITIONS = Definitions.of(BOUGHT, shop.user_tier)
ARCHIVE = "events/sales"


@pytest.fixture
def store(
    home: Path, online_url: str, namespace: str, offline_url: str, monkeypatch: pytest.MonkeyPatch
) -> OfflineStore:
    """The tables of a deployment that the environment names."""
    for name, value in (("ONLINE_URL", online_url), ("NAMESPACE", namespace), ("OFFLINE_URL", offline_url)):
        monkeypatch.setenv(f"FOREBAY_{name}", value)
    return OfflineStore(Settings.from_env())


@pytest.fixture
def deployed(store: OfflineStore) -> OfflineStore:
    settings = Settings.from_env()
    Registry.open(settings, connect_online(settings)).apply(DEFINITIONS)
    return store


def append(store: OfflineStore, partition: str, offset: int, sales: Iterable[Sale]) -> None:
    batch, dead = conform(KEPT, partition, offset, pa.Table.from_pylist(list(sales)), NOW)
    assert not dead
    store.archive(KEPT).append([batch], NOW)


def numbers(store: OfflineStore) -> list[str]:
    return sorted(store.archive(KEPT).scan(["event_id"])["event_id"].to_pylist())


def run(*paths: str, **config: Any) -> dg.ExecuteInProcessResult:
    """The job, of some tables or all, as the schedule or a person runs it."""
    job = make_definitions(DEFINITIONS).resolve_job_def("maintain")
    keys = [maintained_key(path) for path in paths] or None
    run_config = {"ops": {"maintained": {"config": config}}}
    return job.execute_in_process(run_config=run_config, asset_selection=keys, raise_on_error=False)


def told(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """The metadata of each table that was kept up."""
    assert result.success
    found = [event.materialization for event in result.get_asset_materialization_events()]
    return {
        one.asset_key.to_user_string(): {name: value.value for name, value in one.metadata.items()} for one in found
    }


def test_every_table_has_an_asset_downstream_of_what_fills_it(tmp_path: Path) -> None:
    found = tables_of(Definitions.load("tests.backfill.shop"))
    views = Definitions.load("tests.backfill.shop").views.values()
    every = {table.path for table, _ in upkeep.tables(OfflineStore(str(tmp_path)), Definitions.load(shop.__name__))}
    assert found["tiles/user_sales@1"][0] == dg.AssetKey(["maintained", "tiles", "user_sales_v1"])
    assert found.keys() == every - {f"history/{view.key}" for view in views if view.history is None}
    assert {"dead_letters", "repairs", "revived"} < found.keys()
    graph = make_definitions(Definitions.load("tests.backfill.shop")).resolve_asset_graph()
    for name, parent in (
        ("events/sales", "events/sales"),
        ("tiles/user_sales_v1", "tiles/user_sales_v1"),
        ("streamed/user_sales_v1", "events/sales"),
        ("superseded/user_tier_v1", "features/user_tier_v1"),
        ("history/user_sales_v1", "history/user_sales_v1"),
    ):
        node = graph.get(dg.AssetKey(["maintained", *name.split("/")]))
        assert [key.to_user_string() for key in node.parent_keys] == [parent]
        assert node.group_name == "maintenance"


def test_a_schedule_runs_all_of_it_once_a_day() -> None:
    defs = make_definitions(DEFINITIONS)
    schedule = defs.resolve_schedule_def("maintain")
    assert (schedule.job_name, schedule.cron_schedule) == ("maintain", "17 3 * * *")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    chosen = defs.resolve_job_def("maintain").asset_layer.executable_asset_keys
    assert chosen == {key for key, _ in tables_of(DEFINITIONS).values()}


def test_tables_are_put_in_order_and_what_is_not_kept_goes(deployed: OfflineStore) -> None:
    """
    days        0 … 4                40 … 43
    events      ■ ■ ■ ■ ■            ■ ■ ■ ■      keep = 20d: the first five go
    """
    for number in (0, 1, 2, 3, 4, 40, 41, 42, 43):
        append(deployed, f"load:{number:016x}", 0, [sale(2 * number + i, day(number, 5 + i)) for i in range(2)])
        append(deployed, f"load:{number:016x}", 2, [sale(500 + number, day(number, 9))])
    before = numbers(deployed)
    would = told(run(ARCHIVE, dry_run=True))["maintained/events/sales"]
    assert (would["rows_removed"], would["dates_ordered"], would["dry_run"]) == (15, 9, True)
    assert (would["files_before"], would["files_after"]) == (18, 18)
    assert numbers(deployed) == before, "it was only told"
    found = told(run())
    assert len(found) == len(tables_of(DEFINITIONS)), "those that have nothing are told, too"
    done = found["maintained/events/sales"]
    assert (done["rows_removed"], done["dates_ordered"], done["dry_run"]) == (15, 4, False)
    assert (done["files_before"], done["files_after"], done["left_to_writers"]) == (8, 4, "none")
    assert 0 < done["bytes_after"] < done["bytes_before"]
    assert len(numbers(deployed)) == 12
    assert set(numbers(deployed)) < set(before)
    again = told(run(ARCHIVE))["maintained/events/sales"]
    assert (again["rows_removed"], again["dates_ordered"], again["files_after"]) == (0, 0, 4)


def test_no_row_is_lost_or_doubled_by_runs_beside_writers(deployed: OfflineStore) -> None:
    def write(partition: str) -> None:
        own = OfflineStore(Settings.from_env())
        for first in range(0, 24, 3):
            at = [sale(number, day(number % 4, 1 + number / 24)) for number in range(first, first + 5)]
            append(own, partition, first, at)  # overlapping, as after a restart

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, partition) for partition in ("p0", "p1")]
        results = [run(ARCHIVE)]
        while not all(writer.done() for writer in writers):
            results.append(run(ARCHIVE))
    for writer in writers:
        writer.result()
    assert all(result.success for result in results)
    told(run())
    assert numbers(deployed) == sorted(2 * [f"e{number:06d}" for number in range(26)])


def test_what_is_wrong_is_said_in_words(store: OfflineStore) -> None:
    def failure(result: dg.ExecuteInProcessResult) -> str:
        (event,) = result.get_step_failure_events()
        return str(event.event_specific_data)

    assert "forebay apply" in failure(run())
    settings = Settings.from_env()
    Registry.open(settings, connect_online(settings)).apply(Definitions.of(BOUGHT))
    assert "expected 24 or more" in failure(run(older_than_hours=1))
    assert not {key for key in told(run()) if "user_tier" in key}, "it is declared, and not deployed"
