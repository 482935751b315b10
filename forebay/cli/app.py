"""The list of commands, and what happens when one fails.

Invariants: exit codes are 0 (done), 2 (refused: a `ForebayError`, or wrong arguments) and 3 (a plan that cannot be
applied); any other exception is a bug and is not hidden. `forebay --help` loads no engine: commands import what
they need when they run.
"""

from __future__ import annotations

import sys

import typer

from forebay.cli import asking, deploying, events, learning, letters, rebuilding, running, state, upkeep, versions
from forebay.cli.printing import fail
from forebay.errors import ForebayError

REFUSED = 2

app = typer.Typer(
    name="forebay",
    help="A feature store whose stream, backfill, online reads and training sets compute one and the same function.",
    epilog="Settings: FOREBAY_HOME, FOREBAY_ONLINE_URL, FOREBAY_OFFLINE_URL, FOREBAY_DEFINITIONS, FOREBAY_NAMESPACE.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}

app.command()(deploying.plan)
app.command()(deploying.apply)
app.command()(events.load)
app.command("dead-letters")(letters.dead_letters)
app.command()(running.stream)
app.command()(asking.get)
app.command()(asking.history)
app.command("training-set")(asking.training_set)
app.command(context_settings=_PASS_ON)(running.serve)
app.command()(versions.compare)
app.command()(versions.flip)
app.command()(learning.learn)
app.command()(versions.retire)
app.command()(rebuilding.rebuild)
app.command()(upkeep.maintain)
app.command()(state.down)
app.command()(running.demo)
app.command()(state.doctor)


def run() -> None:
    """Run the command that `sys.argv` names."""
    try:
        app()
    except ForebayError as error:
        fail(str(error))
        sys.exit(REFUSED)
