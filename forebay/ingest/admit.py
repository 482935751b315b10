"""The gate: which rows are events, whichever path they came by.

`decode_json` and `conform` only bring rows into Arrow columns of whatever type they had; here they are converted,
checked and dated, so that the same events are the same table through both. A row with several faults is reported for
the first: columns in the order of the schema, then its instant, then its id.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.texts import bytes_of, lengths_of
from forebay.ingest.batch import (
    BEFORE_HISTORY,
    EVENT_BYTES_MAX,
    EVENT_ID,
    FUTURE,
    LETTER_BYTES_MAX,
    MISSING_EVENT_ID,
    MISSING_TIMESTAMP,
    REASONS,
    SOURCE_OFFSET,
    TOO_LARGE,
    WRONG_TYPE,
    DeadLetter,
    event_schema,
)
from forebay.ingest.content_hash import content_hashes
from forebay.ingest.convert import Converted, filled, units_of, with_nul
from forebay.language.limits import Limit
from forebay.language.source import CONTENT_HASH, EventSource
from forebay.language.types import DecimalType

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
DETAIL_LENGTH_MAX = 300
_BEFORE = "(before)"
"""In the place of a column: nothing is wrong with the row now."""
JUDGE, COUNTS = -1, -2
"""What is settled of an offset: nothing, it is judged now; or that it is an event, which counts already."""


@dataclass(frozen=True)
class Clock:
    """By what rows are judged: an instant, and what an earlier reading has settled of some offsets (`JUDGE`, `COUNTS`,
    or the place in REASONS of why it is none).
    """

    now_us: int
    settled: Callable[[Ints], Ints]


@dataclass(frozen=True)
class Offered:
    """Rows as they came: the offset of each, its bytes and its value of a column, for the report of a fault."""

    source: EventSource
    partition: str
    offsets: Ints
    raw: Callable[[int], bytes]
    value: Callable[[int, str], Any]

    def letter(self, row: int, reason: str, detail: str) -> DeadLetter:
        """The dead letter of one row."""
        raw, offset, detail = self.raw(row), int(self.offsets[row]), detail[:DETAIL_LENGTH_MAX]
        return DeadLetter(self.source.name, self.partition, offset, reason, detail, raw[:LETTER_BYTES_MAX], len(raw))


def admit(
    offered: Offered, columns: Mapping[str, Converted], clock: int | Clock, limits: Mapping[str, Limit]
) -> tuple[pa.Table, list[DeadLetter]]:
    """The events among the rows, as a table of `event_schema`, and the dead letters of all others.

    Of a row that counts already, a value that breaks its rule now is null, and the row is an event all the same.
    """
    source = offered.source
    now_us = clock if isinstance(clock, int) else clock.now_us
    settled = None if isinstance(clock, int) else clock.settled(offered.offsets)
    faults = _Faults(offered, limits, settled)
    for name, column in columns.items():
        for reason, mask in column.faults.items():
            faults.add(mask, reason, name)
        if name in limits:
            faults.add(_beyond(source, name, column.array, limits[name]), TOO_LARGE, name)
    arrays = {name: column.array for name, column in columns.items()}
    faults.add(_too_long(arrays, len(offered.offsets)), TOO_LARGE, "")
    _check_instants(faults, source, arrays[source.timestamp], now_us)
    if source.event_id != CONTENT_HASH:
        _check_ids(faults, source, arrays[source.event_id])
    if settled is not None:
        _refuse(faults, source, settled)
    dead = faults.letters()
    table = pa.table({**arrays, SOURCE_OFFSET: pa.array(offered.offsets, pa.int64())})
    return _with_ids(source, table.filter(pa.array(~faults.found)) if dead else table), dead


class _Faults:
    """The first fault of each row; those that count already have none but that nothing dates or names them."""

    def __init__(self, offered: Offered, limits: Mapping[str, Limit], settled: Ints | None = None) -> None:
        self._offered, self._limits = offered, limits
        self.found = np.zeros(len(offered.offsets), np.bool_)
        self._counts = None if settled is None else settled == COUNTS
        self._reports: list[tuple[int, str, str]] = []

    def add(self, mask: Mask, reason: str, column: str) -> None:
        """Report rows that have no fault yet."""
        if not np.count_nonzero(mask):
            return
        if self._counts is not None and reason not in (MISSING_TIMESTAMP, MISSING_EVENT_ID):
            mask = mask & ~self._counts
        rows = np.flatnonzero(mask & ~self.found)
        if len(rows):
            self.found[rows] = True
            self._reports += [(row, reason, column) for row in rows.tolist()]

    def letters(self) -> list[DeadLetter]:
        """One dead letter per reported row, in the order of the source."""
        return [
            self._offered.letter(row, reason, self._detail(row, reason, column))
            for row, reason, column in sorted(self._reports)
        ]

    def _detail(self, row: int, reason: str, column: str) -> str:
        source = self._offered.source
        if column == _BEFORE:
            return "it was refused when it was read first, and would be an event by what is defined now"
        if not column:
            return f"its text is longer than {EVENT_BYTES_MAX} bytes"
        if reason in (MISSING_TIMESTAMP, MISSING_EVENT_ID):
            return f"{column!r} is missing"
        value = _shown(self._offered.value(row, column))
        if reason == FUTURE:
            return f"{column!r} is {value}, more than {source.max_skew} ahead of the clock"
        if reason == BEFORE_HISTORY:
            return f"{column!r} is {value}, before the source's history_start {source.history_start}"
        limit = _limit(source, column, self._limits) if reason == TOO_LARGE else ""
        return f"{column!r} is {value}; expected {source.schema[column]}{limit}"


def _shown(value: Any) -> str:
    """The beginning of a value; of one that Python will not spell, what it is."""
    try:
        return repr(value)[:100]
    except (RecursionError, ValueError):  # nested too deeply, or a number of thousands of digits
        return f"a {type(value).__name__}"


def _limit(source: EventSource, column: str, limits: Mapping[str, Limit]) -> str:
    """What else is expected of a number that views sum."""
    if column not in limits:
        return ""
    kind, limit = source.schema[column], limits[column]
    size = decimal.Decimal(limit).scaleb(-kind.scale) if isinstance(kind, DecimalType) else limit
    return f" within ±{size}, so that no sum of it overflows"


def _beyond(source: EventSource, name: str, array: pa.Array, limit: Limit) -> Mask:
    """Values that would not fit the sums of a view."""
    units = units_of(array) if isinstance(source.schema[name], DecimalType) else np.asarray(filled(array, 0))
    return (units > limit) | (units < -limit)


def _too_long(arrays: Mapping[str, pa.Array], count: int) -> Mask:
    """Rows whose text alone is longer than an event may be."""
    size = np.zeros(count, np.int64)
    for array in arrays.values():
        if pa.types.is_string(array.type) and len(bytes_of(array)) > EVENT_BYTES_MAX // len(arrays):
            size += lengths_of(array)
    return size > EVENT_BYTES_MAX


def _refuse(faults: _Faults, source: EventSource, settled: Ints) -> None:
    """Rows that were refused when they were read first, whatever would be said of them now."""
    for place in np.unique(settled[settled >= 0]).tolist():
        reason = REASONS[place]
        faults.add(settled == place, reason, source.timestamp if reason == FUTURE else _BEFORE)


def _check_instants(faults: _Faults, source: EventSource, array: pa.Array, now_us: int) -> None:
    if array.null_count:
        faults.add(np.asarray(array.is_null()), MISSING_TIMESTAMP, source.timestamp)
    instants = np.asarray(filled(array.view(pa.int64()), 0))
    faults.add(instants > now_us + source.max_skew_us, FUTURE, source.timestamp)
    # Batch has no partition before history starts, so such an event would count in training and not online.
    faults.add(instants < source.history_start_us, BEFORE_HISTORY, source.timestamp)


def _check_ids(faults: _Faults, source: EventSource, array: pa.Array) -> None:
    length = lengths_of(array)
    faults.add(length == 0, MISSING_EVENT_ID, source.event_id)
    faults.add(length > source.event_id_bytes, TOO_LARGE, source.event_id)
    faults.add(with_nul(array), WRONG_TYPE, source.event_id)


def _with_ids(source: EventSource, table: pa.Table) -> pa.Table:
    """The table with its `event_id`, in the order of `event_schema`."""
    if EVENT_ID not in source.schema:
        if source.event_id == CONTENT_HASH:
            ids = content_hashes(source, table)
        else:
            ids = table[source.event_id]
        table = table.append_column(EVENT_ID, ids)
    schema = event_schema(source)
    if table.schema.equals(schema):
        return table
    table = table.select(schema.names)
    return table if table.schema.equals(schema) else table.cast(schema)
