"""What a path and a query ask for: an entity's row and its features.

    /features/origin_airport/JFK?names=origin_departures_1h,origin_weather@1:temperature

The id of an entity with several keys joins their values by `|`; a `|` or `%` within a value is percent-encoded once
more. Names are `view@version:feature`, or bare features of the latest version of the entity's views; without names
all of those that are stored. What on-demand features need of the request are parameters of the query: `&amount=12.50`.
Only reading requests may live here; errors are Forebay's, with a hint.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterable, Mapping
from typing import Any

from forebay.calls.texts import value_of
from forebay.errors import RequestError, UnknownNameError
from forebay.language.definitions import Definitions
from forebay.language.entity import Entity
from forebay.language.on_demand import ServedView, stored_views
from forebay.language.types import AnyType, Int64Type

ID_LENGTH_MAX = 1024
"""Longer ids cannot be keys of the online store."""
NAMES_MAX = 500
"""Features of one request; a view has at most as many."""
OWN_PARAMETERS = ("names", "at")
_WHOLE = re.compile(r"-?\d{1,19}")


def entity_row(entity: Entity, text: str) -> dict[str, Any]:
    """The key columns of an id. Raises `RequestError`."""
    if not text or len(text) > ID_LENGTH_MAX:
        raise RequestError(f"An id of entity {entity.name!r} has 1 to {ID_LENGTH_MAX} characters; this has {len(text)}")
    if len(entity.keys) == 1:
        values = [text]
    else:
        values = [urllib.parse.unquote(part) for part in text.split("|")]
    if len(values) != len(entity.keys):
        raise RequestError(
            f"Id {text!r} has {len(values)} parts. Entity {entity.name!r} has the keys {' | '.join(entity.keys)}, "
            "in this order"
        )
    return {
        name: _whole_number(entity, name, value) if isinstance(kind, Int64Type) else value
        for (name, kind), value in zip(entity.keys.items(), values, strict=True)
    }


def feature_names(definitions: Definitions, entity: Entity, names: str | None) -> dict[str, str]:
    """What is asked for: each name as it was written, with the feature it means as `view@version:feature`.

    Raises `RequestError` and `UnknownNameError`.
    """
    if names is None:
        stored = {view.name: view for view in _by_version(definitions.views.values(), entity)}
        if not stored:
            raise UnknownNameError(f"Entity {entity.name!r} has no views. Declare one and run forebay apply")
        return {name: _only(name, found) for name, found in _bare_names(stored).items()}
    served: list[ServedView] = [*definitions.views.values(), *definitions.on_demand.values()]
    bare = _bare_names({view.name: view for view in _by_version(served, entity)})
    asked = [name.strip() for name in names.split(",") if name.strip()]
    if not 1 <= len(asked) <= NAMES_MAX:
        raise RequestError(f"names has {len(asked)} features. Write 1 to {NAMES_MAX}, such as names=a,b")
    return {name: _qualified(definitions, entity, name) if ":" in name else _known(name, bare) for name in asked}


def request_values(query: Mapping[str, str], request: Mapping[str, AnyType]) -> dict[str, Any]:
    """What on-demand features need of the request. Raises `RequestError`."""
    for name, kind in request.items():
        if name in OWN_PARAMETERS:
            raise RequestError(f"Request column {name!r} is a parameter of this address. Ask by the Python client")
        if name not in query:
            raise RequestError(f"An on-demand feature needs {name!r} ({kind}) of the request. Add &{name}=…")
    return {name: value_of(name, query[name], kind) for name, kind in request.items()}


def _by_version(views: Iterable[ServedView], entity: Entity) -> list[ServedView]:
    """The views that need this entity and no other, in order of their versions."""
    return sorted((view for view in views if _entities(view) == {entity.name}), key=lambda view: view.version)


def _entities(view: ServedView) -> set[str]:
    """Whose features a view is, or is computed of."""
    return {stored.entity.name for stored in stored_views(view)}


def _bare_names(views: Mapping[str, ServedView]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for view in views.values():
        for name in view.outputs():
            found.setdefault(name, []).append(f"{view.key}:{name}")
    return found


def _known(name: str, bare: Mapping[str, list[str]]) -> str:
    if name not in bare:
        raise UnknownNameError.of("feature", name, bare)
    return _only(name, bare[name])


def _only(name: str, found: list[str]) -> str:
    if len(found) > 1:
        raise RequestError(f"Feature {name!r} is in {len(found)} views. Ask for one of {', '.join(map(repr, found))}")
    return found[0]


def _qualified(definitions: Definitions, entity: Entity, name: str) -> str:
    ((view, feature),) = definitions.resolve([name])
    needed = sorted(_entities(view))
    if needed != [entity.name]:
        where = f"Ask for it at /features/{needed[0]}/…" if len(needed) == 1 else "Ask for it by the Python client"
        whose = f"of entity {' and '.join(map(repr, needed))}" if needed else "of no entity"
        raise RequestError(f"Feature {name!r} is {whose}. {where}")
    return f"{view.key}:{feature}"


def _whole_number(entity: Entity, name: str, text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise RequestError(f"Key {name!r} of entity {entity.name!r} is {text[:40]!r}. Expected a whole number")
    return int(text)
