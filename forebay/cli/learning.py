"""The command that learns the statistical defaults of a view: `learn`."""

from __future__ import annotations

import time
from typing import Annotated

import typer


def learn(
    view: Annotated[str, typer.Argument(help="name@version of a deployed view with statistical defaults.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be learned.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn a view's statistical defaults from its history; they hold in serving and training within a second."""
    from forebay.cli.printing import print_json, print_table, say
    from forebay.deploy.registry import Registry
    from forebay.history.learning import learn as learn_defaults
    from forebay.history.learning import values_of
    from forebay.language.definitions import Definitions
    from forebay.offline.tables import OfflineStore
    from forebay.online.connection import connect_online
    from forebay.settings import Settings

    settings = Settings.from_env()
    registry = Registry.open(settings, connect_online(settings))
    deployed = registry.current() or Definitions()
    declared = deployed.view(view)
    found = learn_defaults(OfflineStore(settings), declared, now_us=time.time_ns() // 1_000)
    number = deployed.number if dry_run else registry.learn(view, values_of(found))
    if as_json:
        print_json({"view": view, "manifest": number, "learned": [vars(one) for one in found]})
        return
    was = {name: feature.default for name, feature in declared.outputs().items()}
    rows = ((one.feature, one.statistic, was[one.feature], one.value, one.values) for one in found)
    print_table(f"Defaults of {view}", ["feature", "statistic", "#was", "#is", "#of values"], rows)
    say("Nothing was deployed." if dry_run else f"Deployed: manifest {number}.")
