"""Batch views: rows that a function computes per partition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from forebay.errors import DefinitionError
from forebay.language.arguments import checked_list
from forebay.language.code import check_parameters, code_of
from forebay.language.durations import declared_us
from forebay.language.entity import Entity
from forebay.language.feature import Feature, check_features, check_unique, checked_features
from forebay.language.keeping import check_reach_kept
from forebay.language.schedule import check_cron, check_day
from forebay.language.selection import EntityView, check_head, check_history
from forebay.language.sessions import Sessionize
from forebay.language.source import AnySource, EventSource

PARTITIONS = ("hourly", "daily", "none")


class BatchView(EntityView, frozen=True):
    """Rows that a function computes per partition from its sources. Made by the decorator `batch_view`.

    `partitions`: "hourly", "daily" or "none". `refresh`: the cron schedule (UTC). `reach`: how far back before `{end}`
    its relations hold rows (all of them, if it is not said). `keep`: how long rows that a later computation replaced
    are kept (for ever, if it is not said).
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
    keep: str | None = None
    code: str = ""
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}
    compute: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        where = f"View {self.name!r}"
        check_head(where, self)
        features = checked_features(where, self.features, "Feature('score', Float64, default=0.0)")
        msgspec.structs.force_setattr(self, "features", features)
        check_features(where, self.entity, self.outputs())
        sources = checked_list(where, "sources", self.sources, "[weather]")
        msgspec.structs.force_setattr(self, "sources", sources)
        _check_sources(where, sources)
        check_unique(where, [f.name for f in self.features])
        if self.partitions not in PARTITIONS:
            known = ", ".join(map(repr, PARTITIONS))
            raise DefinitionError(f"{where}: partitions={self.partitions!r}; expected one of {known}")
        declared_us(f"{where}: ttl", self.ttl)
        declared_us(f"{where}: keep", self.keep)
        reach_us = declared_us(f"{where}: reach", self.reach)
        for source in sources:
            if isinstance(source, EventSource):
                check_reach_kept(where, source, reach_us)
        check_cron(where, self.refresh)
        check_history(where, self.history)
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
    def keep_us(self) -> int | None:
        """Microseconds of `keep`."""
        return declared_us(self.name, self.keep)

    @property
    def reach_us(self) -> int | None:
        """Microseconds of `reach`."""
        return declared_us(self.name, self.reach)


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
    keep: str | None = None,
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
            keep=keep,
            code=code,
            owner=owner,
            description=description or inspect.getdoc(compute) or "",
            tags=tags or {},
            compute=compute,
        )
        check_parameters(f"View {view.name!r}", compute, [source.name for source in view.sources])
        return view

    return declare


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
