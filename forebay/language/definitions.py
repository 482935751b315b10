"""All definitions of a deployment, by name.

Collected from a module and its submodules, or from objects: what a definition refers to belongs to it, so a view brings
its entity and source along, and a service its views. One name means one thing: two different definitions under one name
are refused, and both places are named. Nothing here opens a store.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from forebay.errors import DefinitionError, RequestError, UnknownNameError, suggestion
from forebay.language.entity import Entity
from forebay.language.limits import Limit, least, limits_of
from forebay.language.module import import_modules
from forebay.language.on_demand import OnDemandView, ServedView
from forebay.language.selection import Selection
from forebay.language.service import FeatureService
from forebay.language.sessions import Sessionize
from forebay.language.source import AnySource, EventSource, RedisStream, TableSource
from forebay.language.view import AnyView, BatchView, WindowedView

AnyDefinition = Entity | EventSource | TableSource | WindowedView | BatchView | OnDemandView | FeatureService
Collected = AnyDefinition | Sessionize
Named = TypeVar("Named")

_VERSIONED = ("view", OnDemandView.kind, "service")
_KINDS: dict[type, str] = {
    Entity: "entity",
    EventSource: "source",
    TableSource: "source",
    Sessionize: "sessions",
    WindowedView: "view",
    BatchView: "view",
    OnDemandView: OnDemandView.kind,
    FeatureService: "service",
}


@dataclass(frozen=True)
class Definitions:
    """Entities and sources by name, views, on-demand views and services by `name@version`.

    Of what is deployed, `number` counts the deployments (0: not deployed), and `retired` maps a view or service that
    was deployed once and is no more (`view:name@version`) to its fingerprint: its data may still be stored, so its
    version cannot come back as something else. `active` is the version that the bare name of a service means.
    """

    entities: Mapping[str, Entity] = field(default_factory=dict)
    sources: Mapping[str, AnySource] = field(default_factory=dict)
    views: Mapping[str, AnyView] = field(default_factory=dict)
    services: Mapping[str, FeatureService] = field(default_factory=dict)
    retired: Mapping[str, str] = field(default_factory=dict)
    number: int = 0
    active: Mapping[str, int] = field(default_factory=dict)
    on_demand: Mapping[str, OnDemandView] = field(default_factory=dict)

    @classmethod
    def load(cls, module: str) -> Definitions:
        """The definitions in a module and its submodules, imported for it.

        Raises `DefinitionError` where the module cannot be imported (naming file and line) or contradicts itself.
        """
        collection = _Collection()
        for loaded in import_modules(module):
            for name, value in vars(loaded).items():
                for one in value if isinstance(value, list | tuple) else (value,):
                    collection.add(one, f"{loaded.__name__}.{name}")
        return collection.definitions()

    @classmethod
    def of(cls, *objects: Collected) -> Definitions:
        """The definitions of some objects and of all they refer to."""
        collection = _Collection()
        for position, value in enumerate(objects):
            if type(value) not in _KINDS:
                raise DefinitionError(f"{value!r} is not an entity, source, view or service")
            collection.add(value, f"argument {position + 1}")
        return collection.definitions()

    def entity(self, name: str) -> Entity:
        """The entity of a name. Raises `UnknownNameError`."""
        return _get("entity", name, self.entities)

    def source(self, name: str) -> AnySource:
        """The source of a name. Raises `UnknownNameError`."""
        return _get("source", name, self.sources)

    def view(self, key: str) -> AnyView:
        """The view of a key `name@version`. Raises `UnknownNameError`, and `RequestError` for one that is on demand."""
        if key in self.on_demand:
            inputs = ", ".join(one.view.key for one in self.on_demand[key].inputs) or "the request alone"
            raise RequestError(
                f"{key!r} is an on-demand view: nothing of it is stored, it is computed at the call, of {inputs}. "
                "Ask for its features online or in a training set"
            )
        return _get("view", key, self.views)

    def service(self, key: str) -> FeatureService:
        """The service of a key `name@version`. Raises `UnknownNameError`."""
        return _get("service", key, self.services)

    def active_service(self, name: str) -> str:
        """The key of the version that the bare name of a service means: the active one, else the lowest that there is.

        Raises `UnknownNameError`.
        """
        versions = [service.version for service in self.services.values() if service.name == name]
        version = self.active.get(name) or min(versions, default=None)
        if version is None:
            raise UnknownNameError(f"There is no service {name!r}. {_hint(name, self.services)}")
        return f"{name}@{version}"

    def resolve(self, features: str | FeatureService | Sequence[str]) -> list[tuple[ServedView, str]]:
        """(view, feature name) of a service or of a list of `"view@version:feature"`.

        A service is the object, `"name@version"`, or `"name"` for its active version.

        Raises `UnknownNameError` for what there is not.
        """
        if isinstance(features, str):
            return list(self._service(features).columns())
        if isinstance(features, FeatureService):
            return list(features.columns())
        if not isinstance(features, Sequence) or not features:
            raise RequestError(
                f"features={features!r}; expected a service such as 'fraud@1' "
                "or a list such as ['user_spend@1:spend_24h']"
            )
        return [self._feature(name) for name in features]

    def windowed_views(self, source: EventSource | str | None = None) -> list[WindowedView]:
        """The windowed views of a source (of all sources, if none is given), by key."""
        name = source.name if isinstance(source, EventSource) else source
        if name is not None:
            self.source(name)
        views = (self.views[key] for key in sorted(self.views))
        return [v for v in views if isinstance(v, WindowedView) and name in (None, v.source.name)]

    def limits(self, source: EventSource | str) -> dict[str, Limit]:
        """The largest |value|, as stored, of the columns of a source that views sum; ingest refuses what is beyond."""
        return least(
            (column, limit)
            for view in self.windowed_views(source)
            if view.sessions is None
            for column, limit in limits_of(view).items()
            if column in view.source.schema
        )

    def _service(self, text: str) -> FeatureService:
        if ":" in text:
            raise RequestError(f"features={text!r} names a single feature; write a list: features=[{text!r}]")
        served = {**self.views, **self.on_demand}
        if text not in self.services and text in served:
            some = next(iter(served[text].outputs()))
            raise RequestError(
                f"features={text!r} is a view, not a service; list its features, e.g. [{f'{text}:{some}'!r}]"
            )
        return self.service(text if "@" in text else self.active_service(text))

    def _feature(self, text: str) -> tuple[ServedView, str]:
        key, colon, name = text.partition(":") if isinstance(text, str) else ("", "", "")
        if not colon:
            raise RequestError(f"{text!r} does not name a feature; write 'view@version:feature'")
        view = _get("view", key, {**self.views, **self.on_demand})
        view[name]
        return view, name


class _Collection:
    """Definitions as they are found, each with the place where it was first seen."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, Any]] = {kind: {} for kind in _KINDS.values()}
        self.places: dict[tuple[str, str], str] = {}

    def add(self, value: Any, place: str) -> None:
        """Take a definition and what it refers to; anything else is passed over."""
        kind = _KINDS.get(type(value))
        if kind is None:
            return
        key = value.key if kind in _VERSIONED else value.name
        known = self.found[kind].get(key)
        if known is value:
            return
        if known is not None and known != value:
            another = "name or version" if kind in _VERSIONED else "name"
            raise DefinitionError(
                f"Two different definitions are called {kind} {key!r}: {self.places[kind, key]} and {place}. "
                f"Give one another {another}"
            )
        if known is None:
            self.found[kind][key] = value
            self.places[kind, key] = place
        for part in _parts(value):
            self.add(part, f"{kind} {key!r} in {place}")

    def definitions(self) -> Definitions:
        """What was found, in the order of the keys."""
        by_kind = {kind: dict(sorted(found.items())) for kind, found in self.found.items()}
        _check_trimmed(by_kind["source"].values())
        views, on_demand = by_kind["view"], by_kind[OnDemandView.kind]
        for key in on_demand:
            if key in views:
                places = f"{self.places['view', key]} and {self.places[OnDemandView.kind, key]}"
                raise DefinitionError(f"A view and an on-demand view are both called {key!r}: {places}. Rename one")
        return Definitions(by_kind["entity"], by_kind["source"], views, by_kind["service"], on_demand=on_demand)


def _parts(value: Collected) -> Iterator[Collected]:
    """What a definition refers to."""
    if isinstance(value, WindowedView):
        yield from (value.entity, value.source)
        if value.sessions is not None:
            yield value.sessions
    elif isinstance(value, Sessionize):
        yield value.source
    elif isinstance(value, BatchView):
        yield value.entity
        yield from value.sources
    elif isinstance(value, OnDemandView):
        yield from (selection.view for selection in value.inputs)
    elif isinstance(value, FeatureService):
        for selection in value.features:
            assert isinstance(selection, Selection)
            yield selection.view


def _check_trimmed(sources: Iterable[AnySource]) -> None:
    """Refuse a stream that is trimmed for one source and read by another, which may be behind."""
    readers: dict[tuple[str, str | None], list[EventSource]] = {}
    for source in sources:
        if isinstance(source, EventSource) and isinstance(source.stream, RedisStream):
            readers.setdefault((source.stream.key, source.stream.url), []).append(source)
    for (key, _), same in readers.items():
        if len(same) > 1 and any(isinstance(one.stream, RedisStream) and one.stream.trim for one in same):
            names = ", ".join(repr(one.name) for one in same)
            raise DefinitionError(
                f"RedisStream {key!r} has trim=True and is read by several sources: {names}. "
                "What one has archived another may still need; trim it yourself, behind all of them"
            )


def _get(kind: str, name: str, known: Mapping[str, Named]) -> Named:
    if name in known:
        return known[name]
    raise UnknownNameError(f"There is no {kind} {name!r}. {_hint(name, known)}")


def _hint(name: str, known: Iterable[str]) -> str:
    """The nearest key; of a known name with another version, its versions."""
    names = sorted(known)
    bare = str(name).partition("@")[0]
    versions = [key for key in names if "@" in key and key.partition("@")[0] == bare]
    if versions:
        return f"There {'is' if len(versions) == 1 else 'are'} {', '.join(map(repr, versions))}."
    near = difflib.get_close_matches(bare, [key.partition("@")[0] for key in names], n=1, cutoff=0.6)
    return suggestion(next((key for key in names if near and key.partition("@")[0] == near[0]), str(name)), names)
