"""Commands that run what lives beside the SDK in a checkout: `stream`, `serve`, `demo`.

They are run by name in this process: the SDK imports none of them, and an installed wheel holds none of them.
"""

from __future__ import annotations

import importlib
import importlib.util
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from forebay.errors import ConfigError


def stream(
    until_end: Annotated[
        bool, typer.Option("--until-end", help="Stop when every partition is read and all is durable.")
    ] = False,
    workers: Annotated[int, typer.Option(min=1, max=8, help="Processes, 1 to 8.")] = 1,
    source: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this source; may be repeated.")] = None,
    give_up_after: Annotated[
        float, typer.Option(metavar="SECONDS", help="How long a store that is away is waited for.")
    ] = 60.0,
    linger: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            max=1.0,
            help="After reading some events wait so long for more, up to 1: less work, later values.",
        ),
    ] = 0.0,
    accept_loss: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Read this source on where its log begins, although events before that were deleted unread.",
        ),
    ] = None,
    metrics_port: Annotated[
        int, typer.Option(metavar="PORT", help="Serve Prometheus metrics on 127.0.0.1 at this port; 0: nowhere.")
    ] = 0,
    log_format: Annotated[
        str | None,
        typer.Option(metavar="FORMAT", help="Say on standard error what happens while it runs: json or text."),
    ] = None,
    replay: Annotated[
        str | None,
        typer.Option(metavar="VIEW@N", help="Fill this view from the archive, beside the running stream, and end."),
    ] = None,
    from_instant: Annotated[
        str | None,
        typer.Option(metavar="INSTANT", help="The view is to be right from here on (default: from the beginning)."),
    ] = None,
    from_offset: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PARTITION=OFFSET",
            help="The view is to be right after what lies before these offsets; may be repeated.",
        ),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Run nothing: say how the stream is, and what is behind.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary, or the status, as JSON.")] = False,
) -> None:
    """Run the stream: events of every source into the online and the offline store (docs/stream.md)."""
    flags = {"--until-end": until_end, "--status": status, "--json": as_json}
    given = {"--source": source or [], "--accept-loss": accept_loss or [], "--from-offset": from_offset or []}
    said = {"--log-format": log_format, "--replay": replay, "--from-instant": from_instant}
    given |= {option: [word] for option, word in said.items() if word}
    arguments = [flag for flag, wanted in flags.items() if wanted]
    arguments += ["--metrics-port", str(metrics_port)] if metrics_port else []
    arguments += ["--linger", str(linger)] if linger else []
    arguments += [word for option, names in given.items() for name in names for word in (option, name)]
    run_module("streaming", [*arguments, "--workers", str(workers), "--give-up-after", str(give_up_after)])


def serve(context: typer.Context) -> None:
    """Serve features over HTTP, on 127.0.0.1 and the port FOREBAY_HTTP_PORT (default 6566)."""
    run_module("serving", context.args)


def demo(
    days: Annotated[int | None, typer.Option(min=1, help="Days of flights to stream.")] = None,
    history_days: Annotated[int | None, typer.Option(min=1, help="Days of flights to load before.")] = None,
) -> None:
    """The main job on the flights of 2013: load, backfill, stream, train, and prove that all of them agree."""
    check_checkout("demo")
    module = importlib.import_module("demo.run")
    given = {"days": days, "history_days": history_days}
    raise typer.Exit(module.run(**{name: value for name, value in given.items() if value is not None}))


def run_module(name: str, arguments: Sequence[str]) -> None:
    """Run a module of the checkout as `python -m name arguments…` does."""
    check_checkout(name)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def module_of(folder: str, name: str) -> Any:
    """A module of the checkout, for a command that needs what lies beside the SDK."""
    check_checkout(folder)
    return importlib.import_module(f"{folder}.{name}")


def check_checkout(name: str) -> None:
    """Raise `ConfigError` unless the working folder (now first on `sys.path`) holds the module."""
    here = str(Path.cwd())
    if sys.path[0] != here:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    spec = importlib.util.find_spec(name)
    if spec is None or str(Path(here) / name) not in (spec.submodule_search_locations or ()):
        raise ConfigError(f"There is no {name}/ in {here}; run this from a checkout of Forebay, where {name}/ lies")
