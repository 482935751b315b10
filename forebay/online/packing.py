"""A publication's loops over tiles, compiled: which of them are needed, and their bytes as commands, in one pass each.

    forebay.core.tiles     heads → needed → checks               choose
    forebay.core.condensed condense                              mark, put_condensed
    forebay.online.resp    gathered, joined column by column     set_scattered

The same bytes, by law. May live here: what a publication of many tiles does with each of them. No rule about what is
written, and no connection. This module needs the extra `fast`; who has many tiles imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.kernel import compiled
from forebay.core.layout import PENDING
from forebay.online.resp import OK, ONE, Commands, Scattered, expiries, openers

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
DOLLAR, ZERO, RETURN, NEWLINE = 36, 48, 13, 10
SIZE_BYTES = 23
"""Bytes of a size at most: a dollar, 20 digits, the end of the line."""


def set_scattered(
    heads: Sequence[str],
    slots: Ints,
    entities: pa.Array,
    tail: str,
    values: Scattered,
    expires_ms: Ints | None,
    firsts: Ints | None,
) -> Commands:
    """As `forebay.online.resp.set_commands`; `heads` are those of names by slot, all of one length, and the records
    of each value are condensed.
    """
    count = len(slots)
    keys = np.append(np.arange(count) if firsts is None else firsts, count)
    opening = _bytes_of(openers(np.diff(keys), alone=firsts is None, expire=expires_ms is not None))
    closing = _bytes_of(pa.repeat(b"", len(keys) - 1) if expires_ms is None else expiries(expires_ms, keys[:-1]))
    names, name_edges = _bytes_of(entities)
    name_heads, name_tail = _table([head.encode() for head in heads]), _table([tail.encode() + b"\r\n"])[0]
    width, first = values.records.dtype.itemsize, values.edges[0]
    around = 2 * SIZE_BYTES + name_heads.shape[1] + len(name_tail) + values.heads.shape[1] + 2 + -(-width // 8)
    size = count * around + int(name_edges[-1] - name_edges[0]) + len(opening[0]) + len(closing[0])
    out = np.empty(size + int(values.edges[-1] - first) * width, np.uint8)
    ends = np.zeros(len(keys), np.int64)
    data = np.ascontiguousarray(values.records).view(np.uint8)
    commands = (keys, *opening, *closing)
    named = (name_heads, slots, names, name_edges, name_tail)
    put_sets(commands, named, values.heads, data, values.rows, width, values.edges, out, ends)
    return Commands(out.data, ends, keys, ONE if firsts is not None and expires_ms is not None else OK)


@compiled
def choose(starts: Array, rings: Array, newest: Array, edges: Array, cut_us: int, rows: Array, latest: Array) -> Any:
    """Write the numbers of the tiles that start at or after the edge of their ring, and the newest event of each.

    Returns how many there are, and one of them that is pending or not before the cut (−1: none).
    """
    count, wrong = 0, -1
    for i in range(len(starts)):
        if starts[i] >= edges[rings[i]]:
            rows[count], latest[count] = i, newest[i]
            count += 1
            if wrong < 0 and (starts[i] >= cut_us or rings[i] == PENDING):
                wrong = i
    return count, wrong


@compiled
def put(out: Array, at: int, data: Array, first: int, last: int) -> int:
    """Copy `data[first:last]` to `out[at:]`; where it ends. Unsigned numbers let the loop be one of vectors."""
    end = at + last - first
    to, of = out[at:end], data[first:last]
    for i in range(np.uint64(len(to))):
        to[np.uint64(i)] = of[np.uint64(i)]
    return end


@compiled
def put_size(out: Array, at: int, size: int) -> int:
    """Write `$<size>` and the end of the line; where it ends."""
    digits, left = 1, size
    while left >= 10:
        left //= 10
        digits += 1
    out[at] = DOLLAR
    for i in range(digits):
        out[at + digits - i] = ZERO + size % 10
        size //= 10
    out[at + digits + 1], out[at + digits + 2] = RETURN, NEWLINE
    return at + digits + 3


@compiled
def mark(data: Array, rows: Array, low: int, high: int, width: int, differs: Array) -> int:
    """Make `differs` other than zero for each byte in which the rows `rows[low:high]` differ; how many these are."""
    for byte in range(np.uint64(width)):
        differs[byte] = 0
    first = data[rows[low] * width : (rows[low] + 1) * width]
    for j in range(low + 1, high):
        row = data[rows[j] * width : (rows[j] + 1) * width]
        for byte in range(np.uint64(width)):
            differs[byte] |= first[byte] ^ row[byte]
    own = 0
    for byte in range(np.uint64(width)):
        own += differs[byte] != 0
    return own


@compiled
def put_condensed(
    out: Array, at: int, data: Array, rows: Array, low: int, high: int, differs: Array, places: Array
) -> int:
    """Write the rows `rows[low:high]`, which differ in the bytes marked: bits, shared and own bytes; where it ends.

    `places` is room for the numbers of those bytes.
    """
    width, own, bits = len(differs), np.uint64(0), np.uint64(0)
    first, to, end = data[rows[low] * width : (rows[low] + 1) * width], out[at:], np.uint64((width + 7) // 8)
    for byte in range(np.uint64(width)):  # without branches, which nobody could foresee
        differ = np.uint64(differs[byte] != 0)
        bits |= differ << (byte & np.uint64(7))
        if byte & np.uint64(7) == np.uint64(7):
            to[byte >> np.uint64(3)] = bits
            bits = np.uint64(0)
        to[end], places[own] = first[byte], byte
        end += np.uint64(1) - differ
        own += differ
    if width & 7:
        to[np.uint64(width >> 3)] = bits
    for j in range(low, high):
        row = data[rows[j] * width : (rows[j] + 1) * width]
        for i in range(own):
            to[end + i] = row[places[i]]
        end += own
    return at + int(end)


@compiled
def put_sets(
    commands: tuple[Array, Array, Array, Array, Array],
    named: tuple[Array, Array, Array, Array, Array],
    value_heads: Array,
    data: Array,
    rows: Array,
    width: int,
    edges: Array,
    out: Array,
    ends: Array,
) -> None:
    """Write command g, which opens and closes as given and sets the keys `firsts[g]:firsts[g + 1]`; `ends` are told.

    The name of key i is the head of its slot, `names[name_edges[i]:name_edges[i + 1]]` and the tail (which has the end
    of the line); its value is its head and, condensed, the rows `edges[i]:edges[i + 1]` of `data`, each of `width`
    bytes and at least one.
    """
    firsts, openers, opener_edges, closers, closer_edges = commands
    name_heads, slots, names, name_edges, name_tail = named
    at, head_bytes = 0, value_heads.shape[1]
    around = name_heads.shape[1] + len(name_tail) - 2
    differs, own_bytes = np.empty(width, np.uint8), np.empty(width, np.uint64)
    for g in range(len(ends) - 1):
        at = put(out, at, openers, opener_edges[g], opener_edges[g + 1])
        for i in range(firsts[g], firsts[g + 1]):
            at = put_size(out, at, around + name_edges[i + 1] - name_edges[i])
            at = put(out, at, name_heads[slots[i]], 0, name_heads.shape[1])
            at = put(out, at, names, name_edges[i], name_edges[i + 1])
            at = put(out, at, name_tail, 0, len(name_tail))
            low, high = edges[i], edges[i + 1]
            own = mark(data, rows, low, high, width, differs)
            size = (width + 7) // 8 + width - own + own * (high - low)
            at = put_size(out, at, head_bytes + size)
            at = put(out, at, value_heads[i], 0, head_bytes)
            at = put_condensed(out, at, data, rows, low, high, differs, own_bytes)
            out[at], out[at + 1] = RETURN, NEWLINE
            at += 2
        at = put(out, at, closers, closer_edges[g], closer_edges[g + 1])
        ends[g + 1] = at


def _bytes_of(texts: pa.Array) -> tuple[Array, Array]:
    """The bytes of texts, and where each of them lies (one more than there are)."""
    _, offsets, data = texts.buffers()
    edges = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data or b"", np.uint8), edges


def _table(texts: Sequence[bytes]) -> Array:
    """Texts of one length as rows of bytes."""
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), -1)
