"""How the schema of a deployed source may change: columns may be added, and no stored value may change its meaning.

    add a column                  fine: it is null in what is stored
    remove a column               fine, unless a view that stays uses it
    change its type               refused; a String may change its bound, where no view that stays uses it
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
from forebay.language.types import AnyType, StringType
from forebay.language.view import AnyView, WindowedView


@dataclass(frozen=True)
class SourceRefusal:
    """Why a source cannot change as declared."""

    reason: str
    differences: list[Difference]


def refuse_source(was: AnySource, now: AnySource, staying: Iterable[AnyView]) -> SourceRefusal | None:
    """The refusal of a change to a deployed source; `staying` are the deployed views that the code keeps."""
    views = list(staying)
    reasons, refused = [], []
    for difference in compare(signature(was), signature(now)):
        reason = _reason(difference.path, was, now, views)
        if reason is not None:
            reasons.append(reason)
            refused.append(difference)
    if type(was) is not type(now):
        reasons.insert(0, f"it was a {type(was).__name__} and is a {type(now).__name__}")
    return SourceRefusal("; ".join(dict.fromkeys(reasons)), refused) if reasons else None


def _reason(path: str, was: AnySource, now: AnySource, staying: list[AnyView]) -> str | None:
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


def _rule_reason(path: str, was: AnySource, staying: list[AnyView]) -> str | None:
    if isinstance(was, EventSource):
        return f"its archive is kept by {path}"
    users = [view.key for view in staying if _used(view, was)]
    return f"{path} decides what {', '.join(users)} reads" if users else None


def _used(view: AnyView, source: AnySource) -> set[str]:
    if isinstance(view, WindowedView):
        return set(used_columns(view)) if view.source.name == source.name else set()
    return set(source.schema) if any(one.name == source.name for one in view.sources) else set()


def _stored_alike(one: AnyType, other: AnyType) -> bool:
    """Whether values of both types look the same in the archive: the bound of a String is not stored."""
    return one == other or (isinstance(one, StringType) and isinstance(other, StringType))
