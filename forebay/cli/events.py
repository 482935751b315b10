"""The command about history: `load`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from forebay.errors import RequestError


def load(
    source: Annotated[str, typer.Argument(help="The source whose history these files hold.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Parquet or NDJSON files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Append history to a source's archive, exactly once however often it is run with the same files."""
    from forebay.backfill.gaps import mark_gaps
    from forebay.cli.printing import counted, print_json, say
    from forebay.client.deployed import Deployed
    from forebay.language.source import EventSource
    from forebay.offline import loading
    from forebay.settings import Settings

    absent = [file for file in files if not file.is_file()]
    if absent:
        raise RequestError(f"{str(absent[0])!r} is not a file; give Parquet or NDJSON files")
    deployed = Deployed(Settings.from_env())
    declared = deployed.definitions.source(source)
    if not isinstance(declared, EventSource):
        raise RequestError(f"{source!r} is a TableSource, which is read where it lies; only an EventSource is loaded")
    archive = deployed.history.archive(declared, deployed.definitions.limits(declared))
    results: list[dict[str, Any]] = []
    for file in files:
        loaded = loading.load(archive, file)
        results.append({"file": str(file), **asdict(loaded)})
        if not as_json:
            twice = f", {counted(loaded.duplicates, 'duplicate')} dropped" if loaded.duplicates else ""
            dead = f", {counted(loaded.dead, 'dead letter')} (see forebay dead-letters)" if loaded.dead else ""
            found = "was loaded before" if loaded.already else counted(loaded.rows, "event") + twice + dead
            say(f"{file}: {found}")
    views = deployed.definitions.windowed_views(declared)
    missing = mark_gaps(deployed.redis, deployed.settings.namespace, deployed.history, views)
    deployed.close()
    if as_json:
        print_json({"files": results, "missing": missing})
        return
    for view, text in missing.items():
        say(f"{view}: {text}")
