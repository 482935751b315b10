"""The manifest: all definitions as canonical JSON, so that a deployment can be compared, shipped and read back.

    {"forebay_manifest": 1, "number": 7,
     "entities": {…}, "sources": {…}, "views": {…}, "services": {…}, "retired": {…},
     "active": {…}, "learned": {…}, "on_demand": {…}}

Canonical: keys sorted, UTF-8, no whitespace, a field that has its default left out; so equal definitions are equal
bytes. Where the order of columns matters (keys of an entity, columns of a schema, derived columns, features) they are
lists. Entities, sources and views refer to each other by name. Decimals and instants are text. A batch view and an
on-demand view come back without their functions: their code stays behind as a hash. `docs/formats.md` has the format,
tests/language its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from forebay.errors import DefinitionError, FormatError
from forebay.instants import instant_text, instant_us
from forebay.language.aggregations import AGGREGATIONS, Aggregation
from forebay.language.definitions import AnyDefinition, Definitions
from forebay.language.derived import Derived
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.fingerprint import fingerprint, signature, used_columns
from forebay.language.learned import learned_of, with_learned
from forebay.language.on_demand import OnDemandView, ServedView
from forebay.language.selection import Selection
from forebay.language.service import FeatureService
from forebay.language.sessions import Sessionize
from forebay.language.source import AnySource, AnyStream, EventSource, TableSource
from forebay.language.statistics import AnyStatistic, Statistic
from forebay.language.types import AnyType, FeatureType
from forebay.language.view import AnyView, BatchView, WindowedView

__all__ = ["FORMAT", "describe", "fingerprint", "from_manifest", "signature", "to_manifest", "used_columns"]

FORMAT = 1
"""The version of this format; a reader refuses any other."""

_AGGREGATIONS: dict[str, type[Aggregation]] = {kind.__name__: kind for kind in AGGREGATIONS}
Part = TypeVar("Part")
Served = TypeVar("Served", bound=ServedView)


def to_manifest(definitions: Definitions) -> bytes:
    """The canonical JSON of all definitions."""
    content: dict[str, Any] = {"forebay_manifest": FORMAT, "number": definitions.number}
    for group in ("entities", "sources", "views", "services"):
        content[group] = {key: describe(value) for key, value in getattr(definitions, group).items()}
    content["retired"] = dict(definitions.retired)
    learned = {key: learned_of(view) for key, view in definitions.views.items()}
    if any(learned.values()):
        content["learned"] = {key: _pack_learned(values) for key, values in learned.items() if values}
    if definitions.on_demand:
        content["on_demand"] = {key: describe(view) for key, view in definitions.on_demand.items()}
    if definitions.active:
        content["active"] = dict(definitions.active)
    return msgspec.json.encode(content, order="sorted")


def from_manifest(data: bytes) -> Definitions:
    """The definitions of a manifest. Raises `FormatError` for bytes that are none, or of another version."""
    try:
        content = msgspec.json.decode(data)
        version = content["forebay_manifest"]
    except (msgspec.DecodeError, KeyError, TypeError):
        raise FormatError(
            f"These {len(data)} bytes are not a manifest. Where they are in Redis, remove the key "
            "`<namespace>:manifest` and run `forebay apply`, which writes it anew"
        ) from None
    if version != FORMAT:
        raise FormatError(
            f"The manifest has format {version!r}, and this Forebay reads {FORMAT}; use the version that applied it"
        )
    try:
        return _read(content)
    except (KeyError, TypeError, ValueError, DefinitionError) as error:
        raise FormatError(
            f"The manifest cannot be read ({error!r}); use the version of Forebay that applied it"
        ) from error


def describe(definition: AnyDefinition) -> dict[str, Any]:
    """One definition as JSON values."""
    if isinstance(definition, Entity):
        return _pack(definition, keys=_pack_columns(definition.keys))
    if isinstance(definition, EventSource):
        return {"kind": "EventSource", **_pack(definition, schema=_pack_columns(definition.schema))}
    if isinstance(definition, TableSource):
        return {"kind": "TableSource", **_pack(definition, schema=_pack_columns(definition.schema))}
    if isinstance(definition, WindowedView):
        return {"kind": "WindowedView", **_pack_windowed(definition)}
    if isinstance(definition, BatchView):
        return {"kind": "BatchView", **_pack_batch(definition)}
    if isinstance(definition, OnDemandView):
        return {"kind": "OnDemandView", **_pack_on_demand(definition)}
    return _pack(definition, features=[_pack_selection(selection) for selection in definition.features])


def _pack(value: msgspec.Struct, **instead: Any) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults, as JSON values or as given by `instead`."""
    packed = {}
    for field in msgspec.structs.fields(value):
        content = getattr(value, field.name)
        if content != _default(field):
            packed[field.name] = instead[field.name] if field.name in instead else msgspec.to_builtins(content)
    return packed


def _default(field: msgspec.structs.FieldInfo) -> Any:
    factory = field.default_factory
    return field.default if factory is msgspec.NODEFAULT else factory()


def _pack_columns(columns: Mapping[str, AnyType]) -> list[dict[str, Any]]:
    return [{"name": name, **msgspec.to_builtins(kind)} for name, kind in columns.items()]


def _pack_windowed(view: WindowedView) -> dict[str, Any]:
    return _pack(
        view,
        entity=view.entity.name,
        source=view.source.name,
        derived=[
            {"name": name, "sql": derived.sql, "type": msgspec.to_builtins(derived.type)}
            for name, derived in view.derived.items()
        ],
        features=[{"aggregation": type(feature).__name__, **_pack_aggregation(feature)} for feature in view.features],
        sessions=None if view.sessions is None else _pack(view.sessions, source=view.source.name),
    )


def _pack_aggregation(feature: Aggregation) -> dict[str, Any]:
    values = {name: _pack_default(getattr(feature, name, None)) for name in ("default", "edges")}
    return _pack(feature, **values)


def _pack_batch(view: BatchView) -> dict[str, Any]:
    packed = _pack(
        view,
        entity=view.entity.name,
        sources=[source.name for source in view.sources],
        features=_pack_features(view.features),
        compute=None,
    )
    return {name: value for name, value in packed.items() if name != "compute"}


def _pack_on_demand(view: OnDemandView) -> dict[str, Any]:
    inputs, request = [_pack_selection(one) for one in view.inputs], _pack_columns(view.request)
    packed = _pack(view, inputs=inputs, request=request, features=_pack_features(view.features), compute=None)
    return {name: value for name, value in packed.items() if name != "compute"}


def _pack_features(features: Iterable[Feature]) -> list[dict[str, Any]]:
    return [
        _pack(feature, type=msgspec.to_builtins(feature.type), default=_pack_default(feature.default))
        for feature in features
    ]


def _pack_learned(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _pack_default(value) for name, value in values.items()}


def _pack_default(default: Any) -> Any:
    if isinstance(default, Statistic):
        declared = msgspec.structs.replace(default, otherwise=_pack_default(default.otherwise), learned={})
        return msgspec.to_builtins(declared)
    if isinstance(default, tuple):
        return [_pack_default(one) for one in default]
    return instant_text(instant_us(default)) if hasattr(default, "tzinfo") else msgspec.to_builtins(default)


def _pack_selection(selection: Any) -> dict[str, Any]:
    assert isinstance(selection, Selection)
    return {"view": selection.view.key, "names": list(selection.names)}


def _read(content: Mapping[str, Any]) -> Definitions:
    entities = _each(content["entities"], lambda raw: Entity(**{**raw, "keys": _columns(raw["keys"])}))
    sources = _each(content["sources"], _source)
    views = _each(content["views"], lambda raw: _view(raw, entities, sources))
    views |= {key: with_learned(views[key], values) for key, values in content.get("learned", {}).items()}
    on_demand = _each(content.get("on_demand", {}), lambda raw: _on_demand(raw, views))
    served: dict[str, ServedView] = {**views, **on_demand}
    services = _each(
        content["services"],
        lambda raw: FeatureService(**{**raw, "features": [_selection(one, served) for one in raw["features"]]}),
    )
    retired, number, active = dict(content["retired"]), int(content["number"]), dict(content.get("active", {}))
    return Definitions(entities, sources, views, services, retired, number, active, on_demand)


def _each(raws: Mapping[str, Any], read: Callable[[dict[str, Any]], Part]) -> dict[str, Part]:
    return {key: read(raw) for key, raw in raws.items()}


def _columns(raws: Iterable[Mapping[str, Any]]) -> dict[str, AnyType]:
    return {raw["name"]: _type({k: v for k, v in raw.items() if k != "name"}) for raw in raws}


def _type(raw: Any) -> AnyType:
    kind: AnyType = msgspec.convert(raw, AnyType)
    return kind


def _statistic(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a feature, with a default that is a statistic as one."""
    default = raw.get("default")
    return {**raw, "default": msgspec.convert(default, AnyStatistic)} if isinstance(default, dict) else dict(raw)


def _feature_type(raw: Any) -> FeatureType:
    kind: FeatureType = msgspec.convert(raw, FeatureType)
    return kind


def _source(raw: dict[str, Any]) -> AnySource:
    fields = {**raw, "schema": _columns(raw["schema"])}
    if fields.pop("kind") == "TableSource":
        return TableSource(**fields)
    if "stream" in fields:
        fields["stream"] = msgspec.convert(fields["stream"], AnyStream)
    return EventSource(**fields)


def _view(raw: dict[str, Any], entities: Mapping[str, Entity], sources: Mapping[str, AnySource]) -> AnyView:
    fields = {**raw, "entity": entities[raw["entity"]]}
    if fields.pop("kind") == "BatchView":
        fields["sources"] = [sources[name] for name in raw["sources"]]
        fields["features"] = _features(raw["features"])
        return BatchView(**fields)
    fields["source"] = sources[raw["source"]]
    fields["features"] = [_aggregation(one) for one in raw["features"]]
    fields["derived"] = {one["name"]: Derived(one["sql"], _type(one["type"])) for one in raw.get("derived", ())}
    if "sessions" in fields:
        fields["sessions"] = Sessionize(**{**raw["sessions"], "source": fields["source"]})
    return WindowedView(**fields)


def _on_demand(raw: Mapping[str, Any], views: Mapping[str, AnyView]) -> OnDemandView:
    fields = {name: value for name, value in raw.items() if name != "kind"}
    fields["inputs"] = [_selection(one, views) for one in raw["inputs"]]
    fields |= {"request": _columns(raw["request"]), "features": _features(raw["features"])}
    return OnDemandView(**fields)


def _features(raws: Iterable[Mapping[str, Any]]) -> list[Feature]:
    return [Feature(**{**_statistic(one), "type": _feature_type(one["type"])}) for one in raws]


def _aggregation(raw: Mapping[str, Any]) -> Aggregation:
    fields = {name: value for name, value in _statistic(raw).items() if name != "aggregation"}
    return _AGGREGATIONS[raw["aggregation"]](**fields)


def _selection(raw: Mapping[str, Any], views: Mapping[str, Served]) -> Selection[Served]:
    names: Sequence[str] = raw["names"]
    view = views[raw["view"]]
    view[tuple(names)]
    return Selection(view, tuple(names))
