"""A column that was removed, or whose source was, comes back as what its archive holds, or under another name."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from forebay.client.deployed import Deployed
from forebay.errors import ConfigError
from forebay.language.source import EventSource
from forebay.language.types import Float64, Int64
from forebay.offline.tables import OfflineStore
from forebay.settings import Settings
from tests.cli.test_cli import Cli, cli, project
from tests.conftest import Deployment

__all__ = ["cli", "project"]
SITE = """
from forebay import Count, Entity, EventSource, FileStream, Float64, Int64, String, Timestamp, WindowedView

user = Entity("user", keys={"user_id": Int64})
"""
SOURCE = """
clicks = EventSource(
    "clicks", schema={"event_id": String, "user_id": Int64, "ts": Timestamp, #}, timestamp="ts", event_id="event_id",
    stream=FileStream("clicks.ndjson"), history_start="2013-06-01",
)
user_clicks = WindowedView(
    "user_clicks", version=1, entity=user, source=clicks, features=[Count("clicks", windows=["1h"], default=0)]
)
"""
WITHOUT, WHOLE, FLOATS = (SITE + SOURCE.replace("#", column) for column in ("", '"extra": Int64', '"extra": Float64'))
EVENT = b'{"event_id": "a", "user_id": 7, "shop": "a", "ts": "2013-06-01T12:00:00Z", "pages": 3, "extra": 3}\n'


@pytest.mark.parametrize("removed", ["column", "source"])
def test_a_column_does_not_come_back_as_another_type(
    cli: Cli, project: Path, deployment: Deployment, monkeypatch: pytest.MonkeyPatch, removed: str
) -> None:
    module = project / f"defs_{deployment.namespace}.py"

    def declare(text: str) -> int:
        module.write_text(text)
        monkeypatch.delitem(sys.modules, module.stem, raising=False)
        return cli("apply").code

    assert declare(WHOLE) == 0
    (project / "clicks.ndjson").write_bytes(EVENT)
    assert "1 event" in cli("load", "clicks", "clicks.ndjson").out
    assert declare(WITHOUT if removed == "column" else SITE) == 0
    assert declare(FLOATS) == 3
    refused = json.loads(cli("plan", "--json").out)["refused"]
    (found,) = [one for one in refused if one["kind"] == "source"]
    assert "its archive holds 'extra' as int64" in found["reason"]
    assert "'extra_2'" in found["advice"]
    assert declare(WHOLE) == 0, "as what it was it may come back"


def test_nobody_appends_what_an_archive_would_cut(cli: Cli, project: Path, deployment: Deployment) -> None:
    """Also where no plan was asked for its archives."""
    cli("apply")
    (project / "clicks.ndjson").write_bytes(EVENT)
    cli("load", "clicks", "clicks.ndjson")
    deployed = Deployed(Settings.from_env())
    was = deployed.definitions.source("clicks")
    assert isinstance(was, EventSource)
    now = replace(was, schema={**was.schema, "pages": Float64, "more": Int64})
    archive = OfflineStore(deployed.settings).archive(now)
    assert archive.stored_otherwise() == {"pages": "int64"}
    with pytest.raises(ConfigError, match=r"holds column 'pages' as int64, and it is declared Float64.*'pages_2'"):
        archive.take(1)
    assert OfflineStore(deployed.settings).archive(was).stored_otherwise() == {}
