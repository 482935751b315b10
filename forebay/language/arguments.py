"""Arguments of declarations, checked for their kind before anything looks into them.

A declaration that was written with a text where a list belongs, or a list where a dictionary does, is told so in one
sentence, instead of failing somewhere inside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from forebay.errors import DefinitionError
from forebay.language.frozen import Frozen


def checked_mapping(where: str, what: str, value: Any, example: str) -> Frozen[str, Any]:
    """A copy of a dictionary that was declared, which nobody can change afterwards."""
    if not isinstance(value, Mapping):
        raise DefinitionError(f"{where}: {what}={value!r} is not a dictionary; write e.g. {what}={example}")
    return Frozen(value)


def checked_list(where: str, what: str, value: Any, example: str) -> tuple[Any, ...]:
    """A list that was declared, as a tuple."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise DefinitionError(f"{where}: {what}={value!r} is not a list; write e.g. {what}={example}")
    return tuple(value)


def check_text(where: str, what: str, value: Any) -> None:
    """Raise `DefinitionError` unless a value is a text that says something."""
    if not isinstance(value, str) or not value.strip():
        raise DefinitionError(f"{where}: {what}={value!r}; expected a text that is not empty")


def check_whole(where: str, what: str, value: Any, least: int, most: int) -> None:
    """Raise `DefinitionError` unless a value is a whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise DefinitionError(f"{where}: {what}={value!r}; expected a whole number from {least:,} to {most:,}")


def check_labels(where: str, value: Any) -> None:
    """Raise `DefinitionError` unless the owner, description and tags of a definition are texts; freeze the tags."""
    for what in ("owner", "description"):
        text = getattr(value, what, "")
        if not isinstance(text, str):
            raise DefinitionError(f"{where}: {what}={text!r} is not a text")
    tags = getattr(value, "tags", {})
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise DefinitionError(f"{where}: tags={tags!r}; expected texts by name, e.g. tags={{'domain': 'shop'}}")
    if hasattr(value, "tags"):
        msgspec.structs.force_setattr(value, "tags", Frozen(tags))


def check_cases(where: str, what: str, names: Sequence[str]) -> None:
    """Raise `DefinitionError` where names differ in upper and lower case alone: SQL and Delta hold them for one."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise DefinitionError(
                f"{where}: {what}s {other!r} and {name!r} differ in upper and lower case alone; rename one"
            )
