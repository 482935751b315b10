"""Views: named, versioned groups of features of one entity."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from forebay.errors import DefinitionError, UnknownNameError, suggestion
from forebay.instants import DAY_US, MINUTE_US
from forebay.language.aggregations import Aggregation, explain_refusal
from forebay.language.arguments import check_cases, check_labels, check_text, checked_list, checked_mapping
from forebay.language.code import check_parameters, code_of
from forebay.language.defaults import checked_default, default_of
from forebay.language.durations import declared_us
from forebay.language.entity import Entity
from forebay.language.names import check_name, check_version
from forebay.language.schedule import check_cron, check_day
from forebay.language.sessions import OVER, SESSION_ID_BYTES, SESSION_SCHEMA, Sessionize, explain_source
from forebay.language.source import AnySource, EventSource
from forebay.language.types import AnyType, FeatureType
from forebay.language.windows import check_hops

FEATURES_MAX = 500
"""Features of one view."""
PARTITIONS = ("hourly", "daily", "none")


class Derived(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column computed from the source's by a SQL expression: `Derived("amount * 0.9", Decimal(2))`."""

    sql: str
    type: AnyType

    def __post_init__(self) -> None:
        check_text("Derived", "sql", self.sql)
        if not isinstance(self.type, AnyType):
            raise DefinitionError(
                f"Derived({self.sql!r}) is of type {self.type!r}; expected a type such as String, Int64 or Decimal(2)"
            )


class Feature(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A named, typed value with a default, as a batch view yields it. `default=None` says null on purpose."""

    name: str
    type: FeatureType
    default: Any = msgspec.UNSET
    description: str = ""

    def __post_init__(self) -> None:
        where = f"Feature {self.name!r}"
        check_name("Feature", self.name)
        check_labels(where, self)
        _check_type(where, self.type)
        if self.default is msgspec.UNSET:
            raise DefinitionError(
                f"{where} names no default; say what an unknown entity gets, e.g. default=0 (or None for null)"
            )
        msgspec.structs.force_setattr(self, "default", checked_default(where, self.default, self.type))

    def resolved(self) -> Feature:
        """With the value that its default is, where that is a statistic."""
        default = default_of(self.default, self.name)
        return self if default is self.default else msgspec.structs.replace(self, default=default)


class Selection(msgspec.Struct, frozen=True):
    """Some features of a view: `view["score"]` or `view["a", "b"]`."""

    view: WindowedView | BatchView
    names: tuple[str, ...]


class _View(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    version: int
    entity: Entity

    kind: ClassVar[str] = "view"

    @property
    def key(self) -> str:
        """`name@version`, as in keys, paths and requests."""
        return f"{self.name}@{self.version}"

    @property
    def asset_name(self) -> str:
        """`name_vN`, as in asset keys."""
        return f"{self.name}_v{self.version}"

    def outputs(self) -> dict[str, Feature]:
        """Its features by name, in order."""
        raise NotImplementedError

    def __getitem__(self, names: str | tuple[str, ...]) -> Selection:
        """Some of its features. Raises `UnknownNameError` for a name that it does not have."""
        chosen = (names,) if isinstance(names, str) else tuple(names)
        known = self.outputs()
        for name in chosen:
            if name not in known:
                raise UnknownNameError(f"View {self.key!r} has no feature {name!r}. {suggestion(name, known)}")
        assert isinstance(self, WindowedView | BatchView)
        return Selection(self, chosen)


class WindowedView(_View, frozen=True, cache_hash=True):
    """Aggregates over windows of events of one source, fresh from the stream and equal in every path.

    `source` is an `EventSource`, or the sessions in one (`Sessionize`); of those, `view.source` is the source beneath,
    and `view.sessions` how they are made. `where` and `derived` are SQL expressions over its columns. `ttl`: older than
    this after the newest counted event, a value is its default (`DEFAULT_EXPIRED`). `freshness`: how far behind the
    stream may be before values are `STALE`; `retention`: how far behind publications may be. `history`: the grid on
    which finished values are kept for SQL. Raises `DefinitionError` where it contradicts itself.
    """

    kind: ClassVar[str] = "windowed view"

    source: EventSource
    features: Sequence[Any]
    where: str | None = None
    derived: Mapping[str, Derived] = {}
    ttl: str | None = None
    freshness: str | None = None
    retention: str | None = None
    refresh: str | None = None
    history: str | None = None
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}
    sessions: Sessionize | None = None

    if TYPE_CHECKING:  # what may be given as `source` is more than what the field holds

        def __init__(
            self,
            name: str,
            version: int,
            entity: Entity,
            source: EventSource | Sessionize,
            features: Sequence[Any],
            where: str | None = None,
            derived: Mapping[str, Derived] = ...,
            ttl: str | None = None,
            freshness: str | None = None,
            retention: str | None = None,
            refresh: str | None = None,
            history: str | None = None,
            owner: str = "",
            description: str = "",
            tags: Mapping[str, str] = ...,
            sessions: Sessionize | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        where = f"View {self.name!r}"
        _check_head(where, self)
        given: Any = self.source
        if isinstance(given, Sessionize):
            msgspec.structs.force_setattr(self, "sessions", given)
            msgspec.structs.force_setattr(self, "source", given.source)
        if not isinstance(self.source, EventSource):
            raise DefinitionError(f"{where}: {explain_source(self.source)}")
        if self.sessions is not None and self.sessions.source != self.source:
            raise DefinitionError(
                f"{where}: its sessions are of {self.sessions.source.name!r}; give them as its source"
            )
        _check_keys(where, self.entity, self.source)
        if self.where is not None:
            check_text(where, "where", self.where)
        derived = checked_mapping(where, "derived", self.derived, "{'net': Derived('amount * 0.8', Decimal(2))}")
        msgspec.structs.force_setattr(self, "derived", derived)
        self._check_derived(where)
        features = checked_list(where, "features", self.features, "[Count('n', windows=['1h'], default=0)]")
        checked = tuple(self._checked_feature(where, feature) for feature in features)
        msgspec.structs.force_setattr(self, "features", checked)
        _check_outputs(where, self)
        check_hops(where, [f.window(w) for f in self.features for w in f.windows])
        _check_unique(where, [f.feature_name(w) for f in self.features for w in f.windows])
        for name, text in (("ttl", self.ttl), ("freshness", self.freshness), ("retention", self.retention)):
            declared_us(f"{where}: {name}", text)
        check_cron(where, self.refresh)
        _check_history(where, self.history)

    def _check_derived(self, where: str) -> None:
        for column, derived in self.derived.items():
            check_name(f"{where}: derived column", column)
            if not isinstance(derived, Derived):
                raise DefinitionError(f"{where}: derived column {column!r} is {derived!r}; expected Derived(sql, type)")
            if column.casefold() in {name.casefold() for name in self.schema}:
                raise DefinitionError(
                    f"{where}: derived column {column!r} hides a column of {self.source_name!r}; choose another name"
                )
        check_cases(where, "derived column", list(self.derived))

    def _checked_feature(self, where: str, feature: Any) -> Aggregation:
        """An aggregation that its column allows, with the default in the form of its type."""
        if not isinstance(feature, Aggregation):
            raise DefinitionError(
                f"{where}: {feature!r} is not an aggregation; expected Count, Sum, Mean, … over windows"
            )
        what = f"{where}: {type(feature).__name__} {feature.name!r}"
        column = self.column(feature.of)
        if feature.of is not None and column is None:
            columns = [*self.schema, *self.derived]
            raise DefinitionError(
                f"{what} is of {feature.of!r}, which {self.source_name!r} does not have. "
                f"{suggestion(feature.of, columns)}"
            )
        if column is not None and not feature.accepts(column):
            raise DefinitionError(f"{what}: {explain_refusal(feature, column)}")
        default = checked_default(what, feature.default, feature.output(column))
        return msgspec.structs.replace(feature.checked(what, column), default=default)

    def column(self, name: str | None) -> AnyType | None:
        """The type of a column of the source or a derived one; `None` where there is none."""
        if name is None:
            return None
        return self.derived[name].type if name in self.derived else self.schema.get(name)

    @property
    def schema(self) -> Mapping[str, AnyType]:
        """The columns of the events that it aggregates: those of its source, or of sessions."""
        return self.source.schema if self.sessions is None else SESSION_SCHEMA

    @property
    def timestamp(self) -> str:
        """The column with the instant of the events that it aggregates."""
        return self.source.timestamp if self.sessions is None else OVER

    @property
    def event_id_bytes(self) -> int:
        """The longest id of the events that it aggregates, in UTF-8 bytes."""
        return self.source.event_id_bytes if self.sessions is None else SESSION_ID_BYTES

    @property
    def source_name(self) -> str:
        """What it aggregates, by name: its source or the sessions in it."""
        return self.source.name if self.sessions is None else self.sessions.name

    def outputs(self) -> dict[str, Feature]:
        """Its features by name, in order: one per aggregation and window."""
        return {
            f.feature_name(w): Feature(
                f.feature_name(w), f.output(self.column(f.of)), default_of(f.default, f.feature_name(w)), f.description
            )
            for f in self.features
            for w in f.windows
        }

    @property
    def ttl_us(self) -> int | None:
        """Microseconds of `ttl`."""
        return declared_us(self.name, self.ttl)

    @property
    def history_us(self) -> int | None:
        """Microseconds of `history`."""
        return declared_us(self.name, self.history)

    @property
    def freshness_us(self) -> int | None:
        """Microseconds of `freshness`."""
        return declared_us(self.name, self.freshness)

    @property
    def retention_us(self) -> int | None:
        """Microseconds of `retention`."""
        return declared_us(self.name, self.retention)


class BatchView(_View, frozen=True):
    """Rows that a function computes per partition from its sources. Made by the decorator `batch_view`.

    `partitions`: "hourly", "daily" or "none". `refresh`: the cron schedule (UTC). `reach`: how far back before `{end}`
    its relations hold rows (all of them, if it is not said).
    """

    kind: ClassVar[str] = "batch view"

    sources: Sequence[AnySource]
    features: Sequence[Feature]
    partitions: str = "daily"
    refresh: str | None = None
    ttl: str | None = None
    reach: str | None = None
    history_start: str | None = None
    history: str | None = None
    code: str = ""
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}
    compute: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        where = f"View {self.name!r}"
        _check_head(where, self)
        features = checked_list(where, "features", self.features, "[Feature('score', Float64, default=0.0)]")
        msgspec.structs.force_setattr(self, "features", features)
        for feature in features:
            if not isinstance(feature, Feature):
                raise DefinitionError(
                    f"{where}: {feature!r} is not a Feature; expected e.g. Feature('score', Float64, default=0.0)"
                )
        _check_outputs(where, self)
        sources = checked_list(where, "sources", self.sources, "[weather]")
        msgspec.structs.force_setattr(self, "sources", sources)
        _check_sources(where, sources)
        _check_unique(where, [f.name for f in self.features])
        if self.partitions not in PARTITIONS:
            raise DefinitionError(f"{where}: partitions={self.partitions!r}; expected one of {', '.join(PARTITIONS)}")
        declared_us(f"{where}: ttl", self.ttl)
        declared_us(f"{where}: reach", self.reach)
        check_cron(where, self.refresh)
        _check_history(where, self.history)
        if self.history_start is not None:
            check_day(where, "history_start", self.history_start)
        if self.partitions != "none" and self.first_day is None:
            raise DefinitionError(f"{where} has partitions but no history_start; write history_start='YYYY-MM-DD'")

    @property
    def first_day(self) -> str | None:
        """The UTC date on which its partitions begin: its own, or the earliest of its event sources'."""
        starts = [s.history_start for s in self.sources if isinstance(s, EventSource)]
        return self.history_start or min(starts, default=None)

    def outputs(self) -> dict[str, Feature]:
        """Its features by name, in order."""
        return {f.name: f.resolved() for f in self.features}

    @property
    def ttl_us(self) -> int | None:
        """Microseconds of `ttl`."""
        return declared_us(self.name, self.ttl)

    @property
    def history_us(self) -> int | None:
        """Microseconds of `history`."""
        return declared_us(self.name, self.history)

    @property
    def reach_us(self) -> int | None:
        """Microseconds of `reach`."""
        return declared_us(self.name, self.reach)


AnyView = WindowedView | BatchView


def batch_view(
    *,
    entity: Entity,
    version: int,
    sources: Sequence[AnySource],
    features: Sequence[Feature],
    partitions: str = "daily",
    refresh: str | None = None,
    ttl: str | None = None,
    reach: str | None = None,
    history_start: str | None = None,
    history: str | None = None,
    owner: str = "",
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], BatchView]:
    """Declare a batch view by its function: `function(context, <source name>, …)` returns anything that Arrow can read.

    `context.sql(text)` runs DuckDB SQL over the relations, with `{start}` and `{end}` (timestamps) filled in; the
    result holds the entity's keys, the features and `event_timestamp`. A relation holds only rows that were effective
    before `{end}`.
    """

    def declare(compute: Callable[..., Any]) -> BatchView:
        code = code_of(compute)
        view = BatchView(
            name=compute.__name__,
            version=version,
            entity=entity,
            sources=sources,
            features=features,
            partitions=partitions,
            refresh=refresh,
            ttl=ttl,
            reach=reach,
            history_start=history_start,
            history=history,
            code=code,
            owner=owner,
            description=description or inspect.getdoc(compute) or "",
            tags=tags or {},
            compute=compute,
        )
        check_parameters(f"View {view.name!r}", compute, [source.name for source in view.sources])
        return view

    return declare


def _check_type(where: str, kind: Any) -> None:
    if not isinstance(kind, FeatureType):
        raise DefinitionError(f"{where} is of type {kind!r}; expected a type such as String, Int64 or Decimal(2)")


def _check_head(where: str, view: WindowedView | BatchView) -> None:
    check_name("View", view.name)
    check_version(where, view.version)
    check_labels(where, view)
    if not isinstance(view.entity, Entity):
        raise DefinitionError(f"{where}: entity={view.entity!r} is not an Entity")


def _check_history(where: str, text: str | None) -> None:
    step_us = declared_us(f"{where}: history", text)
    if step_us is not None and (DAY_US % step_us or step_us < MINUTE_US):
        raise DefinitionError(
            f"{where}: history={text!r} doesn't divide a day into steps of a minute or more; expected e.g. '1h' or '1d'"
        )


def _check_sources(where: str, sources: Sequence[Any]) -> None:
    if not sources:
        raise DefinitionError(f"{where} has no sources; name what it reads")
    for source in sources:
        if isinstance(source, Sessionize):
            raise DefinitionError(
                f"{where}: {source.name!r} is sessions, of which only a WindowedView can be; a batch view reads "
                f"their events ({source.source.name!r}) and makes of them what it needs"
            )
        if not isinstance(source, AnySource):
            raise DefinitionError(f"{where}: source {source!r} is not an EventSource or TableSource")
    names = [source.name for source in sources]
    if len(set(names)) != len(names):
        raise DefinitionError(f"{where} names a source twice: {', '.join(names)}")


def _check_outputs(where: str, view: WindowedView | BatchView) -> None:
    if not 1 <= len(view.outputs()) <= FEATURES_MAX:
        raise DefinitionError(f"{where} has {len(view.outputs())} features; expected 1 to {FEATURES_MAX}")
    for name in view.outputs():
        check_name(f"{where}: feature", name)
        if name in view.entity.keys:
            raise DefinitionError(
                f"{where}: feature {name!r} is also a key of entity {view.entity.name!r}; choose another name"
            )


def _check_keys(where: str, entity: Entity, source: EventSource) -> None:
    for column, kind in entity.keys.items():
        if column not in source.schema:
            raise DefinitionError(
                f"{where}: source {source.name!r} has no column {column!r}, a key of {entity.name!r}. "
                f"{suggestion(column, source.schema)}"
            )
        if type(source.schema[column]) is not type(kind):
            raise DefinitionError(
                f"{where}: {column!r} is {source.schema[column]} in {source.name!r} "
                f"and {kind} in entity {entity.name!r}"
            )


def _check_unique(where: str, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise DefinitionError(f"{where} has two features named {twice[0]!r}; give one another name")
    check_cases(where, "feature", names)
