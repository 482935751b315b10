"""A column by its names: what it is called now, and what it was called before.

    renamed={"category": "kind", "kind": "sort"}        sort ─▸ kind ─▸ category, three names of one column

    an event brings   {"kind": "book"} or {"category": "book"}; or both, then the value of the name that is asked
    it is read as     category = "book", and, as long as that is declared too, kind = "book"

Lives here: which names belong together, and what may be renamed. A former name may stay in the schema, for views that
still use it; then both columns have the same values.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from forebay.errors import DefinitionError, suggestion
from forebay.language.names import check_name
from forebay.language.types import AnyType


def names_of(column: str, renamed: Mapping[str, str]) -> tuple[str, ...]:
    """All names of a column, its own first, the others from the newest to the oldest.

    >>> names_of("kind", {"category": "kind", "kind": "sort"})
    ('kind', 'category', 'sort')
    """
    later = {former: name for name, former in renamed.items()}
    newest = column
    while newest in later:
        newest = later[newest]
    return (column, *(name for name in (newest, *former_names(newest, renamed)) if name != column))


def former_names(column: str, renamed: Mapping[str, str]) -> tuple[str, ...]:
    """What a column was called before, the newest first.

    >>> former_names("kind", {"category": "kind", "kind": "sort"})
    ('sort',)
    """
    names = [column]
    while names[-1] in renamed:
        names.append(renamed[names[-1]])
    return tuple(names[1:])


def check_renamed(
    where: str, renamed: Mapping[str, str], schema: Mapping[str, AnyType], fixed: Collection[str]
) -> None:
    """Raise `DefinitionError` unless each column has a former name of its own, and keeps its type."""
    formers = list(renamed.values())
    for name, former in renamed.items():
        check_name(f"{where}: renamed", name)
        check_name(f"{where}: renamed {name!r} from", former)
        if name not in schema and name not in formers:
            raise DefinitionError(f"{where}: renamed {name!r} is no column. {suggestion(name, schema)}")
        for one in (name, former):
            if one in fixed:
                raise DefinitionError(
                    f"{where}: {one!r} cannot be renamed: events are ordered and found by it in everything stored"
                )
        if formers.count(former) > 1:
            raise DefinitionError(f"{where}: {former!r} is the former name of two columns; it can be of one")
        if former in schema and name in schema and schema[former] != schema[name]:
            raise DefinitionError(
                f"{where}: {name!r} is {schema[name]} and {former!r}, its former name, {schema[former]}; a renamed "
                "column keeps its type. Declare a column beside it for another type"
            )
        if _is_circle(name, renamed):
            raise DefinitionError(f"{where}: {name!r} is renamed from itself: {dict(renamed)}")


def _is_circle(name: str, renamed: Mapping[str, str]) -> bool:
    met = [name]
    while met[-1] in renamed:
        met.append(renamed[met[-1]])
        if met[-1] == name:
            return True
        if len(met) > len(renamed) + 1:
            return False
    return False
