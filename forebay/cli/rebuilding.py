"""The command that fills an online store that lost what it held: `rebuild`."""

from __future__ import annotations

from typing import Annotated

import typer


def rebuild(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Publish all that is materialized, of every view, into an online store that lost it; the stream does the rest."""
    from forebay.cli.printing import print_json, print_table, say
    from forebay.deploy.registry import Registry
    from forebay.errors import ConfigError
    from forebay.instants import instant_text
    from forebay.online.connection import connect_online
    from forebay.settings import Settings

    settings = Settings.from_env()
    online = connect_online(settings)
    definitions = Registry.open(settings, online).restore()
    if definitions is None:
        raise ConfigError(f"Nothing is deployed in namespace {settings.namespace!r}; run `forebay apply` first")
    from forebay.backfill.publication import publish_view
    from forebay.offline.tables import OfflineStore

    store = OfflineStore(settings)
    rate = settings.publish_rate
    reports = {
        key: publish_view(online, settings.namespace, store, view, rate=rate) for key, view in definitions.views.items()
    }
    if as_json:
        print_json([{"view": key, "entities": r.rows, "cut_us": r.cut_us} for key, r in reports.items()])
        return
    rows = [
        (key, str(r.rows), "" if r.cut_us is None else instant_text(r.cut_us), r.remark) for key, r in reports.items()
    ]
    print_table("Published", ["view", "entities", "cut", "why"], rows)
    say("Start the stream, or start it again: it applies what came after the cuts, and says what was lost.")
