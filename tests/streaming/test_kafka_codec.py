"""Avro and Protobuf messages: the same columns as of JSON, and what a registry may say or not say."""

from __future__ import annotations

import datetime
import decimal
import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro import parse_schema
from google.protobuf import descriptor_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from msgspec.structs import replace as but

from forebay import KafkaTopic
from forebay.errors import ConfigError, StoreUnavailableError
from forebay.ingest.batch import MALFORMED, MISSING_TIMESTAMP, WRONG_TYPE, DeadLetter, EventBatch
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Codec, Messages, decode_rows
from streaming.kafka_codec import _judged, codecs_of
from streaming.retry import Patience
from tests.infra.kafka import Broker
from tests.infra.schema_registry import SchemaRegistry
from tests.streaming.kafka_world import KafkaWorld
from tests.streaming.world import (
    await_that,
    check_archive,
    check_dead_letters,
    check_online,
    check_streamed,
    end,
    lines,
    orders,
)

NOW_US = 1_709_400_000_000_000
Coded = Literal["avro", "protobuf"]
Serialize = Callable[[dict[str, Any]], bytes]

NULLABLE = ("user", "merchant", "kind")
AVRO = {
    "type": "record",
    "name": "Order",
    "fields": [
        {"name": "event_id", "type": "string"},
        *({"name": name, "type": ["null", "string"], "default": None} for name in NULLABLE),
        {"name": "amount", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3}]},
        {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "unknown", "type": "int", "default": 1},
    ],
}


def protobuf_file() -> descriptor_pb2.FileDescriptorProto:
    """message Other {}  message Order {…}: what protoc would make of a .proto file."""
    file = descriptor_pb2.FileDescriptorProto(name="order.proto", package="shop", syntax="proto3")
    file.dependency.extend(["google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    file.message_type.add(name="Other")
    order = file.message_type.add(name="Order")
    text, message = descriptor_pb2.FieldDescriptorProto.TYPE_STRING, descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
    order.field.add(name="event_id", number=1, type=text, label=1)
    for n, name in enumerate(NULLABLE):
        order.oneof_decl.add(name=f"_{name}")
        order.field.add(name=name, number=2 + n, type=text, label=1, proto3_optional=True, oneof_index=n)
    order.field.add(name="amount", number=5, type=message, type_name=".google.protobuf.DoubleValue", label=1)
    order.field.add(name="ts", number=6, type=message, type_name=".google.protobuf.Timestamp", label=1)
    order.field.add(name="unknown", number=7, type=descriptor_pb2.FieldDescriptorProto.TYPE_INT32, label=3)
    return file


def order_class() -> Any:
    pool = DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    pool.Add(protobuf_file())
    return GetMessageClass(pool.FindMessageTypeByName("shop.Order"))


def serializer(coded: Coded, url: str, topic: str) -> Serialize:
    """What a producer has: events in, framed bytes out."""
    client = SchemaRegistryClient({"url": url})
    context = SerializationContext(topic, MessageField.VALUE)
    if coded == "avro":
        to_avro = AvroSerializer(client, json.dumps(AVRO))
        return lambda event: to_avro(_for_avro(event), context) or b""
    order = order_class()
    to_protobuf = ProtobufSerializer(order, client, {"use.deprecated.format": False})
    return lambda event: to_protobuf(_for_protobuf(order(), event), context) or b""


def _for_avro(event: dict[str, Any]) -> dict[str, Any]:
    amount = event["amount"]
    exact = None if amount is None else decimal.Decimal(str(amount))
    return event | {"amount": exact, "ts": datetime.datetime.fromisoformat(event["ts"]), "unknown": 5}


def _for_protobuf(message: Any, event: dict[str, Any]) -> Any:
    message.event_id = event["event_id"]
    for name in NULLABLE:
        if event[name] is not None:
            setattr(message, name, event[name])
    if event["amount"] is not None:
        message.amount.value = float(event["amount"])
    message.ts.FromDatetime(datetime.datetime.fromisoformat(event["ts"]))
    message.unknown.extend([1, 2])
    return message


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    """A registry of this test's own."""
    with SchemaRegistry() as server:
        yield server


@pytest.fixture(params=["avro", "protobuf"])
def coded(request: pytest.FixtureRequest) -> Coded:
    """A format: the test runs on each."""
    return request.param


SOURCE = but(orders, stream=KafkaTopic("orders"))


def codec(coded: Coded, registry: SchemaRegistry, give_up_after_s: float = 20.0, **settings: str) -> Codec:
    source = but(SOURCE, stream=KafkaTopic("orders", format=coded))
    given = {"url": registry.url} | {name.replace("_", "."): value for name, value in settings.items()}
    return codecs_of([source], given, Patience(give_up_after_s))["orders"]


def decoded(decode: Codec, values: Sequence[bytes | None]) -> tuple[EventBatch, list[DeadLetter]]:
    return decode_rows(Messages(SOURCE, "p", 0, values), decode(values), NOW_US)


def events(count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(5, count) if line.startswith(b'{"event_id"')]


def test_messages_are_the_columns_that_their_json_is(coded: Coded, registry: SchemaRegistry) -> None:
    serialize, some = serializer(coded, registry.url, "orders"), events(300)
    batch, dead = decoded(codec(coded, registry), [serialize(event) for event in some])
    expected, none = decode_json(SOURCE, "p", 0, [json.dumps(event).encode() for event in some], NOW_US)
    assert dead == none == []
    assert batch.table.equals(expected.table)
    assert len([path for path in registry.asked if path.startswith("/schemas/ids/")]) <= 2, "a schema is asked for once"


def test_what_cannot_be_decoded_is_a_dead_letter_with_its_bytes(coded: Coded, registry: SchemaRegistry) -> None:
    good = serializer(coded, registry.url, "orders")(events(1)[0])
    values = [
        good,
        None,
        b"",
        b"{}",
        b"\x00",
        b"\x00\x00\x00\x00\x63\x00garbage",
        b"\x00\x00\x00\x00\x63\x00more garbage",
        good[:-3],
        good[:5],
        b"\x00" + bytes(70_000),
        good,
    ]
    batch, dead = decoded(codec(coded, registry), values)
    assert batch.table["source_offset"].to_pylist() == [0, 10]
    reasons = {letter.offset: letter.reason for letter in dead}
    assert reasons == {n: {1: "tombstone", 9: "too_large"}.get(n, "malformed") for n in range(1, 10)}
    assert [letter.raw for letter in dead] == [(value or b"")[: 1 << 20] for value in values[1:-1]]
    details = {letter.offset: letter.detail for letter in dead}
    assert "no schema" in details[5]
    number = int.from_bytes(good[1:5])
    assert details[7].startswith(f"by schema {number}: ")
    assert details[4].startswith("by no schema: ")
    assert registry.asked.count("/schemas/ids/99") == 1, "a schema that is not there is asked for once a chunk"


def test_a_registry_that_is_away_is_waited_for_and_nothing_becomes_a_dead_letter(
    coded: Coded, registry: SchemaRegistry
) -> None:
    good = serializer(coded, registry.url, "orders")(events(1)[0])
    registry.status = 503
    with pytest.raises(StoreUnavailableError, match=rf"registry at {registry.url} answers HTTP 503"):
        codec(coded, registry, give_up_after_s=0.1)([good])
    registry.close()
    with pytest.raises(StoreUnavailableError, match=rf"registry at {registry.url} cannot be reached \(Connect"):
        codec(coded, registry, give_up_after_s=0.1)([good])
    registry.status = 200
    registry.reopen()
    batch, dead = decoded(codec(coded, registry), [good])
    assert (len(batch), dead) == (1, [])


@pytest.mark.parametrize("status", [400, 404, 407, 409, 302])
def test_what_is_no_answer_of_a_registry_is_waited_for_and_nothing_becomes_a_dead_letter(
    coded: Coded, registry: SchemaRegistry, status: int
) -> None:
    """A wrong path, a proxy, an ingress whose backend is away: nothing of it says that there is no such schema."""
    good = serializer(coded, registry.url, "orders")(events(1)[0])
    registry.status = status
    with pytest.raises(StoreUnavailableError, match=rf"answers HTTP {status}, .*look at FOREBAY_SCHEMA_REGISTRY_URL"):
        codec(coded, registry, give_up_after_s=0.1)([good])
    registry.status = 200
    batch, dead = decoded(codec(coded, registry), [good])
    assert (len(batch), dead) == (1, [])


def by_universal_name(message: bytes) -> bytes:
    """The same message, framed with the universal name of its schema in place of the number."""
    return b"\1" + UUID(int=int.from_bytes(message[1:5], "big")).bytes + message[5:]


@pytest.mark.parametrize("named", ["by its number", "by its universal name"])
def test_a_registry_that_answers_without_a_schema_is_waited_for(
    coded: Coded, registry: SchemaRegistry, named: str
) -> None:
    """The client keeps such answers for good: the codec that has had one decodes when the registry is well again."""
    good = serializer(coded, registry.url, "orders")(events(1)[0])
    if named == "by its universal name":
        good = by_universal_name(good)
    decode = codec(coded, registry, give_up_after_s=0.1)
    registry.hollow = "/"
    with pytest.raises(StoreUnavailableError, match="answers without a schema"):
        decode([good])
    registry.hollow = ""
    batch, dead = decoded(decode, [good])
    assert (len(batch), dead) == (1, [])


def test_a_registry_that_answers_without_a_schema_that_another_names_is_waited_for(registry: SchemaRegistry) -> None:
    good = serializer("avro", registry.url, "orders")(events(1)[0])
    outer = {"type": "record", "name": "Outer", "fields": [{"name": "order", "type": "Order"}]}
    reference = {"name": "Order", "subject": "orders-value", "version": 1}
    registry.schemas.append({"schema": json.dumps(outer), "references": [reference], "subject": "outer"})
    message = b"\0" + len(registry.schemas).to_bytes(4, "big") + good[5:]
    decode = codec("avro", registry, give_up_after_s=0.1)
    registry.hollow = "/subjects/"
    with pytest.raises(StoreUnavailableError, match="answers without a schema"):
        decode([message])
    registry.hollow = ""
    (row,) = decode([message])
    assert isinstance(row, dict)
    assert row["order"]["event_id"] == events(1)[0]["event_id"]


def nested(depth: int) -> bytes:
    """A message of the first schema: a record that holds another one, so many times."""
    return b"\0" + (1).to_bytes(4, "big") + b"\2" * depth + b"\0"


@pytest.mark.parametrize("column", ["merchant", "unknown"])
def test_records_that_contain_themselves_are_read_to_a_depth_and_never_kill_the_process(
    registry: SchemaRegistry, column: str
) -> None:
    node = {"type": "record", "name": "Node", "fields": [{"name": column, "type": ["null", "Node"], "default": None}]}
    registry.schemas.append({"schema": json.dumps(node), "schemaType": "AVRO", "subject": "orders-value"})
    values = [nested(depth) for depth in (0, 1, 100, 1_000, 5_000, 60_000)]
    batch, dead = decoded(codec("avro", registry), values)
    assert len(batch) == 0
    shallow = WRONG_TYPE if column == "merchant" else MISSING_TIMESTAMP
    assert [letter.reason for letter in dead] == [MISSING_TIMESTAMP, *[shallow] * 2, *[MALFORMED] * 3]
    assert all("RecursionError" in letter.detail for letter in dead[3:])


def test_a_value_that_python_will_not_spell_is_named_by_its_type() -> None:
    deep: dict[str, Any] = {}
    for _ in range(20_000):
        deep = {"a": deep}
    event = {"event_id": "e", "user": "u", "merchant": deep, "amount": 1, "kind": "paid", "ts": "2024-03-02T00:00:00Z"}
    (letter,) = decode_rows(Messages(SOURCE, "p", 0, [b"raw"]), [event], NOW_US)[1]
    assert (letter.reason, letter.detail[:23]) == (WRONG_TYPE, "'merchant' is a dict; e")


NOTHINGS = {"type": "array", "items": "null"}


def test_schemas_of_a_union_are_judged_with_the_names_in_it() -> None:
    nothing = {"type": "record", "name": "N", "fields": []}
    holds = {"type": "record", "name": "A", "fields": [{"name": "xs", "type": {"type": "array", "items": "N"}}]}
    assert _judged(parse_schema([nothing, holds])) == "endless"
    assert _judged(parse_schema([nothing, "int"])) == "flat"


@pytest.mark.parametrize("column", ["merchant", "unknown"])
def test_a_short_message_of_ever_so_many_items_is_a_dead_letter(registry: SchemaRegistry, column: str) -> None:
    record = {"type": "record", "name": "Order", "fields": [{"name": column, "type": NOTHINGS}]}
    registry.schemas.append({"schema": json.dumps(record), "schemaType": "AVRO", "subject": "orders-value"})
    ever_so_many = b"\0" + (1).to_bytes(4, "big") + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\0"
    batch, (letter, *rest) = decoded(codec("avro", registry), [ever_so_many] * 2)
    assert (len(batch), len(rest), letter.reason, letter.raw) == (0, 1, MALFORMED, ever_so_many)
    assert "an array of items that take no bytes" in letter.detail


def test_a_registry_that_lets_nobody_in_says_so_without_secrets(registry: SchemaRegistry) -> None:
    good = serializer("avro", registry.url, "orders")(events(1)[0])
    registry.status = 401
    with pytest.raises(
        ConfigError, match=r"Not let in to .* \(HTTP 401\); look at FOREBAY_SCHEMA_REGISTRY_BASIC"
    ) as no:
        codec("avro", registry, basic_auth_user_info="me:hunter2")([good])
    assert "hunter2" not in str(no.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": ""}, "topic 'orders' is avro; set FOREBAY_SCHEMA_REGISTRY_URL"),
        ({"url": "ftp://me:hunter2@x"}, "FOREBAY_SCHEMA_REGISTRY_URL.* are refused"),
        ({"basic_auth_user_info": "hunter2"}, "FOREBAY_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO.* are refused"),
        ({"nonsense": "hunter2"}, "Unrecognized properties: nonsense"),
        ({"timeout": "soon"}, "FOREBAY_SCHEMA_REGISTRY_TIMEOUT is 'soon'; expected a number"),
        ({"timeout": "nan"}, "FOREBAY_SCHEMA_REGISTRY_TIMEOUT is 'nan'; expected a number"),
        ({"timeout": "-1"}, "FOREBAY_SCHEMA_REGISTRY_TIMEOUT is '-1'; expected a number, not below 0"),
        ({"url": "http://me:hunter2@[::1"}, "FOREBAY_SCHEMA_REGISTRY_URL.* are refused: .*expected http://host:port"),
        ({"url": "http://me:hunter2"}, "FOREBAY_SCHEMA_REGISTRY_URL.* are refused: .*expected http://host:port"),
        ({"url": "http://127.0.0.1:99999"}, "FOREBAY_SCHEMA_REGISTRY_URL.* are refused: .*expected http://host:port"),
    ],
)
def test_settings_that_cannot_be_used_are_named_without_their_secrets(
    registry: SchemaRegistry, settings: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        codec("avro", registry, **settings)
    assert "hunter2" not in str(caught.value)


def produce(world: KafkaWorld, serialize: Serialize) -> None:
    """Three partitions of events, and of lines that are none."""
    for partition in range(3):
        some = lines(partition, 300)
        world.append(str(partition), [serialize(json.loads(o)) if o.startswith(b'{"event_id"') else o for o in some])
        world.log[f"{world.topic}:{partition}"] = some


def check(world: KafkaWorld) -> None:
    """Both stores have what is in the topic, once."""
    check_archive(world)
    check_dead_letters(world)
    check_streamed(world)
    assert check_online(world) > 200


def test_a_topic_of_a_format_is_in_both_stores_once(
    coded: Coded, broker: Broker, registry: SchemaRegistry, home: Path, online_url: str, namespace: str
) -> None:
    world = KafkaWorld.on(broker, home, online_url, namespace, coded=coded, registry={"url": registry.url})
    produce(world, serializer(coded, registry.url, world.topic))
    world.run("--workers", "2")
    check(world)


def behind_a_hollow(
    registry: SchemaRegistry, broker: Broker, home: Path, online_url: str, namespace: str
) -> KafkaWorld:
    """Events whose schema has a universal name, and a registry that answers without it."""
    world = KafkaWorld.on(broker, home, online_url, namespace, coded="avro", registry={"url": registry.url})
    serialize = serializer("avro", registry.url, world.topic)
    produce(world, lambda event: by_universal_name(serialize(event)))
    registry.hollow = "/schemas/"
    return world


def test_a_flow_outlives_a_registry_that_answers_without_a_schema(
    broker: Broker, registry: SchemaRegistry, home: Path, online_url: str, namespace: str
) -> None:
    world = behind_a_hollow(registry, broker, home, online_url, namespace)

    def recover() -> None:
        until_s = time.monotonic() + 60
        while sum(path.startswith("/schemas/") for path in registry.asked) < 6 and time.monotonic() < until_s:
            time.sleep(0.01)
        registry.hollow = ""

    with ThreadPoolExecutor(1) as pool:
        recovered = pool.submit(recover)
        world.run("--workers", "2")
        recovered.result()
    check(world)


def test_a_flow_that_waits_for_a_registry_ends_when_it_is_told_to(
    noida: Broker, registry: SchemaRegistry, home: Path, online_url: str, namespace: str
) -> None:
    """What it has not decoded is read again by the next one."""
    world = behind_a_hollow(registry, noida, home, online_url, namespace)
    with world.flow("--give-up-after", "3600") as flow:
        await_that(lambda: sum(path.startswith("/schemas/") for path in registry.asked) >= 3, flow)
        code, _, errors = end(flow)
    assert (code, errors.count("\n")) == (2, 1)
    assert "the schema registry at" in errors
    registry.hollow = ""
    world.run()
    check(world)
