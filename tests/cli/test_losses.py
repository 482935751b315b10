"""`forebay doctor` and `forebay rebuild` where an older copy of Redis was put in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forebay.backfill.publication import publish_view
from forebay.backfill.tiles import fold_dates
from forebay.instants import DAY_US
from forebay.language.definitions import Definitions
from forebay.language.view import WindowedView
from forebay.offline.tables import OfflineStore
from forebay.online.connection import connect_online
from forebay.settings import Settings
from tests.cli.test_cli import Cli, cli, project
from tests.conftest import Deployment

__all__ = ["cli", "project"]


def test_doctor_finds_a_publication_that_is_lost_and_rebuild_publishes_it(
    cli: Cli, project: Path, deployment: Deployment
) -> None:
    cli("apply")
    cli("load", "clicks", "clicks.ndjson")
    settings = Settings.from_env()
    online, store = connect_online(settings), OfflineStore(settings)
    view = Definitions.load(settings.definitions).view("user_clicks@1")
    assert isinstance(view, WindowedView)
    start_us = view.source.history_start_us
    names: Any = list(online.scan_iter(f"{settings.namespace}:*"))
    copy = {name: online.dump(name) for name in names}
    fold_dates(store, view, start_us, start_us + 2 * DAY_US)
    publish_view(online, settings.namespace, store, view)
    assert cli("doctor").code == 0
    online.delete(*online.scan_iter(f"{settings.namespace}:*"))
    for name, body in copy.items():
        online.restore(name, 0, body)
    ended = cli("doctor", "--json")
    found = [one for one in json.loads(ended.out) if one["what"] == "view user_clicks@1" and one["ok"] is False]
    assert (ended.code, [one["detail"] for one in found]) == (
        1,
        [
            (
                "user_clicks@1 lost its publication number 1: the slot that is furthest behind has none; "
                "run `forebay rebuild`, then start the stream again"
            )
        ],
    )
    assert cli("rebuild").code == 0
    assert cli("doctor").code == 0
