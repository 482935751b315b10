"""Windowed views: aggregates over windows of events of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from forebay.errors import DefinitionError, suggestion
from forebay.language.aggregations import Aggregation, explain_refusal
from forebay.language.arguments import check_cases, check_text, checked_list, checked_mapping
from forebay.language.defaults import checked_default, default_of
from forebay.language.derived import Derived
from forebay.language.durations import declared_us
from forebay.language.entity import Entity
from forebay.language.feature import Feature, check_features, check_unique
from forebay.language.keeping import check_windows_kept
from forebay.language.names import check_name
from forebay.language.schedule import check_cron
from forebay.language.selection import EntityView, check_head, check_history
from forebay.language.sessions import OVER, SESSION_ID_BYTES, SESSION_SCHEMA, Sessionize, explain_source
from forebay.language.source import EventSource
from forebay.language.types import AnyType
from forebay.language.windows import check_hops


class WindowedView(EntityView, frozen=True, cache_hash=True):
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
        check_head(where, self)
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
        check_features(where, self.entity, self.outputs())
        windows = [f.window(w) for f in self.features for w in f.windows]
        check_hops(where, windows)
        check_windows_kept(where, self.source, windows, sessions=self.sessions is not None)
        check_unique(where, [f.feature_name(w) for f in self.features for w in f.windows])
        for name, text in (("ttl", self.ttl), ("freshness", self.freshness), ("retention", self.retention)):
            declared_us(f"{where}: {name}", text)
        check_cron(where, self.refresh)
        check_history(where, self.history)

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


def _check_keys(where: str, entity: Entity, source: EventSource) -> None:
    for column, kind in entity.keys.items():
        if column not in source.schema:
            raise DefinitionError(
                f"{where}: source {source.name!r} has no column {column!r}, a key of {entity.name!r}. "
                f"{suggestion(column, source.schema)}"
            )
        if len(source.names_of(column)) > 1:
            raise DefinitionError(
                f"{where}: {column!r}, a key of {entity.name!r}, is renamed in {source.name!r}; keys keep their name, "
                "since everything stored is found by them"
            )
        if type(source.schema[column]) is not type(kind):
            raise DefinitionError(
                f"{where}: {column!r} is {source.schema[column]} in {source.name!r} "
                f"and {kind} in entity {entity.name!r}"
            )
