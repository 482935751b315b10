"""Where events and rows come from.

An `EventSource` is a stream and the archive of the same events; a `TableSource` is files or SQL with a column that says
when a row became effective. Both are declarations: nothing here opens anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date

import msgspec

from forebay.errors import DefinitionError, suggestion
from forebay.instants import DAY_US, day_us
from forebay.language.durations import required_us
from forebay.language.names import check_name
from forebay.language.types import AnyType, StringType, Timestamp, TimestampType

CONTENT_HASH = "content_hash"
"""`event_id=content_hash`: an event is identified by a hash of its columns."""
EVENT_ID_BYTES_MAX = 64
"""Tiles that remember a first or last value hold its event_id inline; longer ids are dead-lettered."""
CONTENT_HASH_BYTES = 32
"""A content hash is 16 bytes, written as hexadecimal text."""

content_hash = CONTENT_HASH


class FileStream(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="FileStream", tag_field="stream"
):
    """A stream replayed from NDJSON (`.ndjson`, `.jsonl`) or Parquet files that only ever grow.

    `path` is a file or a folder; each file is one partition, its lines (rows) are the offsets. Environment variables in
    it such as `${FOREBAY_HOME}` are expanded when it is opened.
    """

    path: str


class RedisStream(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag="RedisStream", tag_field="stream"
):
    """A stream held in Redis Streams `<key>:0` … `<key>:<partitions - 1>`; the field `event` of an entry is its JSON.

    `url` is the Redis that holds it; by default the online store.
    """

    key: str
    partitions: int = 1
    url: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.partitions <= 1024:
            raise DefinitionError(f"RedisStream {self.key!r}: partitions={self.partitions}; expected 1 to 1024")


AnyStream = FileStream | RedisStream


class EventSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Events: a stream of them and the archive of the same events.

    `timestamp` names the column with the instant of an event; `event_id` the String column that identifies it, or
    `content_hash`. Events that arrive within `lateness` behind the newest count at once. `max_skew` is how far ahead of
    the wall clock an event may be dated. `history_start` (a UTC date) is where partitions begin.
    """

    name: str
    schema: Mapping[str, AnyType]
    timestamp: str
    event_id: str
    stream: AnyStream | None = None
    lateness: str = "10m"
    max_skew: str = "1m"
    history_start: str = "2020-01-01"
    owner: str = ""
    description: str = ""
    tags: Mapping[str, str] = {}

    def __post_init__(self) -> None:
        where = f"EventSource {self.name!r}"
        _check_schema(where, self.name, self.schema)
        _check_instants(where, self.schema, "timestamp", self.timestamp)
        if self.event_id != CONTENT_HASH and not isinstance(self.schema.get(self.event_id), StringType):
            raise DefinitionError(
                f"{where}: event_id={self.event_id!r} is not a String column of the schema. "
                f"{suggestion(self.event_id, self.schema)} Or write event_id=content_hash."
            )
        if required_us(f"{where}: lateness", self.lateness) > 7 * DAY_US:
            raise DefinitionError(
                f"{where}: lateness={self.lateness!r} is longer than 7d; repair later events by a backfill instead"
            )
        required_us(f"{where}: max_skew", self.max_skew)
        try:
            date.fromisoformat(self.history_start)
        except ValueError:
            raise DefinitionError(
                f"{where}: history_start={self.history_start!r} is not a date; write YYYY-MM-DD"
            ) from None

    @property
    def lateness_us(self) -> int:
        """Microseconds of `lateness`."""
        return required_us(self.name, self.lateness)

    @property
    def max_skew_us(self) -> int:
        """Microseconds of `max_skew`."""
        return required_us(self.name, self.max_skew)

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
        _check_schema(where, self.name, self.schema)
        _check_instants(where, self.schema, "effective", self.effective)
        if self.path is None and self.sql is None:
            raise DefinitionError(f"{where} has neither path nor sql; say where its rows are")


AnySource = EventSource | TableSource


def _check_schema(where: str, name: str, schema: Mapping[str, AnyType]) -> None:
    check_name(where.split()[0], name)
    if not schema:
        raise DefinitionError(f"{where} has an empty schema; name its columns and their types")
    for column, kind in schema.items():
        check_name(f"{where}: column", column)
        if not isinstance(kind, AnyType):
            raise DefinitionError(
                f"{where}: column {column!r} is {kind!r}; expected a type such as String, Int64 or Decimal(2)"
            )


def _check_instants(where: str, schema: Mapping[str, AnyType], what: str, column: str) -> None:
    if not isinstance(schema.get(column), TimestampType):
        raise DefinitionError(
            f"{where}: {what}={column!r} is not a {Timestamp} column of the schema. {suggestion(column, schema)}"
        )
