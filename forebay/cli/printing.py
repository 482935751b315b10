"""What the commands print: tables for people, JSON for programs, one line for an error.

May live here: the look of values. Invariants: data goes to stdout and errors to stderr; JSON is one document, with
instants as ISO 8601 in UTC and decimals as numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from forebay.instants import instant_text, instant_us

if TYPE_CHECKING:
    from rich.console import Console

PLAIN_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""
NOTHING = "–"
_UNITS_S = ((86_400, "d"), (3_600, "h"), (60, "m"))


def console() -> Console:
    """Where tables go."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


def fail(message: str) -> None:
    """One red line on stderr."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(plain(" ".join(message.split())), style="bold red"))


def say(message: str) -> None:
    """One line on stdout."""
    console().print(message, markup=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    import msgspec

    encoded = msgspec.json.Encoder(decimal_format="number").encode(value)
    sys.stdout.write(msgspec.json.format(encoded, indent=2).decode() + "\n")


def print_table(title: str, headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str | None = None) -> None:
    """A table for people; numbers are right-aligned by their header's leading `#`."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(plain(title)),
        title_justify="left",
        title_style="bold",
        caption=None if caption is None else Text(plain(caption)),
        caption_justify="left",
        box=SIMPLE,
    )
    for header in headers:
        table.add_column(
            header.removeprefix("#"), justify="right" if header.startswith("#") else "left", overflow="fold"
        )
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(text(cell)) for cell in row))
    console().print(table)


def status_text(name: str) -> Any:
    """A status, coloured by how much it should worry."""
    from rich.text import Text

    colours = {"PRESENT": "green", "STALE": "yellow", "DEFAULT_ERROR": "red", "UNAVAILABLE": "red"}
    return Text(name, style=colours.get(name, "yellow"))


def text(value: Any) -> str:
    """One value as people read it."""
    if value is None:
        return NOTHING
    if isinstance(value, datetime):
        return instant_text(instant_us(value))
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, list):
        return f"[{', '.join(map(text, value))}]"
    return plain(str(value))


def plain(shown: str) -> str:
    """Text in one line, as it may be shown: what would move a terminal's cursor, or command it, is spelled out."""
    if shown.isprintable():
        return shown
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown)


def counted(count: int, what: str) -> str:
    """A number of things.

    >>> counted(1, "event"), counted(2000, "event")
    ('1 event', '2,000 events')
    """
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def age_text(seconds: float | None) -> str:
    """An age in its two largest units.

    >>> age_text(3725.0)
    '1h 2m'
    """
    if seconds is None:
        return NOTHING
    if seconds < _UNITS_S[-1][0]:
        return f"{seconds:.3g}s"
    whole, parts = int(seconds), []
    for size, unit in (*_UNITS_S, (1, "s")):
        if whole >= size:
            parts.append(f"{whole // size}{unit}")
            whole %= size
    return " ".join(parts[:2])
