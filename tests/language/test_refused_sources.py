"""Every entity, source, type and name that is refused, with the exact sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from forebay import (
    Decimal,
    Entity,
    FeatureService,
    FileStream,
    Float64,
    Int64,
    KafkaTopic,
    RedisStream,
    String,
    TableSource,
)
from tests.language.refused import Cases, check, each, source, view
from tests.language.shop import PEOPLE, SCHEMA, SPEND

CASES: Cases = {
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
    "max_skew of a kind": (
        lambda: source(max_skew=["10m"]),
        (
            "EventSource 'shop': max_skew: ['10m'] is not a duration; "
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
    "stream compacted": (
        lambda: KafkaTopic("t", compacted="delete"),
        "KafkaTopic 't': compacted='delete'; expected True or False",
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
}


@each(CASES)
def test_a_wrong_one_is_told_what_where_and_what_to_do(declare: Callable[[], Any], sentence: str) -> None:
    check(declare, sentence)
