"""Commands of many keys at once: Arrow joins columns of names and values, and the joined buffer is what is sent.

    *68 $6 MSETEX $2 32   $<n> <head><entity><tail>  $<n> <value>   … 31 more rows …   $4 PXAT  $13 <instant>
    *65 $4 MSET           $<n> <head><entity><tail>  $<n> <value>   … 31 more rows …          what never goes
    *5  $3 SET            $<n> <head><entity><tail>  $<n> <value>   $4 PXAT  $13 <instant>    each row by itself

Lives here: putting whole columns into the bytes of the Redis protocol (RESP2). No connection, no rule about what is
written. An instant of expiry is absolute, in milliseconds of the server's clock: the server would make one of a
relative time, for each command, in its append-only file and for its replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.texts import data_of, edges_of

Ints = npt.NDArray[np.int64]
_LINE = b"\r\n"
OK, ONE = b"+OK\r\n", b":1\r\n"
EXPIRE_AT = b"$4\r\nPXAT\r\n"
COUNTED_MAX = 1 << 16
"""Numbers up to this are told apart by counting, greater ones by sorting."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some whole commands, one after another, that set so many keys, on a cluster of one `slot`; each of them is
    answered by `reply`.
    """

    data: memoryview
    commands: int
    keys: int
    reply: bytes = OK
    slot: int = 0


@dataclass(frozen=True, eq=False)
class Commands:
    """Packed commands one after another: command i is `data[edges[i]:edges[i + 1]]`, `keys[i]` are set before it."""

    data: memoryview
    edges: Ints
    keys: Ints
    reply: bytes = OK

    def __len__(self) -> int:
        return len(self.keys) - 1


@dataclass(frozen=True, eq=False)
class Scattered:
    """Values that lie in pieces: of key i `heads[i]` and, condensed, the records `rows[edges[i]:edges[i + 1]]`."""

    heads: npt.NDArray[np.uint8]
    records: npt.NDArray[Any]
    rows: Ints
    edges: Ints


def set_commands(
    heads: Sequence[str],
    slots: Ints,
    entities: pa.Array,
    tail: str,
    values: Sequence[pa.Array],
    expires_ms: Ints | None,
    firsts: Ints | None = None,
) -> Commands:
    """Set the name `<head><entity><tail>` of each row to its value, which is the columns `values`, one after another.

    `heads` are those of names by slot. With `expires_ms` the values go at these instants. With `firsts`, the rows from
    each of them to the next are one command, and go with the last of them; such a command with an instant is one that
    not every server knows.
    """
    count = len(entities)
    starts = np.arange(count) if firsts is None else firsts
    edges = np.append(starts, count)
    opening = _spread(openers(np.diff(edges), alone=firsts is None, expire=expires_ms is not None), starts, count)
    closing = [] if expires_ms is None else [_spread(expiries(expires_ms, starts), edges[1:] - 1, count)]
    behind = _behind(f"{tail}\r\n", values)
    joined = _joined([opening, _ahead(heads, slots, entities, len(tail)), entities, behind, *values, _LINE, *closing])
    return _cut(joined, edges, ONE if firsts is not None and expires_ms is not None else OK)


def append_commands(heads: pa.Array, entities: pa.Array, tail: str, values: pa.Array) -> Commands:
    """One APPEND per row, to the name `<head><entity><tail>`."""
    joined = _joined([b"*3\r\n$6\r\nAPPEND\r\n", *_name(heads, entities, tail), *_value(values)])
    return _cut(joined, np.arange(len(joined) + 1))


def expire_commands(heads: pa.Array, entities: pa.Array, tail: str, seconds: Ints) -> Commands:
    """One EXPIRE per row, of the name `<head><entity><tail>`."""
    lifetimes = _digits(pa.array(seconds))
    joined = _joined([b"*3\r\n$6\r\nEXPIRE\r\n", *_name(heads, entities, tail), *_value(lifetimes)])
    return _cut(joined, np.arange(len(joined) + 1))


def packed(commands: Sequence[bytes]) -> Commands:
    """Commands that are packed already, of one key each."""
    edges = np.concatenate(([0], np.cumsum([len(command) for command in commands], dtype=np.int64)))
    return Commands(memoryview(b"".join(commands)), edges, np.arange(len(commands) + 1))


def chunks(commands: Commands, bytes_max: int, keys_max: int) -> Iterator[Chunk]:
    """Commands in pieces of some `bytes_max` and at most `keys_max` keys (at least one command), without copying."""
    first, edges, keys = 0, commands.edges, commands.keys
    while first < len(commands):
        last = min(
            int(np.searchsorted(edges, edges[first] + bytes_max)),
            int(np.searchsorted(keys, min(int(keys[first]) + keys_max, int(keys[-1])), "right")) - 1,
            len(commands),
        )
        last = max(last, first + 1)
        body = commands.data[edges[first] : edges[last]]
        yield Chunk(body, last - first, int(keys[last] - keys[first]), commands.reply)
        first = last


def section(commands: Commands, rows: slice) -> Commands:
    """The commands of some of their rows, without copying; `rows` ends where commands do."""
    first, last = np.searchsorted(commands.keys, (rows.start, rows.stop)).tolist()
    edges, keys = commands.edges[first : last + 1], commands.keys[first : last + 1]
    return Commands(commands.data[edges[0] : edges[-1]], edges - edges[0], keys - keys[0], commands.reply)


def part(commands: Commands, rows: slice) -> Chunk:
    """The same as one chunk."""
    if (rows.start, rows.stop) == (0, int(commands.keys[-1])):
        return Chunk(commands.data, len(commands), rows.stop, commands.reply)
    found = section(commands, rows)
    return Chunk(found.data, len(found), rows.stop - rows.start, found.reply)


def _ahead(heads: Sequence[str], slots: Ints, entities: pa.Array, more: int) -> pa.Array:
    """What stands before an entity in each row: the size of its name, with `more` bytes behind it, and the head."""
    distinct, which = _distinct(np.asarray(pc.binary_length(entities)) * len(heads) + slots)
    sized = [(length + more, heads[slot].encode()) for length, slot in (divmod(one, len(heads)) for one in distinct)]
    return pa.array([b"$%d\r\n%b" % (len(head) + size, head) for size, head in sized], pa.binary()).take(which)


def _behind(tail: str, values: Sequence[pa.Array]) -> pa.Array:
    """What stands behind an entity in each row: the tail, and the size of its value."""
    length = functools.reduce(pc.add, map(pc.binary_length, values))
    distinct, which = _distinct(np.asarray(length))
    return pa.array([b"%b$%d\r\n" % (tail.encode(), size) for size in distinct], pa.binary()).take(which)


def _distinct(numbers: Ints) -> tuple[list[int], pa.Array]:
    """The distinct numbers among some that are not negative, and which of them each is."""
    if not len(numbers) or numbers.max() > COUNTED_MAX:
        several, which = np.unique(numbers, return_inverse=True)
        return several.tolist(), pa.array(which)
    several = np.flatnonzero(np.bincount(numbers))
    place = np.empty(several[-1] + 1, np.int32)
    place[several] = np.arange(len(several))
    return several.tolist(), pa.array(place[numbers])


def _name(heads: pa.Array, entities: pa.Array, tail: str) -> list[bytes | pa.Array]:
    heads, entities, end = heads.cast(pa.binary()), entities.cast(pa.binary()), tail.encode()
    size = pc.add(pc.add(pc.binary_length(heads), pc.binary_length(entities)), len(end))
    return [b"$", _digits(size), _LINE, heads, entities, end + _LINE]


def _value(*values: pa.Array) -> list[bytes | pa.Array]:
    """A value that is some columns, one after another."""
    length = functools.reduce(pc.add, map(pc.binary_length, values))
    return [b"$", _digits(length), _LINE, *values, _LINE]


def _joined(parts: Sequence[bytes | pa.Array]) -> pa.BinaryArray:
    """Each row's bytes, one after another; constants that follow one another are one."""
    merged: list[bytes | pa.Array] = []
    for part in parts:
        last = merged[-1] if merged else None
        if isinstance(part, bytes) and isinstance(last, bytes):
            merged[-1] = last + part
        else:
            merged.append(part)
    columns = [pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part.cast(pa.binary()) for part in merged]
    joined: pa.BinaryArray = pc.binary_join_element_wise(*columns, b"")
    return joined


def _cut(joined: pa.BinaryArray, edges: Ints, reply: bytes = OK) -> Commands:
    """Joined rows as commands that begin at some of them."""
    return Commands(data_of(joined), edges_of(joined).astype(np.int64)[edges], edges, reply)


def openers(sizes: Ints, *, alone: bool, expire: bool) -> pa.Array:
    """How the command of each group of so many rows begins."""
    distinct, which = np.unique(sizes, return_inverse=True)
    texts = [opener(size, alone=alone, expire=expire) for size in distinct.tolist()]
    return pa.array(texts, pa.binary()).take(pa.array(which))


def opener(size: int, *, alone: bool, expire: bool) -> bytes:
    """How the command of a group of so many rows begins."""
    if alone:
        return b"*5\r\n$3\r\nSET\r\n" if expire else b"*3\r\n$3\r\nSET\r\n"
    if expire:
        digits = str(size).encode()
        return b"*%d\r\n$6\r\nMSETEX\r\n$%d\r\n%b\r\n" % (2 * size + 4, len(digits), digits)
    return b"*%d\r\n$4\r\nMSET\r\n" % (2 * size + 1)


def expiries(expires_ms: Ints, starts: Ints) -> pa.Array:
    """How the command of each group ends: with the last instant of its rows."""
    instants = _digits(pa.array(np.maximum.reduceat(expires_ms, starts) if len(starts) else expires_ms))
    return _joined([EXPIRE_AT, *_value(instants)])


def _spread(texts: pa.Array, rows: Ints, count: int) -> pa.Array:
    """A column of `count` texts that are empty but in some ascending rows."""
    if len(rows) == count:
        return texts
    lengths = np.zeros(count + 1, np.int32)
    lengths[rows + 1] = np.asarray(pc.binary_length(texts))
    offsets, data = np.cumsum(lengths, dtype=np.int32), texts.buffers()[2]
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), data])


def _digits(numbers: pa.Array) -> pa.Array:
    return numbers.cast(pa.string()).cast(pa.binary())
