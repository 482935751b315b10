"""Avro and Protobuf messages become rows, through confluent-kafka's deserializers and a schema registry.

Lives here: what a topic's format means for the bytes of a message; what a value means is decided in `forebay.ingest`.
Rules:

- A message is read by the schema that it was written with, so the classes of Protobuf messages are not needed here.
- Whatever cannot be decoded is that message's fault and a dead letter, also a schema that the registry says it does not
  have.
- A registry that does not answer, or answers what no registry does (a proxy's page, a redirect), is nobody's fault: it
  is waited for as a store is, then the flow stops.
- Secrets come from the environment (`FOREBAY_SCHEMA_REGISTRY_…`) and are in no message.
"""

from __future__ import annotations

import contextlib
import decimal
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from typing import Any, Literal, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    dual_schema_id_deserializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext
from fastavro._read_py import schemaless_reader
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from forebay.errors import ConfigError, ForebayError, StoreUnavailableError
from forebay.ingest.batch import MALFORMED
from forebay.ingest.former import field_names
from forebay.ingest.rows import Codec, Row, Unreadable, obstacle
from forebay.language.source import EventSource, KafkaTopic
from forebay.settings import REGISTRY
from streaming.avro_schemas import contains_itself, counts_nothings
from streaming.retry import Patience

DEFAULTS = {"timeout": 5.0, "max.retries": 0}  # a registry is waited for by the flow's own patience
NUMBERS = ("timeout", "cache.capacity", "cache.latest.ttl.sec", "max.retries", "retries.wait.ms", "retries.max.wait.ms")
BY_TOPIC = {"subject.name.strategy": topic_subject_name_strategy}
REFUSED, LATER = (401, 403), (408, 429)
LACKING = (40401, 40402, 40403)
"""How a registry says that it has no such subject, version or schema."""
WRAPPERS = {
    f"google.protobuf.{kind}Value"
    for kind in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
}
NUMBER_BYTES, GUID_BYTES = 5, 17
"""A zero and the number of a schema, or a one and its universal name: what messages of one schema begin with."""

T = TypeVar("T")


def codecs_of(sources: Sequence[EventSource], given: Mapping[str, str], patience: Patience) -> dict[str, Codec]:
    """The codec of each source whose messages are not JSON."""
    return {
        source.name: _codec(source, source.stream, given, patience)
        for source in sources
        if isinstance(source.stream, KafkaTopic) and source.stream.format != "json"
    }


def _codec(source: EventSource, topic: KafkaTopic, given: Mapping[str, str], patience: Patience) -> Codec:
    registry = Registry(f"Stream of {source.name!r}", topic, given, patience)
    context = SerializationContext(topic.topic, MessageField.VALUE)
    if topic.format == "avro":
        return _Each(_avro(registry, context))
    return _Each(_Protobuf(registry, context, [*field_names(source)]))


class Registry(SchemaRegistryClient):
    """A schema registry that is waited for when it does not answer; what it answers is not judged here."""

    def __init__(self, where: str, topic: KafkaTopic, given: Mapping[str, str], patience: Patience) -> None:
        if not given.get("url"):
            raise ConfigError(f"{where}: topic {topic.topic!r} is {topic.format}; set {REGISTRY}URL to its registry")
        self._patience = patience
        try:
            self._where = f"the schema registry at {_addresses(given['url'])}"
            super().__init__(DEFAULTS | {name: _number(name, value) for name, value in given.items()})
        except (ValueError, TypeError, OSError) as error:
            names = ", ".join(REGISTRY + name.upper().replace(".", "_") for name in given)
            said = f"{type(error).__name__}: {error}"
            for value in given.values():
                said = said.replace(value, "…")
            raise ConfigError(f"{where}: the settings of its schema registry ({names}) are refused: {said}") from None

    def get_schema(self, *arguments: Any, **named: Any) -> Any:
        """A schema by its number."""
        return self._waited(lambda: self._there(super(Registry, self).get_schema(*arguments, **named)))

    def get_schema_by_guid(self, *arguments: Any, **named: Any) -> Any:
        """A schema by its universal name."""
        return self._waited(lambda: self._there(super(Registry, self).get_schema_by_guid(*arguments, **named)))

    def get_version(self, *arguments: Any, **named: Any) -> Any:
        """A schema that another refers to."""

        def version() -> Any:
            registered = super(Registry, self).get_version(*arguments, **named)
            self._there(registered.schema)
            return registered

        return self._waited(version)

    def _there(self, schema: Schema) -> Schema:
        if schema.schema_str is None:
            self.clear_caches()  # the client keeps that answer too
            raise StoreUnavailableError(f"{self._where} answers without a schema; look at {REGISTRY}URL")
        return schema

    def _waited(self, call: Callable[[], T]) -> T:
        """What a call returns, which is at hand for all messages but the first."""
        try:
            return self._asked(call)
        except StoreUnavailableError:
            return self._patience(lambda: self._asked(call))

    def _asked(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except StoreUnavailableError:
            raise
        except SchemaRegistryError as error:
            if error.http_status_code in REFUSED:
                raise ConfigError(
                    f"Not let in to {self._where} (HTTP {error.http_status_code}); look at "
                    f"{REGISTRY}BASIC_AUTH_USER_INFO and its like"
                ) from None
            if error.error_code in LACKING:
                raise
            later = error.http_status_code >= 500 or error.http_status_code in LATER
            hint = "" if later else f", and not as a registry that lacks a schema; look at {REGISTRY}URL"
            raise StoreUnavailableError(f"{self._where} answers HTTP {error.http_status_code}{hint}") from None
        except Exception as error:  # noqa: BLE001  its HTTP client's errors have no common root with a stable name
            raise StoreUnavailableError(f"{self._where} cannot be reached ({type(error).__name__})") from None


class _Each:
    """Decodes messages one by one. A schema that the registry lacks is asked for once a call."""

    def __init__(self, decode: Callable[[bytes], Row]) -> None:
        self._decode = decode

    def __call__(self, values: Sequence[bytes | None]) -> list[Row | Unreadable]:
        lacking: dict[bytes, Unreadable] = {}
        return [self._row(value, lacking) for value in values]

    def _row(self, value: bytes | None, lacking: dict[bytes, Unreadable]) -> Row | Unreadable:
        why = obstacle(value)
        if why is not None or value is None:
            return why or Unreadable(MALFORMED, "")
        frame = _frame(value)
        if frame in lacking:
            return lacking[frame]
        try:
            return self._decode(value)
        except ForebayError:
            raise
        except SchemaRegistryError as error:
            why = Unreadable(MALFORMED, f"the schema registry has no schema for it: {error.error_message}")
            lacking[frame] = why
        except Exception as error:  # noqa: BLE001  whatever a decoder stumbles over is the message's fault
            why = Unreadable(MALFORMED, f"by {_schema_name(frame)}: {type(error).__name__}: {error}")
        return why


def _frame(value: bytes) -> bytes:
    """How a message begins: with the name of its schema."""
    return value[: GUID_BYTES if value[:1] == b"\1" else NUMBER_BYTES]


def _schema_name(frame: bytes) -> str:
    """What a message says that it was written with, for people: to look it up in the registry."""
    if len(frame) == GUID_BYTES and frame[:1] == b"\1":
        return f"schema {UUID(bytes=frame[1:])}"
    return f"schema {int.from_bytes(frame[1:])}" if len(frame) == NUMBER_BYTES and frame[:1] == b"\0" else "no schema"


def _avro(registry: Registry, context: SerializationContext) -> Callable[[bytes], Row]:
    records = _Records(registry, conf=BY_TOPIC)

    def decode(value: bytes) -> Row:
        record = records.read(value, context)
        if not isinstance(record, dict):
            raise ValueError(f"it is a {type(record).__name__}, not a record")
        return {name: str(one) if isinstance(one, UUID) else one for name, one in record.items()}

    return decode


class _Records(AvroDeserializer):
    """Reads records by compiled code, but for those of schemas with which some bytes could have the process killed.

    What may be nested as deeply as it is long is read in Python, which says `RecursionError`; what may be any number of
    items of no bytes is not read.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._judged: dict[bytes, _Judgement] = {}
        """By how messages begin."""

    def read(self, value: bytes, context: SerializationContext) -> Any:
        """The record of a message. Raises whatever a decoder stumbles over."""
        frame = _frame(value)
        judgement = self._judged.get(frame)
        if judgement is None:
            judgement = self._judged[frame] = _judged(self._written(value, context)[1])
        if judgement == "endless":
            raise ValueError("its schema has an array of items that take no bytes, of which there may be any number")
        if judgement == "deep":
            payload, schema = self._written(value, context)
            return schemaless_reader(payload, schema, None)
        return self(value, context)

    def _written(self, value: bytes, context: SerializationContext) -> tuple[Any, Any]:
        """The rest of a message, and the schema that it was written with."""
        schema_id = SchemaId("AVRO")
        payload = dual_schema_id_deserializer(value, context, schema_id)
        subject = topic_subject_name_strategy(context, None)
        return payload, self._get_parsed_schema(self._get_writer_schema(schema_id, subject))


_Judgement = Literal["flat", "deep", "endless"]


def _judged(schema: Any) -> _Judgement:
    named: dict[str, Any] = {}
    for one in schema if isinstance(schema, list) else [schema]:
        named |= one.get("__named_schemas", {}) if isinstance(one, dict) else {}
    if counts_nothings(schema, named):
        return "endless"
    return "deep" if contains_itself(schema, named) else "flat"


class _Writers(ProtobufDeserializer):
    """Finds the class of a message by the schema that it was written with."""

    def message_class(self, schema_id: SchemaId, subject: str | None) -> type[Message]:
        """The class of the messages of a schema that have these indexes in it."""
        schema = self._get_writer_schema(schema_id, subject, fmt="serialized")
        proto, pool = self._get_parsed_schema(schema)
        file = pool.FindFileByName(proto.name)
        return GetMessageClass(self._get_message_desc(pool, file, schema_id.message_indexes or [0]))


class _Protobuf:
    """Decodes Protobuf messages of any schema that the registry has."""

    def __init__(self, registry: Registry, context: SerializationContext, names: Sequence[str]) -> None:
        self._registry, self._context, self._names = registry, context, frozenset(names)
        self._subject = topic_subject_name_strategy(context, None)
        self._writers = _Writers(cast("Any", Empty), BY_TOPIC, registry)
        self._known: dict[tuple[Any, ...], tuple[Callable[..., Any], list[FieldDescriptor]]] = {}

    def __call__(self, value: bytes) -> Row:
        schema_id = SchemaId("PROTOBUF")
        dual_schema_id_deserializer(value, self._context, schema_id)
        key = (schema_id.id, schema_id.guid, *(schema_id.message_indexes or ()))
        if key not in self._known:
            written = self._writers.message_class(schema_id, self._subject)
            self._known[key] = (
                ProtobufDeserializer(cast("Any", written), BY_TOPIC, self._registry),
                self._fields(written.DESCRIPTOR),
            )
        deserialize, fields = self._known[key]
        message = deserialize(value, self._context)
        return {field.name: _value(message, field) for field in fields}

    def _fields(self, descriptor: Descriptor) -> list[FieldDescriptor]:
        return [field for field in descriptor.fields if field.name in self._names]


def _value(message: Message, field: FieldDescriptor) -> Any:
    """A field's value: what is not there is null, an enum is the name of its value."""
    if field.is_repeated or (field.has_presence and not message.HasField(field.name)):
        return [] if field.is_repeated else None
    value = getattr(message, field.name)
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return value if known is None else known.name
    return value if field.message_type is None else _known_message(value, field.message_type.full_name)


def _known_message(value: Any, name: str) -> Any:
    """Messages that stand for one value; any other is what no column can be."""
    if name == "google.protobuf.Timestamp":
        return value.ToDatetime(UTC)
    if name in WRAPPERS:
        return value.value
    if name == "google.type.Decimal":
        number = decimal.Decimal(value.value)
        return number if number.is_finite() else value
    if name == "confluent.type.Decimal":
        units = int.from_bytes(value.value, "big", signed=True)
        return decimal.Decimal(units).scaleb(-value.scale, decimal.Context(prec=max(1, len(str(units)))))
    return value


def _number(name: str, value: str) -> str | float:
    if name not in NUMBERS:
        return value
    with contextlib.suppress(ValueError):
        number = float(value)
        if 0 <= number < math.inf:
            return number
    variable = REGISTRY + name.upper().replace(".", "_")
    raise ConfigError(f"{variable} is {value!r}; expected a number, not below 0")


def _addresses(url: str) -> str:
    """The addresses of a registry, for messages. Raises `ValueError` for one that nobody could be reached at."""
    try:
        parts = [urlsplit(one.strip()) for one in url.split(",")]
        _ = [part.port for part in parts]
    except ValueError:  # what it says may hold a part of a password
        raise ValueError("expected http://host:port or https://host:port") from None
    return ", ".join(f"{part.scheme}://{part.netloc.rpartition('@')[2]}" for part in parts)
