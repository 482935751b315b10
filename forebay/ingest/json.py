"""JSON lines become events.

msgspec decodes each line into a row of scalars: one C call per line, because joining lines into one document would
let a line such as `{"a":[1` run into the next. Only when a line of a batch fails are the lines looked at one by one,
and only the bad ones go. What the scalars mean is decided afterwards, column by column (`convert`). Unknown fields
are ignored, missing ones are null, and of two fields with one name the last counts.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.ingest.admit import Offered, admit
from forebay.ingest.batch import (
    EVENT_BYTES_MAX,
    INFINITE,
    MALFORMED,
    TOMBSTONE,
    TOO_LARGE,
    WRONG_TYPE,
    DeadLetter,
    EventBatch,
)
from forebay.ingest.convert import Converted, convert, merged
from forebay.language.source import EventSource
from forebay.language.types import AnyType

Ints = npt.NDArray[np.int64]
Scalar = int | float | str | bool | None
_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
_UNREADABLE = (ValueError, RecursionError)


def decode_json(
    source: EventSource,
    partition: str,
    first_offset: int,
    lines: Sequence[bytes | None],
    now_us: int,
    limits: Mapping[str, int] | None = None,
    *,
    offsets: Ints | None = None,
) -> tuple[EventBatch, list[DeadLetter]]:
    """The events of some lines of a partition, and a dead letter for every line that is none.

    Offsets count from `first_offset`, unless `offsets` names those of the lines, ascending (they may have gaps).
    A line that is `None` is a message without a value. `limits` bounds the units of columns (see `Definitions.limits`).
    Never raises for what the lines hold.
    """
    if offsets is None:
        offsets = np.arange(first_offset, first_offset + len(lines), dtype=np.int64)
    names = _columns(source)
    rows, readable, unreadable = _rows(_decoder(names), lines)
    kept = offsets if readable is None else offsets[readable]

    def raw(row: int) -> bytes:
        return lines[row if readable is None else readable[row]] or b""

    offered = Offered(source, partition, kept, raw, lambda row, name: getattr(rows[row], f"c{names.index(name)}"))
    columns = {
        name: _column(kind, list(map(operator.attrgetter(f"c{i}"), rows)))
        for i, (name, kind) in enumerate(source.schema.items())
    }
    table, dead = admit(offered, columns, now_us, limits or {})
    lost = Offered(source, partition, offsets, lambda row: lines[row] or b"", lambda row, name: None)
    dead = sorted([*dead, *(lost.letter(*letter) for letter in unreadable)], key=lambda letter: letter.offset)
    next_offset = int(offsets[-1]) + 1 if len(offsets) else first_offset
    return EventBatch(source, partition, table, first_offset, next_offset), dead


def _columns(source: EventSource) -> tuple[str, ...]:
    return tuple(source.schema)


@functools.lru_cache(maxsize=256)
def _decoder(names: tuple[str, ...]) -> Callable[[bytes], Any]:
    """Decodes one line into a row with attributes c0, c1, … (a column may be called `class`)."""
    fields = [(f"c{i}", Scalar, None) for i in range(len(names))]
    row = msgspec.defstruct("Row", fields, rename={f"c{i}": name for i, name in enumerate(names)}, gc=False)
    return msgspec.json.Decoder(row).decode


def _rows(
    decode: Callable[[bytes], Any], lines: Sequence[bytes | None]
) -> tuple[list[Any], list[int] | None, list[tuple[int, str, str]]]:
    """The decoded rows, the numbers of their lines (`None`: all), and (line, reason, detail) of the others."""
    try:
        if max(map(len, lines), default=0) <= EVENT_BYTES_MAX:  # type: ignore[arg-type]  # None raises: below
            return list(map(decode, lines)), None, []  # type: ignore[arg-type]  # it raises for None
    except (*_UNREADABLE, TypeError):
        pass
    rows: list[Any] = []
    readable: list[int] = []
    unreadable: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines):
        if line is None:
            unreadable.append((number, TOMBSTONE, "the message has no value"))
            continue
        if len(line) > EVENT_BYTES_MAX:
            unreadable.append((number, TOO_LARGE, f"{len(line)} bytes; an event has at most {EVENT_BYTES_MAX}"))
            continue
        try:
            rows.append(decode(line))
            readable.append(number)
        except _UNREADABLE as error:
            unreadable.append((number, *_reason(error)))
    return rows, readable, unreadable


def _reason(error: Exception) -> tuple[str, str]:
    """Why a line cannot be read: it is no JSON, or no object of scalars."""
    if not isinstance(error, msgspec.ValidationError):
        return MALFORMED, "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if "out of range" in str(error):
        return INFINITE, str(error)
    return (WRONG_TYPE if "$." in str(error) else MALFORMED), str(error)


def _column(kind: AnyType, values: list[Any]) -> Converted:
    """A column of scalars: as one Arrow array where they are of one type, by type and merged otherwise."""
    types = set(map(type, values)) - {type(None)}
    if types == {int, float}:
        try:
            return convert(kind, pa.array(values, pa.float64()))
        except (pa.ArrowInvalid, OverflowError):  # a whole number that no double is
            pass
    if len(types) == 1:
        return _of_type(kind, next(iter(types)), values)
    parts = [_of_type(kind, t, [v if type(v) is t else None for v in values]) for t in sorted(types, key=str)]
    return merged(parts) if parts else convert(kind, pa.nulls(len(values)))


def _of_type(kind: AnyType, python: type, values: list[Any]) -> Converted:
    try:
        return convert(kind, pa.array(values, _ARROW[python]))
    except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
        return _one_by_one(kind, python, values)


def _one_by_one(kind: AnyType, python: type, values: list[Any]) -> Converted:
    """A column with a whole number beyond 64 bits or text that is no UTF-8."""
    bad = np.zeros(len(values), np.bool_)
    for row, value in enumerate(values):
        try:
            pa.scalar(value, _ARROW[python])
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            bad[row] = True
    kept = [None if broken else value for value, broken in zip(values, bad.tolist(), strict=True)]
    rest = convert(kind, pa.array(kept, _ARROW[python]))
    return merged([rest, Converted(rest.array, {TOO_LARGE if python is int else MALFORMED: bad})])
