"""How the schema of a deployed source may change: columns may be added, and no stored value may change its meaning.

    add a column                  fine: it is null in what is stored
    remove a column               fine, unless a view that stays uses it
    rename a column               fine where no view that stays uses the new name; the former one stays in the schema
                                  while a view uses it
    change its type               refused, with the way: a column beside it, and both read in the views' next version
                                  (a String may change its bound, where no view that stays uses it)
    change timestamp, event_id,   refused where something stored or a view that stays relies on it
      dedupe, effective, sql

A batch view's function may read every column of its sources, so it uses them all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from forebay.deploy.difference import Difference, compare
from forebay.language.fingerprint import signature, used_columns
from forebay.language.source import AnySource, EventSource
from forebay.language.types import AnyType, DecimalType, Float64Type, Int64Type, StringType
from forebay.language.view import AnyView, WindowedView

_NUMBERS = (DecimalType, Float64Type, Int64Type)
ANOTHER = "declare the new shape beside it under another name, and a new version of the views on it"


@dataclass(frozen=True)
class SourceRefusal:
    """Why a source cannot change as declared, and what to do instead."""

    reason: str
    differences: list[Difference]
    advice: str


def refuse_source(was: AnySource, now: AnySource, staying: Iterable[AnyView]) -> SourceRefusal | None:
    """The refusal of a change to a deployed source; `staying` are the deployed views that the code keeps."""
    views = list(staying)
    reasons, refused, advice = [], [], []
    for difference in compare(signature(was), signature(now)):
        reason = _reason(difference.path, was, now, views)
        if reason is not None:
            reasons.append(reason)
            refused.append(difference)
            advice.append(_advice(difference.path.removeprefix("schema."), was, now))
    if type(was) is not type(now):
        reasons.insert(0, f"it was a {type(was).__name__} and is a {type(now).__name__}")
        advice.insert(0, ANOTHER)
    return (
        SourceRefusal("; ".join(dict.fromkeys(reasons)), refused, "; ".join(dict.fromkeys(advice))) if reasons else None
    )


def _advice(column: str, was: AnySource, now: AnySource) -> str:
    """What to do about a column that cannot be as declared, or about a rule."""
    if column.startswith("renamed."):
        return "let a new version of the views read it under the other name, and declare the name when they are gone"
    if column not in was.schema or not isinstance(was, EventSource):
        return ANOTHER
    kind = was.schema[column]
    if column in now.schema and not all(isinstance(one, _NUMBERS) for one in (kind, now.schema[column])):
        return ANOTHER
    if column in now.schema:
        both = f'Derived("coalesce({column}_2, {column})", {now.schema[column]})'
        return (
            f"keep {column!r} as {kind}, add the new one beside it, such as '{column}_2', and let the next version of "
            f"the views read both: {both}"
        )
    added = [name for name, one in now.schema.items() if name not in was.schema and one == kind]
    new = added[0] if len(added) == 1 else "new"
    return (
        f"keep {column!r} until no view uses it; if it goes by another name now, declare both and "
        f'renamed={{"{new}": "{column}"}}: then either name reads what events and the archive have under the other'
    )


def _reason(path: str, was: AnySource, now: AnySource, staying: list[AnyView]) -> str | None:
    if path.startswith("renamed."):
        return _renaming_reason(path.removeprefix("renamed."), was, now, staying)
    column = path.removeprefix("schema.")
    if column == path:
        return _rule_reason(path, was, staying)
    if column not in was.schema:
        return None
    users = [view.key for view in staying if column in _used(view, was)]
    if (
        column in now.schema
        and isinstance(was, EventSource)
        and not _stored_alike(was.schema[column], now.schema[column])
    ):
        return f"its archive holds {column!r} as {was.schema[column]}"
    return f"column {column!r} is used by {', '.join(users)}" if users else None


def _renaming_reason(column: str, was: AnySource, now: AnySource, staying: list[AnyView]) -> str | None:
    """Why a column cannot get or lose a former name."""
    assert isinstance(was, EventSource)
    assert isinstance(now, EventSource)
    for name in now.names_of(column):
        if name in was.schema and column in now.schema and not _holds(now.schema[column], was.schema[name]):
            return f"its archive holds {name!r} as {was.schema[name]}, and {column!r} is {now.schema[column]}"
    users = [view.key for view in staying if column in _used(view, was)]
    return f"column {column!r}, whose former names change, is used by {', '.join(users)}" if users else None


def _rule_reason(path: str, was: AnySource, staying: list[AnyView]) -> str | None:
    if isinstance(was, EventSource):
        return f"its archive is kept by {path}"
    users = [view.key for view in staying if _used(view, was)]
    return f"{path} decides what {', '.join(users)} reads" if users else None


def _used(view: AnyView, source: AnySource) -> set[str]:
    if isinstance(view, WindowedView):
        return set(used_columns(view)) if view.source.name == source.name else set()
    return set(source.schema) if any(one.name == source.name for one in view.sources) else set()


def _holds(kind: AnyType, stored: AnyType) -> bool:
    """Whether a column can have all values of another one."""
    if isinstance(kind, StringType) and isinstance(stored, StringType):
        return kind.max_bytes is None or (stored.max_bytes is not None and stored.max_bytes <= kind.max_bytes)
    return kind == stored


def _stored_alike(one: AnyType, other: AnyType) -> bool:
    """Whether values of both types look the same in the archive: the bound of a String is not stored."""
    return one == other or (isinstance(one, StringType) and isinstance(other, StringType))
