"""What ingest yields: a batch of events that may be believed, and the dead letters of those that may not.

A batch is columnar and final: its columns have their stored types, numbers are rounded, NaN is null, and nothing in it
can fail further down. Whatever was offered is in exactly one of the two: events + dead letters = lines (rows) offered.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from forebay.language.source import EventSource
from forebay.language.types import AnyType, BoolType, DecimalType, Float64Type, Int64Type, TimestampType

INSTANT = pa.timestamp("us", "UTC")
DECIMAL_DIGITS = 18
"""2^53 units have 16 digits; 18 fill an int64."""
EVENT_BYTES_MAX = 64 * 1024
"""An event is a fact with a few columns; what is longer is a mistake, and would be kept in every store."""
REVIVED_BYTES_MAX = 8 * EVENT_BYTES_MAX
"""Of an event that was a dead letter and is written anew as JSON: a byte may be one of six, `\\u0001`."""
LETTER_BYTES_MAX = 1024 * 1024
"""What is kept of what was no event: all that a Kafka broker takes as one message, by default."""
EVENT_ID, SOURCE_OFFSET = "event_id", "source_offset"

MALFORMED, TOO_LARGE, WRONG_TYPE, INFINITE = "malformed", "too_large", "wrong_type", "infinite"
MISSING_TIMESTAMP, MISSING_EVENT_ID, FUTURE = "missing_timestamp", "missing_event_id", "future"
TOMBSTONE, BEFORE_HISTORY = "tombstone", "before_history"
REASONS = (
    MALFORMED,
    TOO_LARGE,
    WRONG_TYPE,
    INFINITE,
    MISSING_TIMESTAMP,
    MISSING_EVENT_ID,
    FUTURE,
    BEFORE_HISTORY,
    TOMBSTONE,
)
DEFINED = frozenset(REASONS) - {MALFORMED, TOMBSTONE}
"""Reasons that depend on when a row is judged, or by which definitions: the same bytes may be an event another time."""


@dataclass(frozen=True, eq=False)
class EventBatch:
    """Events of one partition of a source, in the order of the source.

    `table` has the columns of `event_schema`; `first_offset` and `next_offset` are the half-open range of source
    offsets that the batch covers, those of its dead letters included. `bookmark` says where `next_offset` begins in a
    log that is a file.
    """

    source: EventSource
    partition: str
    table: pa.Table
    first_offset: int
    next_offset: int
    bookmark: int | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True)
class DeadLetter:
    """An event that was refused: where it stood, why (one of REASONS), the reason in words, its bytes (of more than
    LETTER_BYTES_MAX the first), and how many it had.
    """

    source: str
    partition: str
    offset: int
    reason: str
    detail: str
    raw: bytes
    size: int


def stored_type(kind: AnyType) -> pa.DataType:
    """The Arrow type of a column of events, in batches and in the archive."""
    if isinstance(kind, DecimalType):
        return pa.decimal128(DECIMAL_DIGITS, kind.scale)
    if isinstance(kind, TimestampType):
        return INSTANT
    if isinstance(kind, BoolType):
        return pa.bool_()
    if isinstance(kind, Int64Type):
        return pa.int64()
    return pa.float64() if isinstance(kind, Float64Type) else pa.string()


@functools.lru_cache(maxsize=256)
def event_schema(source: EventSource) -> Any:
    """The Arrow schema of a batch: the source's columns, `event_id` (a copy of the column it is), `source_offset`."""
    fields = [(name, stored_type(kind)) for name, kind in source.schema.items()]
    if EVENT_ID not in source.schema:
        fields.append((EVENT_ID, pa.string()))
    return pa.schema([*fields, (SOURCE_OFFSET, pa.int64())])
