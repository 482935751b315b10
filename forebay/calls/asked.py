"""What a call asks for: the features of a service or a list, in request order, grouped by view.

May live here: resolving names against the definitions. No rows, no stores.

Invariants: two columns of a request never have one name, nor is a feature named as an entity key; `views` holds
each view once, in the order in which it is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from forebay.errors import RequestError
from forebay.language.definitions import Definitions
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.learned import as_deployed, statistics_of
from forebay.language.on_demand import OnDemandView, ServedView, stored_views
from forebay.language.selection import Selection
from forebay.language.service import FeatureService
from forebay.language.types import AnyType
from forebay.language.view import AnyView

FEATURES_MAX = 2_000
"""Columns of one request: each costs a NumPy array, however few the rows are."""
Function = Callable[..., Any]
Features = str | Sequence[str] | FeatureService
"""A service (`"name@version"`, `"name"`: its active version, or the object) or a list of `"view@version:feature"`."""


@dataclass(frozen=True)
class AskedColumn:
    """One feature of one view, and the name of its column in the result."""

    view: ServedView
    name: str
    title: str

    @property
    def feature(self) -> Feature:
        """Its declaration."""
        return self.view.outputs()[self.name]


@dataclass(frozen=True)
class Asked:
    """The columns of a request; `keys` are the key columns of all its entities, `names` what to read of which view.

    `on_demand` are the views that are computed of those, `request` the columns that they need of the request beside.
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
    on_demand: Mapping[str, OnDemandView] = field(default_factory=dict)
    request: Mapping[str, AnyType] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Definitions, features: Features, *, full_feature_names: bool = False) -> Asked:
        """What `features` names. Raises `UnknownNameError` with the nearest name, and `RequestError` on a clash.

        With `full_feature_names` the columns of the result are named `view__feature`.
        """
        resolved = definitions.resolve(features)
        if isinstance(features, FeatureService):  # its views are the caller's own: what was learned is not in them
            resolved = [(_as_deployed(view, definitions), name) for view, name in resolved]
        if not 1 <= len(resolved) <= FEATURES_MAX:
            raise RequestError(f"{len(resolved)} features are asked for; expected 1 to {FEATURES_MAX}")
        columns = tuple(
            AskedColumn(view, name, f"{view.name}__{name}" if full_feature_names else name) for view, name in resolved
        )
        served = {column.view.key: column.view for column in columns}
        on_demand = {key: view for key, view in served.items() if isinstance(view, OnDemandView)}
        views = {view.key: view for one in served.values() for view in stored_views(one)}
        if not views:
            raise RequestError(
                f"{', '.join(on_demand)} need nothing but the request, and no feature of an entity is asked for with "
                "them; ask for one"
            )
        entities = {view.entity.name: view.entity for view in views.values()}
        keys, request = _keys(entities), _request(on_demand.values())
        _check_titles(columns, keys, request)
        learns = any(statistics_of(view) for view in views.values())
        service, names = _service(definitions, features), _names(columns)
        return cls(columns, keys, entities, views, names, service, learns, on_demand, request)

    def bound(self, function: Callable[[OnDemandView], Function]) -> Asked:
        """The same, with the functions of on-demand views that lack theirs, which `function` gives."""
        whole = {
            key: view if view.compute is not None else msgspec.structs.replace(view, compute=function(view))
            for key, view in self.on_demand.items()
        }
        return replace(self, on_demand=whole)


def _as_deployed(view: ServedView, definitions: Definitions) -> ServedView:
    """A view of the caller's with what was learned of it, or of its inputs, where it is deployed."""
    if not isinstance(view, OnDemandView):
        return as_deployed(view, definitions)
    inputs = [Selection(as_deployed(one.view, definitions), one.names) for one in view.inputs]
    return msgspec.structs.replace(view, inputs=inputs)


def _names(columns: Iterable[AskedColumn]) -> dict[str, list[str]]:
    """What is to be read of each view: what is asked for, and what on-demand features are computed of; each once."""
    names: dict[str, dict[str, None]] = {}
    for column in columns:
        view = column.view
        wanted = view.arguments().values() if isinstance(view, OnDemandView) else [(view, column.name)]
        for of, name in wanted:
            names.setdefault(of.key, {})[name] = None
    return {key: list(mine) for key, mine in names.items()}


def _request(views: Iterable[OnDemandView]) -> dict[str, AnyType]:
    """The columns that the request has to bring along."""
    owners: dict[str, tuple[str, AnyType]] = {}
    for view in views:
        for name, kind in view.request.items():
            owner, known = owners.setdefault(name, (view.key, kind))
            if known != kind:
                raise RequestError(
                    f"Request column {name!r} is {known} for {owner!r} and {kind} for {view.key!r}; ask for them apart"
                )
    return {name: kind for name, (_, kind) in owners.items()}


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


def _check_titles(columns: Sequence[AskedColumn], keys: Mapping[str, AnyType], request: Mapping[str, AnyType]) -> None:
    for name in request:
        if name in keys:
            raise RequestError(
                f"Request column {name!r} is also a key of an entity in this request; ask for them apart"
            )
    owners: dict[str, AskedColumn] = {}
    for column in columns:
        if (first := owners.setdefault(column.title, column)) is not column:
            raise _twice(first, column)
        if column.title in request:
            raise RequestError(
                f"Feature {column.title!r} of {column.view.key!r} is also a column of the request; "
                "pass full_feature_names=True or ask for them apart"
            )
        if column.title in keys:
            raise RequestError(
                f"Feature {column.title!r} of {column.view.key!r} is also a key of another entity in this request; "
                "pass full_feature_names=True or ask for their views apart"
            )


def _twice(first: AskedColumn, second: AskedColumn) -> RequestError:
    """Two columns of one name: full names tell views apart, and neither versions of one nor one feature from itself."""
    same = first.view.name == second.view.name
    advice = "ask for them apart" if same else "pass full_feature_names=True or ask for them apart"
    return RequestError(
        f"Feature {second.title!r} is asked for twice, of {first.view.key!r} and {second.view.key!r}; columns need "
        f"distinct names: {advice}"
    )
