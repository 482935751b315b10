"""The command line as a person and a program use it: exit codes, one line per refusal, JSON that parses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from forebay.backfill.gaps import MARKED
from forebay.backfill.tiles import fold_dates
from forebay.cli import main
from forebay.core.layout import Layout
from forebay.core.tiles import Tiles
from forebay.deploy.outdated import OUTDATED
from forebay.deploy.unstreamed import UNSTREAMED
from forebay.instants import DAY_US, HOUR_US, day_us
from forebay.language.definitions import Definitions
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.online.publish import publish_tiles
from forebay.online.signs import Sign, Signs
from forebay.settings import Settings
from streaming.show import show
from tests.conftest import Deployment
from tests.infra.valkey import Valkey

CHECKOUT = Path(__file__).parents[2]
DEFINITIONS = """
from forebay import (
    Count, Decimal, Entity, EventSource, Feature, FeatureService, FileStream, Float64, Int64, Mean, String, Timestamp,
    WindowedView, on_demand,
)

user = Entity("user", keys={"user_id": Int64, "shop": String})
clicks = EventSource(
    "clicks",
    schema={"event_id": String, "user_id": Int64, "shop": String, "ts": Timestamp, "pages": Int64},
    timestamp="ts", event_id="event_id", stream=FileStream("clicks.ndjson"), history_start="2013-06-01",
)
user_clicks = WindowedView(
    "user_clicks", version=1, entity=user, source=clicks,
    features=[Count("clicks", windows=["1h"], default=0), Mean("pages", of="pages", windows=["1h", None], default=0.5)],
)
ads = FeatureService("ads", version=1, features=[user_clicks])

@on_demand(
    version=1,
    inputs=[user_clicks],
    request={"bid": Decimal(2)},
    features=[Feature("bid_per_page", Float64, default=0.0)],
)
def bidding(pages_1h, bid):
    return bid / pages_1h

bids = FeatureService("bids", version=1, features=[bidding])
"""
EVENTS = [
    {"event_id": "e1", "user_id": 7, "shop": "a b", "ts": "2013-06-01T12:00:00Z", "pages": 3},
    {"event_id": "e2", "user_id": 7, "shop": "a b", "ts": "2013-06-01T12:30:00Z", "pages": 4},
    {"event_id": "e3", "user_id": 8, "shop": "c", "ts": "2013-06-01T12:30:00Z", "pages": 10},
]
SPINE = """label,user_id,shop,event_timestamp
1,7,a b,2013-06-01T12:30:00Z
0,9,z,2013-06-01T12:30:00Z
1,7,a b,2013-06-01T12:31:00Z
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("get", …)`: the command line in this process."""

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["forebay", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return Ended(code, captured.out, captured.err)

    return run


@pytest.fixture
def project(tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with definitions, events and a spine, which is the working folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / f"defs_{namespace}.py").write_text(DEFINITIONS)
    (folder / "clicks.ndjson").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    (folder / "spine.csv").write_text(SPINE)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FOREBAY_DEFINITIONS", f"defs_{namespace}")
    return folder


def test_apply_load_and_ask(cli: Cli, project: Path, deployment: Deployment) -> None:
    planned = json.loads(cli("plan", "--json").out)
    assert [change["key"] for change in planned["added"] if change["kind"] == "view"] == ["user_clicks@1"]
    applied = cli("apply")
    assert applied.code == 0
    assert "user_clicks@1" in applied.out
    assert "Nothing to do" in cli("apply").out

    loaded = json.loads(cli("load", "clicks", "clicks.ndjson", "--json").out)
    assert loaded == {
        "files": [{"file": "clicks.ndjson", "rows": 3, "dead": 0, "already": False, "duplicates": 0}],
        "missing": {"user_clicks@1": f"in training sets and not online: 2013-06-01 not folded; {MARKED}"},
    }
    assert json.loads(cli("load", "clicks", "clicks.ndjson", "--json").out)["files"][0]["already"] is True

    asked = ("history", "user_clicks@1", "user_id=7", "shop=a b")
    rows = json.loads(cli(*asked, "--json").out)
    assert [row["instant"] for row in rows] == [
        "2013-06-01T00:00:00Z",
        "2013-06-01T12:00:00.000001Z",
        "2013-06-01T12:30:00.000001Z",
    ]
    assert [row["pages_lifetime"] for row in rows] == [0.5, 3.0, 3.5]
    at = json.loads(cli(*asked, "--at", "2013-06-01T12:30:00Z", "--json").out)
    assert [(row["instant"], row["clicks_1h"]) for row in at] == [("2013-06-01T12:30:00Z", 1)]

    made = json.loads(cli("training-set", "ads@1", "--spine", "spine.csv", "--out", "out/set.csv", "--json").out)
    assert (made["rows"], made["features"]) == (3, ["clicks_1h", "pages_1h", "pages_lifetime"])
    lines = (project / "out" / "set.csv").read_text().splitlines()
    assert lines[0].replace('"', "") == "label,user_id,shop,event_timestamp,clicks_1h,pages_1h,pages_lifetime"
    assert [line.split(",")[-3:] for line in lines[1:]] == [["1", "3", "3"], ["0", "0.5", "0.5"], ["2", "3.5", "3.5"]]

    spilled = cli("training-set", "ads@1", "--spine", "spine.csv", "--out", "out/spilled.csv", "--memory", "8GB")
    assert spilled.out.startswith("3 rows with 3 features of ads@1 in ")
    assert (project / "out" / "spilled.csv").read_text().splitlines() == lines

    unknown = json.loads(cli("get", "ads@1", "user_id=99", "shop=z", "--json").out)
    assert unknown["views"]["user_clicks@1"] == {
        "commit": None,
        "cut": None,
        "watermark": None,
        "overdue": False,
        "missing": "2013-06-01T12:30:00.000001Z",
    }
    default = {"value": 0.5, "event_timestamp": None, "age_s": None}
    assert unknown["features"]["pages_1h"] == default | {"status": "DEFAULT_MISSING"}
    assert unknown["features"]["pages_lifetime"] == default | {"status": "UNAVAILABLE"}, "what was loaded is not online"
    shown = cli("get", "ads@1", "user_id=99", "shop=z")
    assert "pages_lifetime" in shown.out
    assert "DEFAULT_MISSING" in shown.out


def test_what_is_computed_on_demand_takes_its_request_from_the_command_line_and_the_spine(
    cli: Cli, project: Path, deployment: Deployment
) -> None:
    assert "on-demand view   bidding@1" in cli("apply").out
    asked = ("user_id=7", "shop=a b", "bid=3.50")
    found = json.loads(cli("get", "bids@1", *asked, "--json").out)
    assert found["features"]["bid_per_page"] == {
        "value": 7,
        "status": "PRESENT",
        "event_timestamp": None,
        "age_s": None,
    }
    assert "bid_per_page" in cli("get", "bidding@1:bid_per_page", *asked).out
    cli("load", "clicks", "clicks.ndjson")
    (project / "bids.csv").write_text("user_id,shop,bid,event_timestamp\n7,a b,6.00,2013-06-01T12:30:00Z\n")
    assert cli("training-set", "bids@1", "--spine", "bids.csv", "--out", "set.csv").code == 0
    assert (project / "set.csv").read_text().splitlines()[1].split(",")[-1] == "2"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "bids@1", "user_id=7", "shop=a"), "'bid' is missing; add bid=…"),
        (("get", "bids@1", "user_id=7", "shop=a", "bid=much"), "bid='much' is not a Decimal(2); expected a number"),
        (("history", "bidding@1", "user_id=7", "shop=a"), "'bidding@1' is an on-demand view: nothing of it is stored"),
        (("training-set", "bids@1", "--spine", "spine.csv", "--out", "o.csv"), "has no column 'bid' (Decimal(2))"),
        (("get", "add@1", "user_id=7"), "Did you mean 'ads@1'"),
        (("get", "ads@1", "user_id=7"), "'shop' is missing; add shop=…"),
        (("get", "ads@1", "user_id=seven", "shop=a"), "expected a whole number"),
        (("get", "ads@1", "user=7", "shop=a"), "Did you mean 'user_id'"),
        (("get", "ads@1", "7"), "'7' is not key=value"),
        (("get", "ads@1", "user_id=7", "shop=a", "--at", "2013-06-01T12:00:00"), "has no time zone"),
        (("get", "user_clicks@1:click_1h", "user_id=7", "shop=a"), "Did you mean 'clicks_1h'"),
        (("history", "ads@1", "user_id=7"), "There is no view 'ads@1'"),
        (("history", "user_clicks@1", "user_id=7", "shop=a", "--every", "1x"), "'1x' is not a duration"),
        (("history", "user_clicks@1", "user_id=7", "shop=a", "--every", "1s"), "choose a longer step"),
        (("load", "clicks", "nowhere.ndjson"), "is not a file"),
        (("load", "click", "clicks.ndjson"), "Did you mean 'clicks'"),
        (("training-set", "ads@1", "--spine", "spine.xls", "--out", "o.csv"), "ends in '.xls'"),
        (("training-set", "ads@1", "--spine", "spine.csv", "--out", "o.xls"), "ends in '.xls'"),
        (("training-set", "ads@1", "--spine", "spine.csv", "--out", "o", "--memory", "9"), "'9' is not a size"),
    ],
)
def test_what_is_refused_is_one_line_on_stderr_and_exit_code_2(
    cli: Cli, project: Path, deployment: Deployment, arguments: tuple[str, ...], message: str
) -> None:
    cli("apply")
    ended = cli(*arguments)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert ended.out == ""


def test_a_refused_plan_has_exit_code_3_and_apply_changes_nothing(
    cli: Cli, project: Path, deployment: Deployment
) -> None:
    assert cli("apply").code == 0
    monkey = project / f"defs_{deployment.namespace}.py"
    monkey.write_text(DEFINITIONS.replace('windows=["1h"], default=0', 'windows=["1h"], default=1'))
    del sys.modules[monkey.stem]
    refused = cli("plan", "--json")
    assert refused.code == 3
    assert [change["key"] for change in json.loads(refused.out)["refused"]] == ["user_clicks@1"]
    applied = cli("apply")
    assert applied.code == 3
    assert "version=2" in applied.out
    assert "Nothing was applied" in applied.err
    assert json.loads(cli("get", "ads@1", "user_id=1", "shop=a", "--json").out)["features"]["clicks_1h"]["value"] == 0


def test_a_view_that_the_running_flow_does_not_stream_is_named_alike_everywhere(
    cli: Cli, project: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, ahead_us = Settings.from_env(), time.time_ns() // 1_000 + HOUR_US  # alive, however long this takes
    named = f"user_clicks@1: {UNSTREAMED}"
    assert json.loads(cli("plan", "--json").out)["unstreamed"] == [], "no flow runs"
    with connect_online(settings) as online:
        signs = Signs(online, settings.namespace)
        signs.write("clicks", Sign(1, ahead_us, ahead_us, views=("older@1",)))
        assert json.loads(cli("plan", "--json").out)["unstreamed"] == ["user_clicks@1"]
        assert named in cli("plan").out, "before it is applied"
        assert named in cli("apply").out
        assert named in cli("plan").out, "of what is deployed too"
        found = {one["what"]: one["detail"] for one in json.loads(cli("doctor", "--json").out)}
        assert found["stream of user_clicks@1"] == UNSTREAMED
        show(settings, ["clicks"], as_json=False)
        assert named in capsys.readouterr().out
        signs.write("clicks", Sign(2, ahead_us, ahead_us, views=("user_clicks@1",)))
        assert json.loads(cli("plan", "--json").out)["unstreamed"] == []
        assert UNSTREAMED not in cli("plan").out


def test_a_source_that_the_running_flow_judges_otherwise_is_named_alike_everywhere(
    cli: Cli, project: Path, deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, ahead_us = Settings.from_env(), time.time_ns() // 1_000 + HOUR_US
    named = f"clicks: {OUTDATED}"
    with connect_online(settings) as online:
        signs = Signs(online, settings.namespace)
        signs.write("clicks", Sign(1, ahead_us, ahead_us, judges_by="0" * 16))
        assert json.loads(cli("plan", "--json").out)["outdated"] == ["clicks"]
        assert named in cli("plan").out, "before it is applied"
        assert named in cli("apply").out
        found = {one["what"]: one["detail"] for one in json.loads(cli("doctor", "--json").out)}
        assert found["stream of clicks"] == OUTDATED
        show(settings, ["clicks"], as_json=False)
        assert named in capsys.readouterr().out
        signs.write("clicks", Sign(2, ahead_us, ahead_us))
        assert json.loads(cli("plan", "--json").out)["outdated"] == [], "one that does not say by what it judges"


@pytest.mark.parametrize("command", ["stream", "serve", "demo"])
def test_what_lives_beside_the_sdk_is_run_from_a_checkout(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = cli(command)
    assert ended.code == 2
    assert "run this from a checkout" in ended.err


def test_modules_of_the_checkout_get_their_arguments_and_give_the_exit_code(tmp_path: Path) -> None:
    (tmp_path / "serving").mkdir()
    (tmp_path / "serving" / "__init__.py").touch()
    (tmp_path / "serving" / "__main__.py").write_text("import sys; print(sys.argv[1:]); sys.exit(4)")
    ended = subprocess.run(
        [sys.executable, "-m", "forebay.cli", "serve", "--port", "8080", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(CHECKOUT)},
    )
    assert (ended.returncode, ended.stdout.strip()) == (4, "['--port', '8080', 'x']"), ended.stderr


def test_doctor_says_what_is_wrong(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = {finding["what"]: finding for finding in json.loads(cli("doctor", "--json").out)}
    assert all(finding["ok"] is not False for finding in findings.values()), findings
    assert "1 view, 2 services" in findings["definitions"]["detail"]
    assert findings["deployed"]["ok"] is None
    assert "Nothing is deployed" in findings["deployed"]["detail"]
    cli("apply")
    findings = {finding["what"]: finding for finding in json.loads(cli("doctor", "--json").out)}
    assert findings["deployed"] == {"what": "deployed", "ok": True, "detail": "manifest 1: 1 view, 2 services"}
    monkeypatch.setenv("FOREBAY_ONLINE_URL", "redis://127.0.0.1:1/0")
    ended = cli("doctor", "--json")
    assert ended.code == 1
    wrong = [finding["what"] for finding in json.loads(ended.out) if finding["ok"] is False]
    assert wrong == ["online store"]


def test_doctor_notes_what_is_loaded_and_not_online(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    cli("load", "clicks", "clicks.ndjson")
    ended = cli("doctor", "--json")
    noted = {found["what"]: found for found in json.loads(ended.out)}["view user_clicks@1"]
    assert (ended.code, noted["ok"]) == (0, None)
    assert noted["detail"] == f"in training sets and not online: 2013-06-01 not folded; {MARKED}"
    assert "note" in cli("doctor").out


def test_a_new_view_of_a_source_that_was_loaded_is_marked_from_apply_on(
    cli: Cli, project: Path, deployment: Deployment
) -> None:
    cli("apply")
    cli("load", "clicks", "clicks.ndjson")
    module = project / f"defs_{deployment.namespace}.py"
    view = DEFINITIONS[DEFINITIONS.index("user_clicks = ") : DEFINITIONS.index("ads = ")]
    module.write_text(DEFINITIONS + view.replace("user_clicks =", "second =").replace("version=1", "version=2"))
    del sys.modules[module.stem]
    told = f"in training sets and not online: 2013-06-01 not folded; {MARKED}"
    assert json.loads(cli("apply", "--json").out)["missing"] == {"user_clicks@2": told}
    found = json.loads(cli("get", "user_clicks@2:pages_lifetime", "user_id=7", "shop=a b", "--json").out)
    assert found["features"]["pages_lifetime"]["status"] == "UNAVAILABLE"


def test_doctor_finds_batch_that_is_later_than_a_views_retention(
    cli: Cli, project: Path, deployment: Deployment, namespace: str
) -> None:
    module = project / f"defs_{namespace}.py"
    module.write_text(DEFINITIONS.replace('"user_clicks", version=1', '"user_clicks", version=1, retention="5d"'))
    cli("apply")
    assert cli("doctor").code == 0, "never published"
    settings = Settings.from_env()
    view = Definitions.load(settings.definitions).view("user_clicks@1")
    assert isinstance(view, WindowedView)
    with connect_online(settings) as online:
        publish_tiles(online, settings.namespace, view, [], Tiles.empty(Layout.of(view)), day_us("2013-06-02"))
    ended = cli("doctor", "--json")
    found = {one["what"]: one for one in json.loads(ended.out)}["batch of user_clicks@1"]
    assert (ended.code, found["ok"]) == (1, False)
    assert found["detail"].startswith("published up to 2013-06-02T00:00:00Z, longer ago than its retention of 5d")
    assert "Materialize tiles/user_clicks_v1" in found["detail"]


def test_an_offline_store_of_another_deployment_is_found_out(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped URL or namespace: an empty store would answer with defaults, and take what is loaded."""
    cli("apply")
    monkeypatch.setenv("FOREBAY_NAMESPACE", "another")
    findings = {found["what"]: found for found in json.loads(cli("doctor", "--json").out)}
    assert findings["offline store"]["ok"] is False
    assert "belongs to namespace" in findings["offline store"]["detail"]
    monkeypatch.setenv("FOREBAY_NAMESPACE", deployment.namespace)
    monkeypatch.setenv("FOREBAY_OFFLINE_URL", deployment.offline_url + "-typo")
    findings = {found["what"]: found for found in json.loads(cli("doctor", "--json").out)}
    assert findings["deployed"]["ok"] is False
    assert "nothing in the offline store" in findings["deployed"]["detail"]
    for arguments in (
        ("history", "user_clicks@1", "user_id=7", "shop=a b"),
        ("training-set", "ads@1", "--spine", "spine.csv", "--out", "set.csv"),
        ("load", "clicks", "clicks.ndjson"),
    ):
        ended = cli(*arguments)
        assert (ended.code, "Check FOREBAY_OFFLINE_URL" in ended.err) == (2, True), ended
    cli("apply")
    assert cli("load", "clicks", "clicks.ndjson").code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("get", "ads@1", "user_id=7", "shop=a b"),
        ("history", "user_clicks@1", "user_id=7", "shop=a b"),
        ("load", "clicks", "clicks.ndjson"),
    ],
)
def test_where_nothing_is_deployed_nothing_is_answered_or_loaded(
    cli: Cli, project: Path, deployment: Deployment, arguments: tuple[str, ...]
) -> None:
    """A mistyped namespace: every answer would be a default."""
    ended = cli(*arguments)
    assert (ended.code, ended.err.count("\n")) == (2, 1), ended
    assert f"Nothing is deployed in namespace '{deployment.namespace}'" in ended.err
    assert "`forebay apply`" in ended.err


def test_doctor_shows_no_password(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Valkey("--requirepass", "hunter2") as server:
        monkeypatch.setenv("FOREBAY_ONLINE_URL", server.url.replace("redis://", "redis://:hunter2@"))
        ended = cli("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(ended.out)}
    assert findings["online store"]["ok"] is True
    assert f"redis://127.0.0.1:{server.port}/0: Valkey" in findings["online store"]["detail"]
    assert "hunter2" not in ended.out + ended.err


def test_a_dead_redis_is_one_line(cli: Cli, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_ONLINE_URL", "redis://127.0.0.1:1/0")
    ended = cli("get", "ads@1", "user_id=1", "shop=a")
    assert ended.code == 2
    assert "127.0.0.1:1 cannot be reached" in ended.err
    assert ended.err.count("\n") == 1


def test_help_loads_no_engine_and_the_module_runs_as_the_command_does() -> None:
    code = (
        "import sys; sys.argv = ['forebay', '--help']\n"
        "from forebay.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'pandas', 'pyarrow', 'duckdb', 'deltalake', 'redis', 'dagster', 'bytewax'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=CHECKOUT)
    shown = subprocess.run(
        [sys.executable, "-m", "forebay.cli", "--help"],
        check=True,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    assert "training-set" in shown.stdout


def test_maintain_puts_tables_in_order(cli: Cli, project: Path, deployment: Deployment) -> None:
    cli("apply")
    cli("load", "clicks", "clicks.ndjson")
    would = json.loads(cli("maintain", "events/clicks", "--dry-run", "--json").out)
    done = json.loads(cli("maintain", "events/clicks", "--json").out)
    tables = [*would["tables"], *done["tables"]]
    assert [(one["table"], one["ordered"]) for one in tables] == [("events/clicks", ["2013-06-01"])] * 2
    assert would["retention"] == done["retention"] == []
    assert "events/clicks" in cli("maintain").out
    refused = cli("maintain", "event/clicks")
    assert (refused.code, "Did you mean 'events/clicks'" in refused.err) == (2, True)
    assert "expected 24 or more" in cli("maintain", "--older-than-hours", "1").err


def test_maintain_removes_what_a_source_does_not_keep(cli: Cli, project: Path, deployment: Deployment) -> None:
    kept = DEFINITIONS.replace('event_id="event_id",', 'event_id="event_id", keep="10d",')
    (project / f"{os.environ['FOREBAY_DEFINITIONS']}.py").write_text(kept.replace('["1h", None]', '["1h"]'))
    cli("apply")
    late = {"event_id": "e9", "user_id": 7, "shop": "c", "ts": "2013-06-20T12:00:00Z", "pages": 3}
    (project / "more.ndjson").write_text(json.dumps(late))
    cli("load", "clicks", "clicks.ndjson", "more.ndjson")
    would = " ".join(cli("maintain", "--dry-run").out.split())
    assert "clicks is kept from 2013-06-11 on (10d before its newest events)" in would
    assert "rows would be removed: 3 of events/clicks" in would
    (done,) = json.loads(cli("maintain", "events/clicks", "--json").out)["retention"]
    assert (done["kept_from"], done["rows"]) == ("2013-06-11", {"events/clicks": 3})
    asked = ("user_id=7", "shop=c", "--start", "2013-06-01T00:00:00Z")
    refused = cli("history", "user_clicks@1", *asked)
    assert (refused.code, "keeps those from 2013-06-11" in refused.err) == (2, True)
    assert cli("history", "user_clicks@1", *asked[:2]).code == 0, "from the first instant that there is"


def test_rebuild_publishes_again_what_an_online_store_lost(cli: Cli, project: Path, deployment: Deployment) -> None:
    assert cli("rebuild").code == 2, "nothing is deployed"
    cli("apply")
    cli("load", "clicks", "clicks.ndjson")
    settings = Settings.from_env()
    online = connect_online(settings)
    view = Definitions.load(settings.definitions).view("user_clicks@1")
    assert isinstance(view, WindowedView)
    fold_dates(OfflineStore(settings), view, view.source.history_start_us, view.source.history_start_us + 2 * DAY_US)
    for key in online.scan_iter(f"{settings.namespace}:*"):
        online.delete(key)
    published = json.loads(cli("rebuild", "--json").out)
    assert [(one["view"], one["entities"], one["cut_us"] is not None) for one in published] == [
        ("user_clicks@1", 2, True)
    ]
    asked = ("get", "ads@1", "user_id=7", "shop=a b", "--json")
    assert json.loads(cli(*asked).out)["features"]["pages_lifetime"]["value"] == 3.5
    assert "user_clicks@1" in cli("rebuild").out
