"""Rows of Python values become events, by the rules of JSON lines: for formats that others decode (Avro, Protobuf).

Lives here: what is the same for every format whose messages are decoded one by one: which rows could be read, and the
bytes and offsets of those that could not. A row is a mapping from columns to values; unknown columns are ignored,
missing ones are null.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from forebay.ingest.admit import Clock, Offered, admit
from forebay.ingest.batch import EVENT_BYTES_MAX, TOMBSTONE, TOO_LARGE, DeadLetter, EventBatch
from forebay.ingest.convert import Converted
from forebay.ingest.former import either
from forebay.ingest.scalars import column_of
from forebay.language.limits import Limit
from forebay.language.source import EventSource

Ints = npt.NDArray[np.int64]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Unreadable:
    """A message that is no row: one of the reasons of dead letters, and why in words."""

    reason: str
    detail: str


Codec = Callable[[Sequence[bytes | None]], Sequence[Row | Unreadable]]
"""What a format makes of messages: a row of each, or why there is none."""


@dataclass(frozen=True)
class Messages:
    """Messages of a partition as they came, with their offsets; `None` where a message has no value."""

    source: EventSource
    partition: str
    first_offset: int
    values: Sequence[bytes | None]
    offsets: Ints | None = None
    """Ascending, maybe with gaps; `None` where they are `first_offset`, `first_offset + 1`, …"""

    def raw(self, number: int) -> bytes:
        """The bytes of a message."""
        return self.values[number] or b""


def obstacle(value: bytes | None, bytes_max: int = EVENT_BYTES_MAX) -> Unreadable | None:
    """What stands against a message in any format."""
    if value is None:
        return Unreadable(TOMBSTONE, "the message has no value")
    if len(value) > bytes_max:
        return Unreadable(TOO_LARGE, f"{len(value)} bytes; an event has at most {bytes_max}")
    return None


def decode_rows(
    messages: Messages, rows: Sequence[Row | Unreadable], clock: int | Clock, limits: Mapping[str, Limit] | None = None
) -> tuple[EventBatch, list[DeadLetter]]:
    """The events of some messages that were decoded to rows, and a dead letter for every one that is none.

    `limits` bounds the units of columns (see `Definitions.limits`). Never raises for what the rows hold.
    """
    readable = [number for number, row in enumerate(rows) if not isinstance(row, Unreadable)]
    unreadable = [(number, row) for number, row in enumerate(rows) if isinstance(row, Unreadable)]
    found: list[Row] = [row for row in rows if not isinstance(row, Unreadable)]
    source = messages.source
    columns = {
        name: column_of(kind, either([[row.get(one) for row in found] for one in source.names_of(name)]))
        for name, kind in source.schema.items()
    }

    def value(row: int, name: str) -> Any:
        return either([[found[row].get(one)] for one in source.names_of(name)])[0]

    return assembled(messages, columns, value, readable, unreadable, clock, limits or {})


def assembled(
    messages: Messages,
    columns: Mapping[str, Converted],
    value: Callable[[int, str], Any],
    readable: Sequence[int] | None,
    unreadable: Sequence[tuple[int, Unreadable]],
    clock: int | Clock,
    limits: Mapping[str, Limit],
) -> tuple[EventBatch, list[DeadLetter]]:
    """A batch of the readable messages (their numbers; `None`: all), whose columns these are, and all dead letters."""
    source, partition, count = messages.source, messages.partition, len(messages.values)
    offsets = messages.offsets
    if offsets is None:
        offsets = np.arange(messages.first_offset, messages.first_offset + count, dtype=np.int64)
    kept = offsets if readable is None else offsets[np.asarray(readable, np.int64)]

    def raw(row: int) -> bytes:
        return messages.raw(row if readable is None else readable[row])

    table, dead = admit(Offered(source, partition, kept, raw, value), columns, clock, limits)
    lost = Offered(source, partition, offsets, messages.raw, lambda row, name: None)
    dead += [lost.letter(number, why.reason, why.detail) for number, why in unreadable]
    next_offset = int(offsets[-1]) + 1 if count else messages.first_offset
    batch = EventBatch(source, partition, table, messages.first_offset, next_offset)
    return batch, sorted(dead, key=lambda letter: letter.offset)
