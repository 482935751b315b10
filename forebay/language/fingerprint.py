"""What of a definition changes values, and its fingerprint.

A signature maps a readable path to each fact that decides values, so that two signatures can be compared line by line;
a fingerprint is its hash. Owners, descriptions, tags, freshness, retention, the refresh of a windowed view and the
places where data lie are not in it. Of a batch view's function we know a hash of its code and not which columns it
reads: the columns of its sources are the business of the plan, which lets them grow and nothing else.

    windowed view   entity keys · source: name, timestamp, event_id, dedupe, types and former names of the columns it
                    uses · sessions: gap, longest · where · derived · per feature: aggregation, of, window, hop,
                    default · ttl
    batch view      entity keys · per source: name, dedupe, effective column, sql · partitions · refresh · reach · ttl ·
                    per feature: type, default · code
    on-demand view  per input: the view · per column of the request: type · per feature: type, default · code
    service         the pinned features, in order
    source          types and former names of all columns · timestamp, event_id, dedupe (effective, sql)
    entity          keys, in order
"""

from __future__ import annotations

import datetime
import decimal
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from forebay.instants import duration_text, instant_text, instant_us
from forebay.language.entity import Entity
from forebay.language.feature import Feature
from forebay.language.on_demand import OnDemandView, ServedView
from forebay.language.renaming import former_names
from forebay.language.service import FeatureService
from forebay.language.source import AnySource, EventSource
from forebay.language.statistics import Statistic
from forebay.language.types import AnyType, FeatureType, Float64, ListType
from forebay.language.view import AnyView, WindowedView

Fact = str | int | float | bool | None
Signature = dict[str, Fact]

FINGERPRINT_LENGTH = 16
"""64 bits in hexadecimal: versions of one name are few, so a collision is out of the question."""
_WORD = re.compile(r"'(?:[^']|'')*'|\"(?P<quoted>(?:[^\"]|\"\")+)\"|(?P<bare>[A-Za-z_]\w*)")


def fingerprint(definition: ServedView | FeatureService | AnySource | Entity) -> str:
    """16 hexadecimal digits that change iff something changes that decides values."""
    text = msgspec.json.encode(signature(definition), order="sorted")
    return hashlib.sha256(text).hexdigest()[:FINGERPRINT_LENGTH]


def signature(definition: ServedView | FeatureService | AnySource | Entity) -> Signature:
    """Each fact that decides values, by a readable path such as `features.spend_24h.default`."""
    return dict(_facts(definition))


def used_columns(view: WindowedView) -> list[str]:
    """The columns of its source that a windowed view reads, in the order of the schema.

    A word of a SQL expression that is called like a column counts as the column: rather one too many.
    """
    expressions = [view.where or "", *(derived.sql for derived in view.derived.values())]
    words = {word for text in expressions for word in _words(text)}
    if view.sessions is not None:
        return [c for c in view.source.schema if c in {*view.entity.keys, view.source.timestamp, view.source.event_id}]
    named = {*view.entity.keys, view.source.timestamp, view.source.event_id, *(f.of for f in view.features)}
    return [column for column in view.source.schema if column in named or column.casefold() in words]


def _words(sql: str) -> Iterator[str]:
    """Identifiers in a SQL expression, folded; texts in single quotes are passed over."""
    for match in _WORD.finditer(sql):
        word = match["quoted"] or match["bare"]
        if word:
            yield word.replace('""', '"').casefold()


def _facts(definition: ServedView | FeatureService | AnySource | Entity) -> Iterator[tuple[str, Fact]]:
    if isinstance(definition, Entity):
        yield "keys", _columns_text(definition)
    elif isinstance(definition, FeatureService):
        for position, (view, name) in enumerate(definition.columns()):
            yield f"features.{position}", f"{view.key}:{name}"
    elif isinstance(definition, WindowedView):
        yield from _windowed_facts(definition)
    elif isinstance(definition, OnDemandView):
        yield from _on_demand_facts(definition)
    elif isinstance(definition, AnySource):
        yield from _source_facts(definition)
        for column, kind in definition.schema.items():
            yield f"schema.{column}", str(kind)
        if isinstance(definition, EventSource):
            yield from _renaming_facts(definition, "", definition.schema)
    else:
        yield from _batch_facts(definition)


def _windowed_facts(view: WindowedView) -> Iterator[tuple[str, Fact]]:
    yield "entity.keys", _columns_text(view.entity)
    yield "source", view.source.name
    for name, fact in _source_facts(view.source):
        yield f"source.{name}", fact
    for column in used_columns(view):
        yield f"source.schema.{column}", str(view.source.schema[column])
        yield from _renaming_facts(view.source, "source.", [column])
    if view.sessions is not None:
        yield "sessions.gap", _duration(view.sessions.gap_us)
        yield "sessions.longest", _duration(view.sessions.longest_us)
    yield "where", view.where
    for column, derived in view.derived.items():
        yield f"derived.{column}", f"{derived.sql} AS {derived.type}"
    for feature in view.features:
        output = feature.output(view.column(feature.of))
        for text in feature.windows:
            path, window = f"features.{feature.feature_name(text)}", feature.window(text)
            yield f"{path}.aggregation", type(feature).__name__
            yield f"{path}.of", feature.of
            for name, value in feature.parameters(view.column(feature.of)).items():
                yield f"{path}.{name}", _parameter(view.column(feature.of), value)
            yield f"{path}.window", _duration(window.length_us)
            yield f"{path}.hop", _duration(window.hop_us)
            yield f"{path}.default", _default(output, feature.default)
    yield "ttl", _duration(view.ttl_us)


def _batch_facts(view: AnyView) -> Iterator[tuple[str, Fact]]:
    assert not isinstance(view, WindowedView)
    yield "entity.keys", _columns_text(view.entity)
    for source in view.sources:
        for name, fact in _source_facts(source):
            yield f"sources.{source.name}.{name}", fact
    yield "partitions", view.partitions
    yield "refresh", view.refresh
    yield "reach", _duration(view.reach_us)
    yield from _feature_facts(view.features)
    yield "ttl", _duration(view.ttl_us)
    yield "code", view.code


def _on_demand_facts(view: OnDemandView) -> Iterator[tuple[str, Fact]]:
    for name, (of, _) in sorted(view.arguments().items()):
        yield f"inputs.{name}", of.key
    for name, kind in sorted(view.request.items()):
        yield f"request.{name}", str(kind)
    yield from _feature_facts(view.features)
    yield "code", view.code


def _feature_facts(features: Iterable[Feature]) -> Iterator[tuple[str, Fact]]:
    for feature in features:
        yield f"features.{feature.name}.type", str(feature.type)
        yield f"features.{feature.name}.default", _default(feature.type, feature.default)


def _source_facts(source: AnySource) -> Iterator[tuple[str, Fact]]:
    """What decides which rows a source holds and when they hold; its columns apart."""
    if isinstance(source, EventSource):
        yield "timestamp", source.timestamp
        yield "event_id", source.event_id
        if source.dedupe is not None:  # no fact where it is not declared: so fingerprints from before it stay
            yield "dedupe", _duration(source.dedupe_us)
    else:
        yield "effective", source.effective
        yield "sql", source.sql


def _renaming_facts(source: EventSource, where: str, columns: Iterable[str]) -> Iterator[tuple[str, Fact]]:
    """What columns were called before; no fact of a column that always was called so."""
    for column in columns:
        if formers := former_names(column, source.renamed):
            yield f"{where}renamed.{column}", ", ".join(formers)


def _columns_text(entity: Entity) -> str:
    return ", ".join(f"{column}: {kind}" for column, kind in entity.keys.items())


def _parameter(column: AnyType | None, value: Any) -> Fact:
    """An argument of an aggregation: a fact, or a list of values of its column."""
    if not isinstance(value, tuple):
        fact: Fact = value
        return fact
    assert column is not None
    return _default(ListType(column), value)


def _duration(us: int | None) -> str | None:
    return None if us is None else duration_text(us)


def _default(kind: FeatureType, default: Any) -> Fact:
    """The default as its type holds it, so that 0, 0.0 and Decimal("0.00") of a Decimal(2) are one."""
    if isinstance(default, Statistic):  # the declaration decides; what is learned is a deliberate act of its own
        return f"{default}, otherwise {_default(kind, default.otherwise)}"
    value = kind.python(kind.units(default))
    if isinstance(value, list):
        of = kind.of if isinstance(kind, ListType) else Float64
        return msgspec.json.encode([_default(of, one) for one in value]).decode()
    if isinstance(value, decimal.Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime.datetime):
        return instant_text(instant_us(value))
    assert value is None or isinstance(value, str | int | float | bool)
    return value
