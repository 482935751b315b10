"""What `forebay plan` says of a backfill before it runs, of events that were loaded and tiles that were folded."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from forebay.backfill.tiles import fold_dates
from forebay.cli.app import app
from forebay.cli.deploying import PLAN_REFUSED
from forebay.instants import DAY_US, day_text, instant_text
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from tests.backfill.shop import user_sales
from tests.backfill.world import START, Sale, day, sale, some_sales

EVENTS, DAYS, FOLDED = 6000, 5, 3
BEFORE = "from tests.backfill.shop import user_sales"
AFTER = """
import msgspec
from forebay import Count, Feature, Int64, Max, batch_view
from tests.backfill.shop import counter_sales, tiers, user, user_sales, user_spending, user_tier

wider = [Count("bought", windows=["24h", "30d"], default=0)]
more = [*user_sales.features, Max("most", of="amount", windows=["7d"], default=0)]
second = msgspec.structs.replace(user_sales, version=2, features={features})


@batch_view(entity=user, version=1, sources=[tiers], partitions="none", features=[Feature("tier", Int64, default=0)])
def user_now(context, tiers):
    return context.sql("SELECT user_id, tier, since AS event_timestamp FROM tiers")
"""
REUSE = rf", of which {FOLDED - 1} days are made of the tiles of user_sales@1"


def run(*arguments: str) -> str:
    """What a command prints, in one line."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def load(folder: Path, sales_: Sequence[Sale]) -> None:
    """`forebay load` of some sales."""
    file = folder / f"{len(sales_)}.ndjson"
    lines = [json.dumps(one | {"ts": instant_text(one["ts"])}, default=str) for one in sales_]
    file.write_text("\n".join(lines) + "\n")
    assert json.loads(run("load", "sales", str(file), "--json"))["files"][0]["dead"] == 0


def daily() -> str:
    """All whole days since history began, as of now."""
    days = (time.time_ns() // 1_000 - START) // DAY_US
    return f"{days:,} daily partitions, 2024-01-01 to {day_text(day(days - 1))}"


@pytest.fixture
def project(home: Path, tmp_path: Path, online_url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of modules; the first is deployed, with five days loaded, three folded, one of them changed since."""
    monkeypatch.setenv("FOREBAY_ONLINE_URL", online_url)
    monkeypatch.setenv("FOREBAY_NAMESPACE", namespace)
    monkeypatch.setenv("FOREBAY_DEFINITIONS", f"before_{namespace}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"before_{namespace}.py").write_text(BEFORE)
    run("apply")
    load(tmp_path, some_sales(EVENTS - 1, DAYS))
    fold_dates(OfflineStore(Settings.from_env()), user_sales, START, day(FOLDED))
    load(tmp_path, [sale(EVENTS, day(FOLDED - 1, 5))])
    return tmp_path


@pytest.mark.parametrize(
    ("features", "reuse", "lacking"),
    [("wider", REUSE, []), ("more", rf"{REUSE}, which lack highest_amount: that is folded", ["highest_amount"])],
    ids=["window", "aggregate"],
)
def test_plan_prints_what_a_backfill_touches_what_it_reuses_and_how_long_it_may_take(
    project: Path,
    home: Path,
    namespace: str,
    monkeypatch: pytest.MonkeyPatch,
    features: str,
    reuse: str,
    lacking: list[str],
) -> None:
    """
    day      0   1   2   3   4   …  yesterday
    v1       ■   ■   ■·  .   .      2 has got an event since
    """
    (project / f"after_{namespace}.py").write_text(AFTER.replace("{features}", features))
    monkeypatch.setenv("FOREBAY_DEFINITIONS", f"after_{namespace}")
    before = daily()
    printed, planned = run("plan"), json.loads(run("plan", "--json"))["added"]
    size = sum(file.stat().st_size for file in (home / "offline" / "events" / "sales").rglob("*.parquet"))
    assert size >= 2**20 / 10, "less would be printed as nothing"
    read = rf"(?:{before}|{daily()}), {EVENTS:,} events, {size / 2**20:,.1f} MiB to read"
    for view, told in {
        "counter_sales@1": rf"{read}, about \d+ s",
        "user_sales@2": rf"{read}{reuse}, about \d+ s",
        "user_spending@1": read,
        "user_tier@1": r"[\d,]+ hourly partitions, 2024-01-01-00:00 to [-\d]+-\d\d:00",
        "user_now@1": "unpartitioned",
    }.items():
        assert re.search(rf"view {view} {told}( \+ |$)", printed), printed
    touched = {one["key"]: one["backfill"] for one in planned if one["kind"] == "view"}
    reused = {"view": "user_sales@1", "days": FOLDED - 1, "lacking": lacking}
    assert {key: one["reused"] for key, one in touched.items() if one["reused"]} == {"user_sales@2": reused}
    assert {key for key, one in touched.items() if one["seconds"] is not None} == {"counter_sales@1", "user_sales@2"}
    assert touched["user_sales@2"]["bytes"] == size


def test_history_that_would_begin_after_loaded_events_is_refused(
    project: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = "import msgspec\nfrom tests.backfill.shop import sales as was, user_sales as view\n"
    raised += "sales = msgspec.structs.replace(was, history_start='2024-01-02')\n"
    raised += "user_sales = msgspec.structs.replace(view, source=sales)\ndel view, was\n"
    (project / f"raised_{namespace}.py").write_text(raised)
    monkeypatch.setenv("FOREBAY_DEFINITIONS", f"raised_{namespace}")
    for command in ("plan", "apply"):
        result = CliRunner().invoke(app, [command, "--json"])
        assert result.exit_code == PLAN_REFUSED
        refused = json.loads(result.stdout)["refused"]
        assert [(one["kind"], one["key"]) for one in refused] == [("source", "sales")]
        assert "its archive holds events from 2024-01-01 on" in refused[0]["reason"]
