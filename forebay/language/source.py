"""Where events and rows come from.

An `EventSource` is a stream and the archive of the same events; a `TableSource` is files or SQL with a column that says
when a row became effective. Both are declarations: nothing here opens anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

from forebay.errors import DefinitionError, suggestion
from forebay.instants import DAY_US, day_us
from forebay.language.arguments import check_cases, check_labels, check_text, checked_mapping
from forebay.language.durations import declared_us, required_us
from forebay.language.frozen import Frozen
from forebay.language.names import check_name
from forebay.language.renaming import check_renamed, names_of
from forebay.language.schedule import check_day
from forebay.language.types import AnyType, StringType, Timestamp, TimestampType

EVENT_ID = "event_id"
"""The archive's column of event ids."""
CONTENT_HASH = "content_hash"
"""`event_id=content_hash`: an event is identified by a hash of its columns."""
EVENT_ID_BYTES_MAX = 64
"""Tiles that remember a first or last value hold its event_id inline; longer ids are dead-lettered."""
CONTENT_HASH_BYTES = 32
"""A content hash is 16 bytes, written as hexadecimal text."""
STREAM_PARTITIONS_MAX = 1024
"""Each is a reader of its own."""
LATENESS_MAX_US = 7 * DAY_US
"""Batch tiles wait for so long; later events are for a backfill."""
DEDUPE_MAX_US = DAY_US
"""Every event of the last `dedupe` is remembered, at some 25 bytes."""

content_hash = CONTENT_HASH


class FileStream(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="FileStream", tag_field="stream"
):
    """A stream replayed from NDJSON (`.ndjson`, `.jsonl`) or Parquet files that only ever grow.

    `path` is a file or a folder; each file is one partition, its lines (rows) are the offsets. Environment variables in
    it such as `${FOREBAY_HOME}` are expanded when it is opened.
    """

    path: str

    def __post_init__(self) -> None:
        check_text("FileStream", "path", self.path)


class RedisStream(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="RedisStream", tag_field="stream"
):
    """A stream held in Redis Streams `<key>:0` … `<key>:<partitions - 1>`; the field `event` of an entry is its JSON.

    `url` is the Redis that holds it; by default the online store. With `chunked`, the field `events` of an entry is
    many of them, one JSON object a line. With `trim`, a flow removes entries that are archived: nobody else may need
    them.
    """

    key: str
    partitions: int = 1
    url: str | None = None
    chunked: bool = False
    trim: bool = False

    def __post_init__(self) -> None:
        check_text("RedisStream", "key", self.key)
        if type(self.partitions) is not int or not 1 <= self.partitions <= STREAM_PARTITIONS_MAX:
            raise DefinitionError(
                f"RedisStream {self.key!r}: partitions={self.partitions!r}; expected 1 to {STREAM_PARTITIONS_MAX}"
            )
        for name, value in (("chunked", self.chunked), ("trim", self.trim)):
            if type(value) is not bool:
                raise DefinitionError(f"RedisStream {self.key!r}: {name}={value!r}; expected True or False")


Format = Literal["json", "avro", "protobuf"]
FORMATS = get_args(Format)
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_BROKER = r"([\w.-]+|\[[0-9a-fA-F:]+\]):\d{1,5}"
_BROKERS = re.compile(f"{_BROKER}(,{_BROKER})*", re.ASCII)


class KafkaTopic(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="KafkaTopic", tag_field="stream"
):
    """A stream held in a Kafka topic; the value of a message is one event, in `format`.

    `brokers` is `host:port,host:port`; by default `FOREBAY_KAFKA_BROKERS`, beside which user names, passwords and all
    other settings of the connection are. `format` is `json`, or `avro` or `protobuf` with a schema registry
    (`FOREBAY_SCHEMA_REGISTRY_URL`). Raise `epoch` when the topic was deleted and made again: its offsets begin anew.
    `compacted` says that events which Kafka's compaction leaves out are no loss; otherwise no flow reads such a topic.
    """

    topic: str
    brokers: str | None = None
    format: Format = "json"
    epoch: int = 0
    compacted: bool = False

    def __post_init__(self) -> None:
        where = f"KafkaTopic {self.topic!r}"
        if not isinstance(self.topic, str) or not _TOPIC.fullmatch(self.topic) or self.topic in (".", ".."):
            raise DefinitionError(f"{where}: expected 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'")
        if self.brokers is not None and not (isinstance(self.brokers, str) and _BROKERS.fullmatch(self.brokers)):
            raise DefinitionError(
                f"{where}: brokers is not of the form 'host:port,host:port'; "
                "user names and passwords belong into FOREBAY_KAFKA_SASL_USERNAME and FOREBAY_KAFKA_SASL_PASSWORD"
            )
        if self.format not in FORMATS:
            raise DefinitionError(f"{where}: format={self.format!r}. {suggestion(str(self.format), FORMATS)}")
        if type(self.epoch) is not int or self.epoch < 0:
            raise DefinitionError(f"{where}: epoch={self.epoch!r}; expected 0, or 1 more than before")
        if type(self.compacted) is not bool:
            raise DefinitionError(f"{where}: compacted={self.compacted!r}; expected True or False")


AnyStream = FileStream | RedisStream | KafkaTopic


class EventSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Events: a stream of them and the archive of the same events.

    `timestamp` names the column with the instant of an event; `event_id` the String column that identifies it, or
    `content_hash`. Events that arrive within `lateness` behind the newest count at once. With `dedupe`, events of one
    partition with the same (event_id, ts) are one, unless they are more than `dedupe` behind its newest; without it
    all count. `max_skew` is how far ahead of the wall clock an event may be dated. `history_start` (a UTC date) is
    where partitions begin: an event dated before it is a dead letter. With `keep`, maintenance removes what is older
    than that before the newest events; without it all is kept. `renamed` names former names of columns: events that
    bring a value under either name, and archived ones, are read alike.
    """

    name: str
    schema: Mapping[str, AnyType]
    timestamp: str
    event_id: str
    stream: AnyStream | None = None
    lateness: str = "10m"
    dedupe: str | None = None
    max_skew: str = "1m"
    history_start: str = "2020-01-01"
    keep: str | None = None
    renamed: Mapping[str, str] = {}
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        where = f"EventSource {self.name!r}"
        check_name("EventSource", self.name)
        msgspec.structs.force_setattr(self, "schema", _checked_schema(where, self.schema))
        check_labels(where, self)
        _check_instants(where, self.schema, "timestamp", self.timestamp)
        self._check_event_id(where)
        if self.stream is not None and not isinstance(self.stream, AnyStream):
            raise DefinitionError(
                f"{where}: stream={self.stream!r}; expected FileStream(path), KafkaTopic(topic) or RedisStream(key)"
            )
        if required_us(f"{where}: lateness", self.lateness) > LATENESS_MAX_US:
            raise DefinitionError(
                f"{where}: lateness={self.lateness!r} is longer than 7d; repair later events by a backfill instead"
            )
        dedupe_us = declared_us(f"{where}: dedupe", self.dedupe)
        if dedupe_us is not None and dedupe_us > DEDUPE_MAX_US:
            raise DefinitionError(
                f"{where}: dedupe={self.dedupe!r} is longer than 1d, and all events of it are remembered; "
                "expected how long a producer may repeat itself, such as '10m'"
            )
        required_us(f"{where}: max_skew", self.max_skew)
        check_day(where, "history_start", self.history_start)
        declared_us(f"{where}: keep", self.keep)
        renamed = checked_mapping(where, "renamed", self.renamed, "{'category': 'kind'}, the new name and the former")
        msgspec.structs.force_setattr(self, "renamed", renamed)
        check_renamed(where, self.renamed, self.schema, fixed=(self.timestamp, self.event_id))

    def _check_event_id(self, where: str) -> None:
        check_text(where, "event_id", self.event_id)
        if self.event_id != CONTENT_HASH and not isinstance(self.schema.get(self.event_id), StringType):
            raise DefinitionError(
                f"{where}: event_id={self.event_id!r} is not a String column of the schema. "
                f"{suggestion(self.event_id, _of_type(self.schema, StringType))} Or write event_id=content_hash."
            )
        for reserved in {EVENT_ID, CONTENT_HASH} - {self.event_id if self.event_id != CONTENT_HASH else ""}:
            if reserved in self.schema:
                raise DefinitionError(
                    f"{where}: column {reserved!r} is not its event_id, and the archive has one of that name; rename it"
                )

    @property
    def lateness_us(self) -> int:
        """Microseconds of `lateness`."""
        return required_us(self.name, self.lateness)

    @property
    def dedupe_us(self) -> int | None:
        """Microseconds of `dedupe`; `None` where all events count."""
        return declared_us(self.name, self.dedupe)

    @property
    def max_skew_us(self) -> int:
        """Microseconds of `max_skew`."""
        return required_us(self.name, self.max_skew)

    def names_of(self, column: str) -> tuple[str, ...]:
        """The names under which a column's values may be found: its own, then others, the newest first."""
        return names_of(column, self.renamed)

    @property
    def keep_us(self) -> int | None:
        """Microseconds of `keep`; `None` where everything is kept."""
        return declared_us(self.name, self.keep)

    @property
    def history_start_us(self) -> int:
        """The instant at which the first partition begins."""
        return day_us(self.history_start)

    @property
    def event_id_bytes(self) -> int:
        """The longest event_id in UTF-8 bytes."""
        if self.event_id == CONTENT_HASH:
            return CONTENT_HASH_BYTES
        kind = self.schema[self.event_id]
        return (
            min(kind.max_bytes or EVENT_ID_BYTES_MAX, EVENT_ID_BYTES_MAX)
            if isinstance(kind, StringType)
            else EVENT_ID_BYTES_MAX
        )


class TableSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rows from files or SQL, each effective from the instant in its column `effective`.

    Give either `path` (CSV, Parquet or NDJSON; a folder or a glob too; `${…}` is expanded) or `sql` (DuckDB SQL). `sql`
    may read `{path}`. A batch view sees only rows that were effective before the instant it computes for.
    """

    name: str
    schema: Mapping[str, AnyType]
    effective: str
    path: str | None = None
    sql: str | None = None
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        where = f"TableSource {self.name!r}"
        check_name("TableSource", self.name)
        msgspec.structs.force_setattr(self, "schema", _checked_schema(where, self.schema))
        check_labels(where, self)
        _check_instants(where, self.schema, "effective", self.effective)
        for what, text in (("path", self.path), ("sql", self.sql)):
            if text is not None:
                check_text(where, what, text)
        if self.path is None and self.sql is None:
            raise DefinitionError(f"{where} has neither path nor sql; say where its rows are")


AnySource = EventSource | TableSource


def _checked_schema(where: str, declared: Any) -> Frozen[str, AnyType]:
    schema = checked_mapping(where, "schema", declared, "{'user_id': String, 'ts': Timestamp}")
    if not schema:
        raise DefinitionError(f"{where} has an empty schema; name its columns and their types")
    for column, kind in schema.items():
        check_name(f"{where}: column", column)
        if not isinstance(kind, AnyType):
            raise DefinitionError(
                f"{where}: column {column!r} is {kind!r}; expected a type such as String, Int64 or Decimal(2)"
            )
    check_cases(where, "column", list(schema))
    return schema


def _check_instants(where: str, schema: Mapping[str, AnyType], what: str, column: str) -> None:
    check_text(where, what, column)
    if not isinstance(schema.get(column), TimestampType):
        raise DefinitionError(
            f"{where}: {what}={column!r} is not a {Timestamp} column of the schema. "
            f"{suggestion(column, _of_type(schema, TimestampType))}"
        )


def _of_type(schema: Mapping[str, AnyType], kind: type) -> list[str]:
    return [column for column, declared in schema.items() if isinstance(declared, kind)]
