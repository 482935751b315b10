"""Declared durations, checked where they are declared."""

from __future__ import annotations

from forebay.errors import DefinitionError
from forebay.instants import duration_us


def declared_us(where: str, text: str | None) -> int | None:
    """Microseconds of a declared duration; `None` stays `None`. Raises `DefinitionError` that says `where`."""
    if text is None:
        return None
    try:
        return duration_us(text)
    except ValueError as error:
        raise DefinitionError(f"{where}: {error}") from None


def required_us(where: str, text: str) -> int:
    """Microseconds of a declared duration that must be there."""
    us = declared_us(where, text)
    if us is None:
        raise DefinitionError(f"{where}: a duration is missing; write one such as '10m'")
    return us
