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
    """Some whole commands, one after another; each of them is answered by `+OK`."""

    data: memoryview
    commands: int


def set_commands(
    heads: pa.Array, entities: pa.Array, tail: str, values: pa.Array, expires_ms: Ints | None
) -> pa.BinaryArray:
    """One SET per row, of the name `<head><entity><tail>`; with `expires_ms` the value goes at that instant."""
    heads, entities, end = heads.cast(pa.binary()), entities.cast(pa.binary()), tail.encode()
    size = pc.add(pc.add(pc.binary_length(heads), pc.binary_length(entities)), len(end))
    begin = b"*3\r\n$3\r\nSET\r\n$" if expires_ms is None else b"*5\r\n$3\r\nSET\r\n$"
    parts = [begin, _digits(size), _LINE, heads, entities, end + b"\r\n$"]
    parts += [_digits(pc.binary_length(values)), _LINE, values, _LINE]
    if expires_ms is not None:
        instants = _digits(pa.array(expires_ms))
        parts += [b"$4\r\nPXAT\r\n$", _digits(pc.binary_length(instants)), _LINE, instants, _LINE]
    columns = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in parts]
    joined: pa.BinaryArray = pc.binary_join_element_wise(*columns, b"")
    return joined


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


def _digits(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string()).cast(pa.binary())
