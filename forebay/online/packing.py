"""A publication's loops over tiles, compiled: which of them are needed, and their bytes as commands, in one pass each.

    forebay.core.tiles     heads → needed → checks → groups      choose
    forebay.algebra.ragged spread                                gather
    forebay.core.condensed condense                              mark, put_condensed
    forebay.online.resp    gathered, joined column by column     set_scattered

The same bytes, by law. May live here: what a publication of many tiles does with each of them. No rule about what is
written, and no connection. This module needs the extra `fast`; who has many tiles imports it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.kernel import compiled
from forebay.core.layout import PENDING
from forebay.core.texts import data_of, edges_of
from forebay.online.resp import EXPIRE_AT, OK, ONE, Commands, Scattered, opener

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
    most = int(np.diff(keys).max(initial=0))
    opening = _openers(most, firsts is None, expires_ms is not None)
    closing = np.frombuffer(EXPIRE_AT, np.uint8)
    names, name_edges = _bytes_of(entities)
    name_heads, name_tail = _table([head.encode() for head in heads]), _table([tail.encode() + b"\r\n"])[0]
    width = values.records.dtype.itemsize
    around = 2 * SIZE_BYTES + name_heads.shape[1] + len(name_tail) + values.heads.shape[1] + 2 + -(-width // 8)
    size = count * around + int(name_edges[-1] - name_edges[0])
    size += (len(keys) - 1) * (int(np.diff(opening[1]).max()) + len(closing) + 2 * SIZE_BYTES)
    out = np.empty(size + len(values.rows) * width, np.uint8)
    ends = np.zeros(len(keys), np.int64)
    data = np.ascontiguousarray(values.records).view(np.uint8)
    commands = (keys, *opening, closing, np.empty(0, np.int64) if expires_ms is None else expires_ms)
    named = (name_heads, slots, names, name_edges, name_tail)
    put_sets(commands, named, values.heads, data, values.rows, width, values.edges, out, ends)
    return Commands(out.data, ends, keys, ONE if firsts is not None and expires_ms is not None else OK)


@compiled
def choose(
    codes: Array,
    starts: Array,
    rings: Array,
    newest: Array,
    edges: Array,
    cut_us: int,
    rows: Array,
    begins: Array,
    latest: Array,
) -> Any:
    """Write the numbers of the tiles that start at or after the edge of their ring, where among them those of another
    entity begin, and the newest event of these.

    Returns how many tiles there are, how many times an entity begins, and a tile that is pending or not before the cut
    (−1: none).
    """
    count, groups, wrong, last = 0, 0, -1, -1
    for i in range(len(starts)):
        if starts[i] >= edges[rings[i]]:
            if codes[i] != last:
                last = codes[i]
                begins[groups], latest[groups] = count, newest[i]
                groups += 1
            rows[count], latest[groups - 1] = i, max(latest[groups - 1], newest[i])
            count += 1
            if wrong < 0 and (starts[i] >= cut_us or rings[i] == PENDING):
                wrong = i
    return count, groups, wrong


@compiled
def put(out: Array, at: int, data: Array, first: int, last: int) -> int:
    """Copy `data[first:last]` to `out[at:]`; where it ends. Unsigned numbers let the loop be one of vectors."""
    end = at + last - first
    to, of = out[at:end], data[first:last]
    for i in range(np.uint64(len(to))):
        to[np.uint64(i)] = of[np.uint64(i)]
    return end


@compiled
def gather(rows: Array, begins: Array, edges: Array, out: Array) -> None:
    """Copy the rows from each of `begins` on to `out[edges[i]:edges[i + 1]]`."""
    for i in range(len(begins)):
        put(out, edges[i], rows, begins[i], begins[i] + edges[i + 1] - edges[i])


@compiled
def put_size(out: Array, at: int, size: int) -> int:
    """Write `$<size>` and the end of the line; where it ends."""
    out[at] = DOLLAR
    return put_number(out, at + 1, size, digits_of(size))


@compiled
def put_number(out: Array, at: int, number: int, digits: int) -> int:
    """Write a number of so many digits and the end of the line; where it ends."""
    for i in range(digits):
        out[at + digits - 1 - i] = ZERO + number % 10
        number //= 10
    out[at + digits], out[at + digits + 1] = RETURN, NEWLINE
    return at + digits + 2


@compiled
def digits_of(number: int) -> int:
    """How many digits a number has that is not negative."""
    digits = 1
    while number >= 10:
        number //= 10
        digits += 1
    return digits


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
    """Write command g, which sets the keys `firsts[g]:firsts[g + 1]`; `ends` are told.

    One of so many keys opens with `openers[opener_edges[keys]:opener_edges[keys + 1]]`; where instants are given, it
    closes with `closing` and the last one of its keys.
    The name of key i is the head of its slot, `names[name_edges[i]:name_edges[i + 1]]` and the tail (which has the end
    of the line); its value is its head and, condensed, the rows `edges[i]:edges[i + 1]` of `data`, each of `width`
    bytes and at least one.
    """
    firsts, openers, opener_edges, closing, expires_ms = commands
    name_heads, slots, names, name_edges, name_tail = named
    at, head_bytes = 0, value_heads.shape[1]
    around = name_heads.shape[1] + len(name_tail) - 2
    differs, own_bytes = np.empty(width, np.uint8), np.empty(width, np.uint64)
    for g in range(len(ends) - 1):
        together = firsts[g + 1] - firsts[g]
        at = put(out, at, openers, opener_edges[together], opener_edges[together + 1])
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
        if len(expires_ms):
            last_ms = expires_ms[firsts[g] : firsts[g + 1]].max()
            at = put(out, at, closing, 0, len(closing))
            at = put_size(out, at, digits_of(last_ms))
            at = put_number(out, at, last_ms, digits_of(last_ms))
        ends[g + 1] = at


@functools.lru_cache(maxsize=256)
def _openers(most: int, alone: bool, expire: bool) -> tuple[Array, Ints]:
    """How commands of up to so many keys begin, one after another, and where each of them lies."""
    texts = [opener(size, alone=alone, expire=expire) for size in range(most + 1)]
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)])


def _bytes_of(texts: pa.Array) -> tuple[Array, Array]:
    """The bytes of texts, and where each of them lies (one more than there are)."""
    return np.frombuffer(data_of(texts), np.uint8), edges_of(texts)


def _table(texts: Sequence[bytes]) -> Array:
    """Texts of one length as rows of bytes."""
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), -1)
