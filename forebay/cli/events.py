"""Commands about events: `load`, `dead-letters`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from forebay.errors import RequestError

LETTER = ("recorded_at", "source", "source_partition", "source_offset", "reason", "detail")
RAW_SHOWN = 120
"""Bytes of a refused event that a table shows; `--json` prints all."""


def load(
    source: Annotated[str, typer.Argument(help="The source whose history these files hold.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Parquet or NDJSON files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Append history to a source's archive, exactly once however often it is run with the same files."""
    from forebay.cli.printing import counted, print_json, say
    from forebay.client.deployed import Deployed
    from forebay.language.source import EventSource
    from forebay.settings import Settings

    missing = [file for file in files if not file.is_file()]
    if missing:
        raise RequestError(f"{str(missing[0])!r} is not a file; give Parquet or NDJSON files")
    deployed = Deployed(Settings.from_env())
    declared = deployed.definitions.source(source)
    if not isinstance(declared, EventSource):
        raise RequestError(f"{source!r} is a TableSource, which is read where it lies; only an EventSource is loaded")
    archive = deployed.offline.archive(declared, deployed.definitions.limits(declared))
    results: list[dict[str, Any]] = []
    for file in files:
        loaded = archive.load(file)
        results.append({"file": str(file), **asdict(loaded)})
        if not as_json:
            twice = f", {counted(loaded.duplicates, 'duplicate')} dropped" if loaded.duplicates else ""
            dead = f", {counted(loaded.dead, 'dead letter')} (see forebay dead-letters)" if loaded.dead else ""
            found = "was loaded before" if loaded.already else counted(loaded.rows, "event") + twice + dead
            say(f"{file}: {found}")
    deployed.close()
    if as_json:
        print_json(results)


def dead_letters(
    source: Annotated[str | None, typer.Option(help="Only of this source.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the events that were refused, with their reasons."""
    from forebay.cli.printing import print_json, print_table
    from forebay.client.deployed import Deployed
    from forebay.settings import Settings

    letters = Deployed(Settings.from_env()).offline.dead_letters().scan(source)
    shown = letters.slice(0, limit).to_pylist()
    if as_json:
        print_json([row | {"raw": row["raw"].decode(errors="replace")} for row in shown])
        return
    print_table(
        "Dead letters",
        ["recorded", "source", "partition", "#offset", "reason", "detail", "event"],
        ([*(row[name] for name in LETTER), _short(row["raw"])] for row in shown),
        f"{len(letters) - len(shown)} earlier ones are not shown" if len(letters) > len(shown) else None,
    )


def _short(raw: bytes) -> str:
    text = raw[:RAW_SHOWN].decode(errors="replace")
    return text + "…" if len(raw) > RAW_SHOWN else text
