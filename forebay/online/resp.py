"""Commands of many keys at once: Arrow joins columns of names and values, and the joined buffer is what is sent.

    *5  $3 SET  $<n> <head><entity><tail>  $<n> <value>  $4 PXAT  $13 <instant>          one row, one command

Lives here: putting whole columns into the bytes of the Redis protocol (RESP2). No connection, no rule about what is
written. An instant of expiry is absolute, in milliseconds of the server's clock: the server would make one of a
relative time, for each command, in its append-only file and for its replicas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]
_LINE = b"\r\n"
_OFFSET_MAX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some whole commands, one after another."""

    data: memoryview
    commands: int


def set_commands(
    heads: pa.Array, entities: pa.Array, tail: str, values: pa.Array, expires_ms: Ints | None
) -> pa.BinaryArray:
    """One SET per row, of the name `<head><entity><tail>`; with `expires_ms` the value goes at that instant."""
    begin = b"*3\r\n$3\r\nSET\r\n" if expires_ms is None else b"*5\r\n$3\r\nSET\r\n"
    parts = [begin, *_name(heads, entities, tail), *_value(values)]
    if expires_ms is not None:
        parts += [b"$4\r\nPXAT\r\n", *_value(_digits(pa.array(expires_ms)))]
    return _joined(parts)


def append_commands(heads: pa.Array, entities: pa.Array, tail: str, values: pa.Array) -> pa.BinaryArray:
    """One APPEND per row, to the name `<head><entity><tail>`."""
    return _joined([b"*3\r\n$6\r\nAPPEND\r\n", *_name(heads, entities, tail), *_value(values)])


def expire_commands(heads: pa.Array, entities: pa.Array, tail: str, seconds: Ints) -> pa.BinaryArray:
    """One EXPIRE per row, of the name `<head><entity><tail>`."""
    lifetimes = _digits(pa.array(seconds))
    return _joined([b"*3\r\n$6\r\nEXPIRE\r\n", *_name(heads, entities, tail), *_value(lifetimes)])


def packed(commands: Sequence[bytes]) -> pa.BinaryArray:
    """A column of commands that are packed already."""
    return pa.array(commands, pa.binary())


def chunks(commands: pa.BinaryArray, bytes_max: int, commands_max: int) -> Iterator[Chunk]:
    """A column of commands in pieces of some `bytes_max` and at most `commands_max`, without copying."""
    _, offsets, data = commands.buffers()
    edges = np.frombuffer(offsets, np.int32)[commands.offset : commands.offset + len(commands) + 1]
    body, first = memoryview(data) if data is not None else memoryview(b""), 0
    while first < len(commands):
        last = int(np.searchsorted(edges, np.int32(min(edges[first] + bytes_max, _OFFSET_MAX))))
        last = min(max(last, first + 1), first + commands_max, len(commands))
        yield Chunk(body[edges[first] : edges[last]], last - first)
        first = last


def whole(commands: pa.BinaryArray) -> Chunk:
    """A column of commands as one chunk, without copying."""
    return next(chunks(commands, _OFFSET_MAX, len(commands)), Chunk(memoryview(b""), 0))


def _name(heads: pa.Array, entities: pa.Array, tail: str) -> list[bytes | pa.Array]:
    heads, entities, end = heads.cast(pa.binary()), entities.cast(pa.binary()), tail.encode()
    size = pc.add(pc.add(pc.binary_length(heads), pc.binary_length(entities)), len(end))
    return [b"$", _digits(size), _LINE, heads, entities, end + _LINE]


def _value(values: pa.Array) -> list[bytes | pa.Array]:
    return [b"$", _digits(pc.binary_length(values)), _LINE, values, _LINE]


def _joined(parts: Sequence[bytes | pa.Array]) -> pa.BinaryArray:
    """Each row's bytes, one after another; constants that follow one another are one."""
    merged: list[bytes | pa.Array] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            merged[-1] = last + part
        else:
            merged.append(part)
    columns = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in merged]
    joined: pa.BinaryArray = pc.binary_join_element_wise(*columns, b"")
    return joined


def _digits(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string()).cast(pa.binary())
