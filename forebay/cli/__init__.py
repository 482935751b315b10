"""The command line: `forebay …`, or `python -m forebay.cli …`. Commands are thin: they read, call and print."""

from __future__ import annotations


def main() -> None:
    """Run the command line. What Forebay refuses on purpose is one line on stderr and exit code 2."""
    from forebay.cli.app import run

    run()
