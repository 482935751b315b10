"""What a call asks for: the features of a service or a list, in request order, grouped by view.

May live here: resolving names against the definitions. No rows, no stores.

Invariants: two columns of a request never have one name, nor is a feature named as an entity key; `views` holds
each view once, in the order in which it is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from forebay.errors import RequestError
from forebay.language.definitions import Definitions
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.learned import as_deployed, statistics_of
from forebay.language.service import FeatureService
from forebay.language.types import AnyType
from forebay.language.view import AnyView

FEATURES_MAX = 2_000
"""Columns of one request: each costs a NumPy array, however few the rows are."""
Features = str | Sequence[str] | FeatureService
"""A service (`"name@version"`, `"name"`: its active version, or the object) or a list of `"view@version:feature"`."""


@dataclass(frozen=True)
class AskedColumn:
    """One feature of one view, and the name of its column in the result."""

    view: AnyView
    name: str
    title: str

    @property
    def feature(self) -> Feature:
        """Its declaration."""
        return self.view.outputs()[self.name]


@dataclass(frozen=True)
class Asked:
    """The columns of a request; `keys` are the key columns of all its entities, `names` what to read of which view.

    `service` is the key of the service that was asked for, if it was one; `learns` whether a default of its views is a
    statistic, so that it may become another one.
    """

    columns: tuple[AskedColumn, ...]
    keys: dict[str, AnyType]
    entities: dict[str, Entity]
    views: dict[str, AnyView]
    names: dict[str, list[str]]
    service: str | None = None
    learns: bool = False

    @classmethod
    def of(cls, definitions: Definitions, features: Features, *, full_feature_names: bool = False) -> Asked:
        """What `features` names. Raises `UnknownNameError` with the nearest name, and `RequestError` on a clash.

        With `full_feature_names` the columns of the result are named `view__feature`.
        """
        resolved = definitions.resolve(features)
        if isinstance(features, FeatureService):  # its views are the caller's own: what was learned is not in them
            resolved = [(as_deployed(view, definitions), name) for view, name in resolved]
        if not 1 <= len(resolved) <= FEATURES_MAX:
            raise RequestError(f"{len(resolved)} features are asked for; expected 1 to {FEATURES_MAX}")
        columns = tuple(
            AskedColumn(view, name, f"{view.name}__{name}" if full_feature_names else name) for view, name in resolved
        )
        names: dict[str, list[str]] = {}
        for column in columns:
            mine = names.setdefault(column.view.key, [])
            if column.name not in mine:
                mine.append(column.name)
        entities = {column.view.entity.name: column.view.entity for column in columns}
        keys = _keys(entities)
        _check_titles(columns, keys)
        views = {column.view.key: column.view for column in columns}
        learns = any(statistics_of(view) for view in views.values())
        return cls(columns, keys, entities, views, names, _service(definitions, features), learns)


def _service(definitions: Definitions, features: Features) -> str | None:
    if isinstance(features, str):
        return features if "@" in features else definitions.active_service(features)
    return features.key if isinstance(features, FeatureService) else None


def _keys(entities: dict[str, Entity]) -> dict[str, AnyType]:
    keys: dict[str, AnyType] = {}
    for entity in entities.values():
        for name, kind in entity.keys.items():
            if type(keys.setdefault(name, kind)) is not type(kind):
                raise RequestError(
                    f"Key {name!r} is {keys[name]} in one entity and {kind} in {entity.name!r}; "
                    "ask for their views apart"
                )
    return keys


def _check_titles(columns: Sequence[AskedColumn], keys: dict[str, AnyType]) -> None:
    for column in columns:
        if column.title in keys:
            raise RequestError(
                f"Feature {column.title!r} of {column.view.key!r} is also a key of another entity in this request; "
                "pass full_feature_names=True or ask for their views apart"
            )
