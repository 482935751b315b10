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

from forebay.ingest.admit import Clock
from forebay.ingest.batch import EVENT_BYTES_MAX, INFINITE, MALFORMED, WRONG_TYPE, DeadLetter, EventBatch
from forebay.ingest.former import either, field_names
from forebay.ingest.rows import Messages, Unreadable, assembled, obstacle
from forebay.ingest.scalars import column_of
from forebay.language.limits import Limit
from forebay.language.source import EventSource

Ints = npt.NDArray[np.int64]
Scalar = int | float | str | bool | None
_UNREADABLE = (ValueError, RecursionError)


def decode_json(
    source: EventSource,
    partition: str,
    first_offset: int,
    lines: Sequence[bytes | None],
    clock: int | Clock,
    limits: Mapping[str, Limit] | None = None,
    *,
    offsets: Ints | None = None,
    bytes_max: int = EVENT_BYTES_MAX,
) -> tuple[EventBatch, list[DeadLetter]]:
    """The events of some lines of a partition, and a dead letter for every line that is none.

    Offsets count from `first_offset`, unless `offsets` names those of the lines, ascending (they may have gaps).
    A line that is `None` is a message without a value, one of more than `bytes_max` is too large. `limits` bounds the
    units of columns (see `Definitions.limits`).
    Never raises for what the lines hold.
    """
    messages = Messages(source, partition, first_offset, lines, offsets)
    decode, fields = _reading(source)
    rows, readable, unreadable = _rows(decode, lines, bytes_max)
    columns = {
        name: column_of(kind, either([list(map(field, rows)) for field in fields[name]]))
        for name, kind in source.schema.items()
    }

    def value(row: int, name: str) -> Any:
        return either([[field(rows[row])] for field in fields[name]])[0]

    return assembled(messages, columns, value, readable, unreadable, clock, limits or {})


@functools.lru_cache(maxsize=256)
def _reading(source: EventSource) -> tuple[Callable[[bytes], Any], Mapping[str, Sequence[Callable[[Any], Any]]]]:
    """What decodes one line into a row, and what gets each column out of a row, by each of its names."""
    names = field_names(source)
    fields = {
        name: [operator.attrgetter(f"c{names.index(one)}") for one in source.names_of(name)] for name in source.schema
    }
    return _decoder(names), fields


@functools.lru_cache(maxsize=256)
def _decoder(names: tuple[str, ...]) -> Callable[[bytes], Any]:
    """Decodes one line into a row with attributes c0, c1, … (a column may be called `class`)."""
    fields = [(f"c{i}", Scalar, None) for i in range(len(names))]
    row = msgspec.defstruct("Row", fields, rename={f"c{i}": name for i, name in enumerate(names)}, gc=False)
    return msgspec.json.Decoder(row).decode


def _rows(
    decode: Callable[[bytes], Any], lines: Sequence[bytes | None], bytes_max: int
) -> tuple[list[Any], list[int] | None, list[tuple[int, Unreadable]]]:
    """The decoded rows, the numbers of their lines (`None`: all), and those of the others with the reasons."""
    try:
        if max(map(len, lines), default=0) <= bytes_max:  # type: ignore[arg-type]  # None raises: below
            return list(map(decode, lines)), None, []  # type: ignore[arg-type]  # it raises for None
    except (*_UNREADABLE, TypeError):
        pass
    rows: list[Any] = []
    readable: list[int] = []
    unreadable: list[tuple[int, Unreadable]] = []
    for number, line in enumerate(lines):
        row = _row(decode, line, bytes_max)
        if isinstance(row, Unreadable):
            unreadable.append((number, row))
        else:
            rows.append(row)
            readable.append(number)
    return rows, readable, unreadable


def _row(decode: Callable[[bytes], Any], line: bytes | None, bytes_max: int) -> Any:
    """One decoded row, or why there is none."""
    why = obstacle(line, bytes_max)
    if why is not None or line is None:
        return why
    try:
        return decode(line)
    except _UNREADABLE as error:
        return Unreadable(*_reason(error))


def _reason(error: Exception) -> tuple[str, str]:
    """Why a line cannot be read: it is no JSON, or no object of scalars."""
    if not isinstance(error, msgspec.ValidationError):
        return MALFORMED, "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
    if "out of range" in str(error):
        return INFINITE, str(error)
    return (WRONG_TYPE if "$." in str(error) else MALFORMED), str(error)
