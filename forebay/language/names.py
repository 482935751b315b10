"""Names of declared things: letters, digits and single underscores, so that they can stand in keys, paths and SQL.

A double underscore is Forebay's own: it parts the fields of a partial (`latest_amount__ts`).
"""

from __future__ import annotations

import re

from forebay.errors import DefinitionError

NAME_LENGTH_MAX = 64
"""Names stand in every key of the online store."""
_NAME = re.compile(r"[A-Za-z](?:_?[A-Za-z0-9])*_?")
_RESERVED = frozenset(
    {"event_timestamp", "created_timestamp", "arrived_at", "source_partition", "source_offset", "date"}
)


def check_name(what: str, name: str) -> None:
    """Raise `DefinitionError` unless `name` can name a `what`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        raise DefinitionError(
            f"{what} {name!r} cannot be a name; expected a letter, then letters, digits or single underscores, "
            f"at most {NAME_LENGTH_MAX}"
        )
    if name in _RESERVED:
        raise DefinitionError(f"{what} {name!r} is reserved for Forebay's own columns; choose another name")


def check_version(what: str, version: int) -> None:
    """Raise `DefinitionError` unless `version` is a whole number from 1."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise DefinitionError(f"{what}: version={version!r}; expected a whole number from 1")
