"""Every declaration that is refused, with the exact sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from forebay import (
    Bool,
    Count,
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
    Last,
    Max,
    Mean,
    RedisStream,
    SecondsSince,
    StdDev,
    String,
    Sum,
    TableSource,
    Timestamp,
    WindowedView,
    batch_view,
)
from forebay.errors import DefinitionError, UnknownNameError
from tests.language.shop import PEOPLE, SCHEMA, SCORE, SHOP, SPEND, USER, but


def source(**fields: Any) -> EventSource:
    return EventSource(**{"name": "shop", "schema": SCHEMA, "timestamp": "ts", "event_id": "event_id", **fields})


def view(*features: Any, **fields: Any) -> WindowedView:
    given = list(features) or [Count("n", windows=["1h"], default=0)]
    return WindowedView(**{"name": "v", "version": 1, "entity": USER, "source": SHOP, "features": given, **fields})


def batch(**fields: Any) -> Any:
    return but(SCORE, **fields)


def declared(function: Callable[..., Any], **fields: Any) -> Any:
    given = {"entity": USER, "version": 1, "sources": [PEOPLE], "features": SCORE.features, "partitions": "none"}
    return batch_view(**{**given, **fields})(function)


def by_another_name(context: Any, persons: Any) -> Any:
    return persons


READ_FROM_NOWHERE: dict[str, Any] = {}
exec("def typed_in(context, people):\n    return people", READ_FROM_NOWHERE)

CASES: dict[str, tuple[Callable[[], Any], str]] = {
    # names
    "entity name": (
        lambda: Entity("1st", keys={"id": String}),
        "Entity '1st' cannot be a name; expected a letter, then letters, digits or single underscores, at most 64",
    ),
    "no text as a name": (
        lambda: Entity(7, keys={"id": String}),
        "Entity 7 cannot be a name; expected a letter, then letters, digits or single underscores, at most 64",
    ),
    "reserved": (
        lambda: source(schema={**SCHEMA, "date": String}),
        "EventSource 'shop': column 'date' is reserved for Forebay's own columns; choose another name",
    ),
    "version": (lambda: view(version=0), "View 'v': version=0; expected a whole number from 1"),
    "version of a kind": (lambda: view(version=True), "View 'v': version=True; expected a whole number from 1"),
    "service version": (
        lambda: FeatureService("s", version="1", features=[SPEND]),
        "FeatureService 's': version='1'; expected a whole number from 1",
    ),
    # types
    "decimal scale": (lambda: Decimal(13), "Decimal(13) is out of bounds; expected a scale of 0 to 12"),
    "decimal text": (lambda: Decimal("2"), "Decimal('2') is out of bounds; expected a scale of 0 to 12"),
    "string bound": (lambda: String(max_bytes=0), "String(max_bytes=0) is out of bounds; expected 1 to 256"),
    "no type": (
        lambda: source(schema={**SCHEMA, "amount": Decimal}),
        (
            "EventSource 'shop': column 'amount' is <class 'forebay.language.types.DecimalType'>; "
            "expected a type such as String, Int64 or Decimal(2)"
        ),
    ),
    # entities
    "keys as a list": (
        lambda: Entity("user", keys=["user_id"]),
        "Entity 'user': keys=['user_id'] is not a dictionary; write e.g. keys={'user_id': String}",
    ),
    "no keys": (
        lambda: Entity("user", keys={}),
        "Entity 'user' has 0 keys; expected 1 to 8, e.g. {'user_id': String}",
    ),
    "key type": (
        lambda: Entity("user", keys={"score": Float64}),
        f"Entity 'user': key 'score' is {Float64!r}; expected String or Int64",
    ),
    "keys in two cases": (
        lambda: Entity("user", keys={"id": String, "ID": String}),
        "Entity 'user': keys 'id' and 'ID' differ in upper and lower case alone; rename one",
    ),
    "key of tiles": (
        lambda: Entity("user", keys={"hop_us": Int64}),
        "Entity 'user': key 'hop_us' is a column of every tiles table; choose another name",
    ),
    # sources
    "schema as a list": (
        lambda: source(schema=["ts"]),
        (
            "EventSource 'shop': schema=['ts'] is not a dictionary; "
            "write e.g. schema={'user_id': String, 'ts': Timestamp}"
        ),
    ),
    "no columns": (
        lambda: source(schema={}),
        "EventSource 'shop' has an empty schema; name its columns and their types",
    ),
    "columns in two cases": (
        lambda: source(schema={**SCHEMA, "Note": String}),
        "EventSource 'shop': columns 'note' and 'Note' differ in upper and lower case alone; rename one",
    ),
    "timestamp": (
        lambda: source(timestamp="tss"),
        "EventSource 'shop': timestamp='tss' is not a Timestamp column of the schema. Did you mean 'ts'?",
    ),
    "timestamp of another type": (
        lambda: source(timestamp="note"),
        "EventSource 'shop': timestamp='note' is not a Timestamp column of the schema. Known: 'ts'.",
    ),
    "event id": (
        lambda: source(event_id="id"),
        (
            "EventSource 'shop': event_id='id' is not a String column of the schema. "
            "Did you mean 'kind'? Or write event_id=content_hash."
        ),
    ),
    "event id of another kind": (
        lambda: source(event_id=None),
        "EventSource 'shop': event_id=None; expected a text that is not empty",
    ),
    "another event id": (
        lambda: source(event_id="note"),
        "EventSource 'shop': column 'event_id' is not its event_id, and the archive has one of that name; rename it",
    ),
    "lateness": (
        lambda: source(lateness="8d"),
        "EventSource 'shop': lateness='8d' is longer than 7d; repair later events by a backfill instead",
    ),
    "lateness of a kind": (
        lambda: source(lateness=600),
        (
            "EventSource 'shop': lateness: 600 is not a duration; "
            "write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        ),
    ),
    "dedupe": (
        lambda: source(dedupe="2d"),
        (
            "EventSource 'shop': dedupe='2d' is longer than 1d, and all events of it are remembered; "
            "expected how long a producer may repeat itself, such as '10m'"
        ),
    ),
    "skew": (
        lambda: source(max_skew=None),
        "EventSource 'shop': max_skew: a duration is missing; write one such as '10m'",
    ),
    "history": (
        lambda: source(history_start="20240101"),
        "EventSource 'shop': history_start='20240101' is not a date; write YYYY-MM-DD",
    ),
    "stream": (
        lambda: source(stream="shop.ndjson"),
        "EventSource 'shop': stream='shop.ndjson'; expected FileStream(path), KafkaTopic(topic) or RedisStream(key)",
    ),
    "stream path": (lambda: FileStream(""), "FileStream: path=''; expected a text that is not empty"),
    "stream partitions": (
        lambda: RedisStream("k", partitions=0),
        "RedisStream 'k': partitions=0; expected 1 to 1024",
    ),
    "stream chunks": (
        lambda: RedisStream("k", chunked="yes"),
        "RedisStream 'k': chunked='yes'; expected True or False",
    ),
    "stream trim": (lambda: RedisStream("k", trim=1), "RedisStream 'k': trim=1; expected True or False"),
    "stream topic": (
        lambda: KafkaTopic("shop/events"),
        "KafkaTopic 'shop/events': expected 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'",
    ),
    "stream brokers": (
        lambda: KafkaTopic("shop", brokers="sasl://me:secret@kafka:9092"),
        (
            "KafkaTopic 'shop': brokers is not of the form 'host:port,host:port'; "
            "user names and passwords belong into FOREBAY_KAFKA_SASL_USERNAME and FOREBAY_KAFKA_SASL_PASSWORD"
        ),
    ),
    "stream format": (
        lambda: KafkaTopic("shop", format=cast("Any", "jsonl")),
        "KafkaTopic 'shop': format='jsonl'. Did you mean 'json'?",
    ),
    "stream epoch": (
        lambda: KafkaTopic("shop", epoch=-1),
        "KafkaTopic 'shop': epoch=-1; expected 0, or 1 more than before",
    ),
    "tags": (
        lambda: source(tags={"a": 1}),
        "EventSource 'shop': tags={'a': 1}; expected texts by name, e.g. tags={'domain': 'shop'}",
    ),
    "owner": (lambda: source(owner=None), "EventSource 'shop': owner=None is not a text"),
    "table without rows": (
        lambda: TableSource("t", schema=PEOPLE.schema, effective="at"),
        "TableSource 't' has neither path nor sql; say where its rows are",
    ),
    "table path": (
        lambda: TableSource("t", schema=PEOPLE.schema, effective="at", path=" "),
        "TableSource 't': path=' '; expected a text that is not empty",
    ),
    "table effective": (
        lambda: TableSource("t", schema=PEOPLE.schema, effective="age", path="x"),
        "TableSource 't': effective='age' is not a Timestamp column of the schema. Known: 'at'.",
    ),
    # aggregations
    "no windows": (
        lambda: Count("n", default=0),
        "Count 'n' has 0 windows; expected 1 to 16, e.g. windows=['1h', '7d'], or windows=[None] for the lifetime",
    ),
    "windows as a text": (
        lambda: Count("n", windows="24h", default=0),
        "Count 'n': windows='24h' is not a list; write e.g. windows=['1h', '7d']",
    ),
    "window of a kind": (
        lambda: Count("n", windows=[24], default=0),
        (
            "Count 'n': window: 24 is not a duration; "
            "write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        ),
    ),
    "window twice": (
        lambda: Count("n", windows=["1h", "1h"], default=0),
        "Count 'n' names a window twice; each yields one feature",
    ),
    "too long a window": (
        lambda: Count("n", windows=["3661d"], default=0),
        "Count 'n': window '3661d' is longer than ten years; write None for the lifetime",
    ),
    "hop": (
        lambda: Count("n", windows=["1h"], hop="7m", default=0),
        "Count 'n': hop '7m' of window '1h' must divide a day, be at least 1s and at most the window",
    ),
    "hop longer than the window": (
        lambda: Count("n", windows=["1h"], hop="6h", default=0),
        "Count 'n': hop '6h' of window '1h' must divide a day, be at least 1s and at most the window",
    ),
    "no default": (
        lambda: Count("n", windows=["1h"]),
        "Count 'n' names no default; say what an entity without events gets, e.g. default=0 (or None for null)",
    ),
    "of nothing": (
        lambda: Sum("s", windows=["1h"], default=0),
        "Sum 's' does not say of what; write of='<column>'",
    ),
    "seconds since a column": (
        lambda: SecondsSince("s", of="amount", windows=["1h"], default=0),
        "SecondsSince 's' looks at events, not at a column; leave out of='amount'",
    ),
    # windowed views
    "entity": (lambda: view(entity="user"), "View 'v': entity='user' is not an Entity"),
    "source": (lambda: view(source="shop"), "View 'v': source='shop' is not an EventSource"),
    "missing key": (
        lambda: view(entity=Entity("user", keys={"userid": String})),
        "View 'v': source 'shop' has no column 'userid', a key of 'user'. Did you mean 'user_id'?",
    ),
    "key of another type": (
        lambda: view(entity=Entity("user", keys={"user_id": Int64})),
        "View 'v': 'user_id' is String in 'shop' and Int64 in entity 'user'",
    ),
    "features alone": (
        lambda: view(features=Count("n", windows=["1h"], default=0)),
        (
            f"View 'v': features={Count('n', windows=['1h'], default=0)!r} is not a list; "
            "write e.g. features=[Count('n', windows=['1h'], default=0)]"
        ),
    ),
    "no features": (lambda: view(features=[]), "View 'v' has 0 features; expected 1 to 500"),
    "no aggregation": (
        lambda: view(Feature("f", Int64, default=0)),
        (
            f"View 'v': {Feature('f', Int64, default=0)!r} is not an aggregation; "
            "expected Count, Sum, Mean, … over windows"
        ),
    ),
    "unknown column": (
        lambda: view(Sum("s", of="amuont", windows=["1h"], default=0)),
        "View 'v': Sum 's' is of 'amuont', which 'shop' does not have. Did you mean 'amount'?",
    ),
    "sum of text": (
        lambda: view(Sum("s", of="note", windows=["1h"], default=0)),
        "View 'v': Sum 's': Sum cannot be taken of String; it needs numbers",
    ),
    "max of text": (
        lambda: view(Max("m", of="note", windows=["1h"], default=0)),
        "View 'v': Max 'm': Max cannot be taken of String; it needs numbers or instants",
    ),
    "mean of truth": (
        lambda: view(Mean("m", of="new", windows=["1h"], default=0), source=source(schema={**SCHEMA, "new": Bool})),
        "View 'v': Mean 'm': Mean needs numbers: derive one, e.g. Derived(\"CASE WHEN new THEN 1 ELSE 0 END\", Int64)",
    ),
    "deviation of instants": (
        lambda: view(StdDev("d", of="ts", windows=["1h"], default=0)),
        "View 'v': StdDev 'd': StdDev cannot be taken of Timestamp; it needs numbers",
    ),
    "last of unbounded text": (
        lambda: view(Last("l", of="note", windows=["1h"], default="")),
        (
            "View 'v': Last 'l': Last keeps the text in every tile, so it must be bounded: "
            "declare the column as String(max_bytes=32)"
        ),
    ),
    "default of another type": (
        lambda: view(Count("n", windows=["1h"], default="none")),
        "View 'v': Count 'n': default 'none' is not an Int64; expected a whole number of 64 bits",
    ),
    "default that does not fit": (
        lambda: view(
            Last("l", of="note", windows=["1h"], default="unknown"),
            source=source(schema={**SCHEMA, "note": String(max_bytes=4)}),
        ),
        (
            "View 'v': Last 'l': default 'unknown' is not a String(max_bytes=4); "
            "expected at most 4 UTF-8 bytes and no NUL"
        ),
    ),
    "infinite default": (
        lambda: view(Mean("m", of="amount", windows=["1h"], default=float("inf"))),
        "View 'v': Mean 'm': default inf is not a Float64; expected a finite number",
    ),
    "two features of a name": (
        lambda: view(Count("n", windows=["1h"], default=0), Sum("n", of="amount", windows=["24h", "1h"], default=0)),
        "View 'v' has two features named 'n_1h'; give one another name",
    ),
    "features in two cases": (
        lambda: view(Count("n", windows=["1h"], default=0), Count("N", windows=["1h"], default=0)),
        "View 'v': features 'n_1h' and 'N_1h' differ in upper and lower case alone; rename one",
    ),
    "hops that do not fit": (
        lambda: view(
            Count("n", windows=["1h"], hop="15s", default=0), Count("m", windows=["1h"], hop="20s", default=0)
        ),
        "View 'v': hops 15s and 20s do not divide one another; declare hop= so that they do",
    ),
    "where": (lambda: view(where=" "), "View 'v': where=' '; expected a text that is not empty"),
    "derived as a text": (
        lambda: view(derived={"net": "amount * 2"}),
        "View 'v': derived column 'net' is 'amount * 2'; expected Derived(sql, type)",
    ),
    "derived without a type": (
        lambda: Derived("amount * 2", "Decimal"),
        "Derived('amount * 2') is of type 'Decimal'; expected a type such as String, Int64 or Decimal(2)",
    ),
    "derived hides": (
        lambda: view(derived={"Amount": Derived("pieces", Int64)}),
        "View 'v': derived column 'Amount' hides a column of 'shop'; choose another name",
    ),
    "ttl": (
        lambda: view(ttl="1 month"),
        (
            "View 'v': ttl: '1 month' is not a duration; "
            "write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        ),
    ),
    "cron": (
        lambda: view(refresh="hourly"),
        "View 'v': refresh='hourly' is not a cron schedule; expected five fields such as '0 * * * *' (hourly)",
    ),
    "cron field": (
        lambda: view(refresh="0 24 * * *"),
        "View 'v': refresh='0 24 * * *': '24' is not a hour; expected 0 to 23, '*', '*/5', '1-5' or '1,2'",
    ),
    "unknown feature": (
        lambda: SPEND["paid_24"],
        "View 'spend@1' has no feature 'paid_24'. Did you mean 'paid_24h'?",
    ),
    # batch views
    "feature type": (
        lambda: Feature("f", "Float64", default=0),
        "Feature 'f' is of type 'Float64'; expected a type such as String, Int64 or Decimal(2)",
    ),
    "feature default": (
        lambda: Feature("f", Float64),
        "Feature 'f' names no default; say what an unknown entity gets, e.g. default=0 (or None for null)",
    ),
    "feature default of another type": (
        lambda: Feature("f", Bool, default=0),
        "Feature 'f': default 0 is not a Bool; expected true or false",
    ),
    "no feature": (
        lambda: batch(features=[Count("n", windows=["1h"], default=0)]),
        (
            f"View 'score': {Count('n', windows=['1h'], default=0)!r} is not a Feature; "
            "expected e.g. Feature('score', Float64, default=0.0)"
        ),
    ),
    "feature is a key": (
        lambda: batch(features=[Feature("user_id", String, default=None)]),
        "View 'score': feature 'user_id' is also a key of entity 'user'; choose another name",
    ),
    "no sources": (lambda: batch(sources=[]), "View 'score' has no sources; name what it reads"),
    "source alone": (
        lambda: batch(sources=PEOPLE),
        f"View 'score': sources={PEOPLE!r} is not a list; write e.g. sources=[weather]",
    ),
    "source by name": (
        lambda: batch(sources=["people"]),
        "View 'score': source 'people' is not an EventSource or TableSource",
    ),
    "source twice": (
        lambda: batch(sources=[PEOPLE, PEOPLE]),
        "View 'score' names a source twice: people, people",
    ),
    "partitions": (
        lambda: batch(partitions="weekly"),
        "View 'score': partitions='weekly'; expected one of 'hourly', 'daily', 'none'",
    ),
    "no history": (
        lambda: batch(sources=[PEOPLE]),
        "View 'score' has partitions but no history_start; write history_start='YYYY-MM-DD'",
    ),
    "history of a kind": (
        lambda: batch(history_start=2024),
        "View 'score': history_start=2024 is not a date; write YYYY-MM-DD",
    ),
    "parameters": (
        lambda: declared(by_another_name),
        (
            "View 'by_another_name': its function takes (context, persons); "
            "expected (context, people): the context, then its sources"
        ),
    ),
    "lambda": (
        lambda: declared(lambda context, people: people),
        "View '<lambda>': its code cannot be read; declare it by a function in a file: def <name>(context, …)",
    ),
    "typed in": (
        lambda: declared(READ_FROM_NOWHERE["typed_in"]),
        "View 'typed_in': its code cannot be read; declare it by a function in a file: def <name>(context, …)",
    ),
    # services
    "service of nothing": (
        lambda: FeatureService("s", version=1, features=[]),
        "FeatureService 's' has no features; name views or view['feature']",
    ),
    "service of names": (
        lambda: FeatureService("s", version=1, features=["spend@1"]),
        "FeatureService 's': 'spend@1' is not a view or a selection such as view['score']",
    ),
    "service of one": (
        lambda: FeatureService("s", version=1, features=SPEND),
        f"FeatureService 's': features={SPEND!r} is not a list; write e.g. features=[view, other['score']]",
    ),
    "service with a name twice": (
        lambda: FeatureService("s", version=1, features=[SPEND, but(SPEND, version=2)["paid_24h"]]),
        (
            "FeatureService 's': feature 'paid_24h' comes from 'spend@1' and 'spend@2'; "
            "select the features you need, e.g. view['score'], or rename one"
        ),
    ),
}


@pytest.mark.parametrize(("declare", "sentence"), CASES.values(), ids=CASES.keys())
def test_a_wrong_declaration_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    with pytest.raises((DefinitionError, UnknownNameError)) as caught:
        declare()
    assert str(caught.value) == sentence


def test_a_declaration_keeps_its_own_copy_of_what_it_was_given() -> None:
    keys = {"user_id": String}
    entity = Entity("user", keys=keys)
    keys["other"] = Timestamp
    assert entity.keys == {"user_id": String}


def test_a_default_takes_the_form_of_its_type() -> None:
    assert str(SPEND.outputs()["paid_24h"].default) == "0.50"
    assert type(SPEND.outputs()["net_mean_7d"].default) is float
    assert SCORE.outputs()["since"].default.tzinfo is not None
