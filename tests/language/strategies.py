"""Definitions that hypothesis draws: valid ones, with every field of every kind in use at times."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from forebay import (
    BatchView,
    Bool,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Feature,
    FeatureService,
    FileStream,
    Float64,
    Int64,
    KafkaTopic,
    List,
    OnDemandView,
    RedisStream,
    Sessionize,
    String,
    TableSource,
    Timestamp,
    Vector,
    WindowedView,
)
from forebay.language.aggregations import AGGREGATIONS, Aggregation
from forebay.language.definitions import Definitions
from forebay.language.sessions import SESSION_SCHEMA
from forebay.language.statistics import Median, MostCommon, Percentile, Statistic
from forebay.language.types import AnyType, DecimalType, FeatureType
from tests.own_arguments import own_arguments

DURATIONS = st.sampled_from(["250ms", "30s", "10m", "1h", "24h", "7d"])
WINDOWS = st.lists(st.sampled_from(["90s", "10m", "1h", "24h", "7d", None]), min_size=1, max_size=3, unique=True)
CRONS = st.sampled_from(["@daily", "0 * * * *", "*/5 1-3 * jan mon"])
DAYS = st.dates().map(lambda day: day.isoformat())
TEXTS = st.text(max_size=8)
COLUMN_TYPES = st.one_of(
    st.sampled_from([String, Bool, Int64, Float64, Timestamp]),
    st.builds(Decimal, st.integers(0, 12)),
    st.integers(1, 64).map(lambda n: String(max_bytes=n)),
)
TYPES = st.one_of(
    COLUMN_TYPES,
    st.builds(List, COLUMN_TYPES),
    st.builds(Vector, st.integers(1, 4)),
)
STREAMS = [
    None,
    FileStream("x"),
    RedisStream("k", 3, "redis://r"),
    RedisStream("k"),
    RedisStream("k", chunked=True, trim=True),
    KafkaTopic("t"),
    KafkaTopic("t", "a:1,[::1]:9092", "protobuf", 2),
    KafkaTopic("t", compacted=True),
]
LABELS = {
    "owner": TEXTS,
    "description": TEXTS,
    "tags": st.dictionaries(TEXTS, TEXTS, max_size=2),
}


def defaults(kind: FeatureType) -> st.SearchStrategy[Any]:
    """Values of a type, in the forms that a user writes."""
    if isinstance(kind, List | Vector):
        of, size = (kind.of, None) if isinstance(kind, List) else (Float64, kind.length)
        held = defaults(of).filter(lambda value: not isinstance(value, Statistic) and of.units(value) is not None)
        return st.none() | st.lists(held, min_size=size or 0, max_size=size or 3)
    some = {
        "String": st.text("ab", max_size=1),
        "Bool": st.booleans(),
        "Int64": st.integers(-(2**63), 2**63 - 1),
        "Float64": st.floats(allow_infinity=False) | st.integers(-9, 9),
        "Timestamp": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
    }
    scale = kind.scale if isinstance(kind, DecimalType) else 0
    decimals = st.sampled_from(
        [written for written, digits in {"0.5": 1, 0: 0, -1: 0, 0.25: 2}.items() if digits <= scale]
    )
    values = st.none() | some.get(str(kind).partition("(")[0], decimals)
    return values | statistics(kind, values)


def statistics(kind: FeatureType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Statistic]:
    """Defaults of a type that are learned; none of a type of which no statistic is taken."""
    makes = [
        lambda otherwise: Median(over="30d", otherwise=otherwise),
        lambda otherwise: Percentile(percent=99.5, over="1d", otherwise=otherwise),
    ]
    if isinstance(kind, MostCommon.takes):
        makes = [lambda otherwise: MostCommon(over="7d", otherwise=otherwise)]
    elif not isinstance(kind, Statistic.takes):
        return st.nothing()
    return st.builds(lambda make, otherwise: make(otherwise), st.sampled_from(makes), values)


@st.composite
def entities(draw: st.DrawFn, name: str) -> Entity:
    """An entity with keys in any order."""
    names = draw(st.lists(st.sampled_from("kji"), min_size=1, unique=True))
    return Entity(name, keys={key: draw(st.sampled_from([String, Int64])) for key in names}, description=draw(TEXTS))


@st.composite
def event_sources(draw: st.DrawFn, name: str, entity: Entity) -> EventSource:
    """A source that holds the keys of an entity."""
    columns = draw(st.lists(st.sampled_from("dcba"), unique=True))
    own = {**entity.keys, "ts": Timestamp, "event_id": String, **{column: draw(COLUMN_TYPES) for column in columns}}
    return EventSource(
        name,
        schema={column: own[column] for column in draw(st.permutations(list(own)))},
        timestamp="ts",
        event_id="event_id",
        stream=draw(st.sampled_from(STREAMS)),
        lateness=draw(st.sampled_from(["10m", "7d"])),
        dedupe=draw(st.sampled_from([None, "30s", "1d"])),
        max_skew=draw(DURATIONS),
        history_start=draw(DAYS),
        **{label: draw(some) for label, some in LABELS.items()},
    )


@st.composite
def table_sources(draw: st.DrawFn, name: str) -> TableSource:
    """A source of rows."""
    return TableSource(
        name,
        schema={
            "at": Timestamp,
            **{column: draw(COLUMN_TYPES) for column in draw(st.lists(st.sampled_from("ba"), unique=True))},
        },
        effective="at",
        path=draw(st.sampled_from(["x.csv", None])),
        sql="SELECT 1",
        **{label: draw(some) for label, some in LABELS.items()},
    )


@st.composite
def aggregations(draw: st.DrawFn, name: str, columns: dict[str, AnyType]) -> Aggregation:
    """Any aggregation of a column that allows it."""
    kind = draw(st.sampled_from(AGGREGATIONS))
    some = [None] if not kind.of_required else []
    probe = {"windows": ["1h"], "default": None, **own_arguments(kind)}
    if kind.__name__ != "SecondsSince":
        some += [of for of, column in columns.items() if kind("probe", of=of, **probe).accepts(column)]
    if not some:
        kind, some, probe = AGGREGATIONS[0], [None], {"windows": ["1h"], "default": None}
    of = draw(st.sampled_from(some))
    column = None if of is None else columns[of]
    output = kind("probe", of=of, **probe).output(column)
    return kind(
        name,
        of=of,
        windows=draw(WINDOWS),
        default=draw(defaults(output)),
        hop=draw(st.sampled_from([None, "1s", "30s"])),
        description=draw(TEXTS),
        **own_arguments(kind, column),
    )


@st.composite
def windowed_views(draw: st.DrawFn, name: str, entity: Entity, source: EventSource) -> WindowedView:
    """A windowed view with derived columns and expressions."""
    derived = {
        f"x{n}": Derived(draw(st.text(min_size=1).filter(str.strip)), draw(COLUMN_TYPES))
        for n in range(draw(st.integers(0, 2)))
    }
    sessions = Sessionize(source, gap="30m", longest=draw(st.sampled_from(["30m", "1d"])), name="visits")
    events = draw(st.sampled_from([source, sessions]))
    columns = {
        **(SESSION_SCHEMA if events is sessions else source.schema),
        **{column: one.type for column, one in derived.items()},
    }
    return WindowedView(
        name,
        version=draw(st.integers(1, 3)),
        entity=entity,
        source=events,
        where=draw(st.none() | st.text(min_size=1).filter(str.strip)),
        derived=derived,
        features=[draw(aggregations(f"f{n}", columns)) for n in range(draw(st.integers(1, 3)))],
        ttl=draw(st.none() | DURATIONS),
        freshness=draw(st.none() | DURATIONS),
        retention=draw(st.none() | DURATIONS),
        history=draw(st.sampled_from([None, "15m", "1h", "1d"])),
        refresh=draw(st.none() | CRONS),
        **{label: draw(some) for label, some in LABELS.items()},
    )


@st.composite
def batch_views(draw: st.DrawFn, name: str, entity: Entity, sources: list[Any]) -> BatchView:
    """A batch view with a function, which a manifest does not keep."""
    kinds = {f"g{n}": draw(TYPES) for n in range(draw(st.integers(1, 3)))}
    return BatchView(
        name,
        version=draw(st.integers(1, 3)),
        entity=entity,
        sources=draw(st.permutations(sources)),
        features=[Feature(feature, kind, draw(defaults(kind)), draw(TEXTS)) for feature, kind in kinds.items()],
        partitions=draw(st.sampled_from(["hourly", "daily", "none"])),
        refresh=draw(st.none() | CRONS),
        ttl=draw(st.none() | DURATIONS),
        reach=draw(st.none() | DURATIONS),
        history_start=draw(st.none() | DAYS),
        history=draw(st.sampled_from([None, "15m", "1h", "1d"])),
        code="0123456789abcdef",
        compute=draw(st.sampled_from([None, len])),
        **{label: draw(some) for label, some in LABELS.items()},
    )


@st.composite
def on_demand_views(draw: st.DrawFn, name: str, views: list[Any]) -> OnDemandView:
    """An on-demand view with a function, which a manifest does not keep."""
    kinds = {f"h{n}": draw(TYPES) for n in range(draw(st.integers(1, 3)))}
    plain = {name: defaults(kind).filter(lambda one: not isinstance(one, Statistic)) for name, kind in kinds.items()}
    return OnDemandView(
        name,
        version=draw(st.integers(1, 3)),
        inputs=[view[tuple(draw(st.permutations(list(view.outputs()))))] for view in draw(st.permutations(views))],
        request={f"r{n}": draw(COLUMN_TYPES) for n in range(draw(st.integers(0, 3)))},
        features=[Feature(feature, kind, draw(plain[feature]), draw(TEXTS)) for feature, kind in kinds.items()],
        code="0123456789abcdef",
        compute=draw(st.sampled_from([None, len])),
        **{label: draw(some) for label, some in LABELS.items()},
    )


@st.composite
def definitions(draw: st.DrawFn) -> Definitions:
    """A whole deployment."""
    entity = draw(entities("user"))
    events, rows = draw(event_sources("shop", entity)), draw(table_sources("people"))
    windowed = draw(windowed_views("spend", entity, events))
    batch = draw(batch_views("score", entity, [events, rows]))
    whole = draw(st.booleans())
    chosen = windowed if whole else windowed[tuple(draw(st.permutations(list(windowed.outputs()))))]
    computed = draw(on_demand_views("computed", [windowed, batch]))
    service = FeatureService(
        "fraud",
        version=draw(st.integers(1, 3)),
        features=draw(st.permutations([chosen, batch, computed])),
        **{label: draw(some) for label, some in LABELS.items()},
    )
    code = Definitions.of(service)
    number = draw(st.integers(0, 9))
    return replace(code, retired={"view:old@1": "f"}, number=number)
