"""Cron schedules, checked by shape: five fields in UTC. Running them is Dagster's."""

from __future__ import annotations

import re

from forebay.errors import DefinitionError

_FIELD = re.compile(r"[\d*/,\-A-Za-z]+")


def check_cron(where: str, cron: str | None) -> None:
    """Raise `DefinitionError` unless `cron` is nothing or five cron fields."""
    if cron is None or cron in {"@hourly", "@daily", "@weekly", "@monthly"}:
        return
    fields = cron.split()
    if len(fields) != 5 or not all(_FIELD.fullmatch(field) for field in fields):
        raise DefinitionError(
            f"{where}: refresh={cron!r} is not a cron schedule; expected five fields such as '0 * * * *' (hourly)"
        )
