"""Cron schedules and first days, checked where they are declared.

A schedule is five cron fields in UTC; running it is Dagster's.
"""

from __future__ import annotations

import re
from datetime import date
from typing import Any

from forebay.errors import DefinitionError

_NICKNAMES = frozenset({"@hourly", "@daily", "@weekly", "@monthly"})
_MONTH_NAMES = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES, 1)}
_DAYS = {"sun": 0, "mon": 1, "tue": 2, "wed": 3, "thu": 4, "fri": 5, "sat": 6}
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
_PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>[1-9]\d?))?")


def check_cron(where: str, cron: Any) -> None:
    """Raise `DefinitionError` unless `cron` is nothing or five cron fields in their ranges."""
    if cron is None or cron in _NICKNAMES:
        return
    fields = cron.split() if isinstance(cron, str) else []
    if len(fields) != len(_FIELDS):
        raise DefinitionError(
            f"{where}: refresh={cron!r} is not a cron schedule; expected five fields such as '0 * * * *' (hourly)"
        )
    for text, (name, least, most, names) in zip(fields, _FIELDS, strict=True):
        if not all(_is_part(part, least, most, names) for part in text.split(",")):
            raise DefinitionError(
                f"{where}: refresh={cron!r}: {text!r} is not a {name}; "
                f"expected {least} to {most}, '*', '*/5', '1-5' or '1,2'"
            )


def check_day(where: str, what: str, text: Any) -> None:
    """Raise `DefinitionError` unless `text` is a date YYYY-MM-DD."""
    try:
        good = isinstance(text, str) and date.fromisoformat(text).isoformat() == text
    except ValueError:
        good = False
    if not good:
        raise DefinitionError(f"{where}: {what}={text!r} is not a date; write YYYY-MM-DD")


def _is_part(part: str, least: int, most: int, names: dict[str, int]) -> bool:
    match = _PART.fullmatch(part)
    if match is None:
        return False
    ends = [names.get(end.lower(), int(end) if end.isdecimal() else -1) for end in match.group("first", "last") if end]
    return all(least <= end <= most for end in ends) and ends == sorted(ends)
