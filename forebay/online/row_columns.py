"""Blobs of many rows at once: each column is made MessagePack by whole-array operations, and Arrow joins the columns.

    95 01 ce<layout> | cf<event_us> | cf<created_us> | 95 | cb<8 bytes> | 07 or cd<2 bytes> … | a3 "abc" | c0
    └ the same for all rows; columns of one width lie side by side ┘   └ others are columns of their own ┘

The bytes are those of `forebay.online.row_blob.pack_rows`, which is the definition, by law. May live here: how a column
of numbers or texts looks in MessagePack, always in its shortest form. Lists and vectors are packed row by row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.events import Column
from forebay.core.rows import Rows
from forebay.language.types import ListType, VectorType
from forebay.language.view import BatchView
from forebay.online.row_blob import FORMAT_VERSION, fingerprint, pack_rows

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Chosen = npt.NDArray[np.intp]

NIL, FALSE, FLOAT = 0xC0, 0xC2, 0xCB
EDGES = np.array([-(2**31), -(2**15), -(2**7), -(2**5), 2**7, 2**8, 2**16, 2**32])
"""Whole numbers from each of these to the next one have one form; those below and those above have two more."""
MARKERS = np.array([0xD3, 0xD2, 0xD1, 0xD0, 0, 0xCC, 0xCD, 0xCE, 0xCF], np.uint8)
"""The byte before them, by form; a number of one byte stands for itself."""
SIZES = np.array([8, 4, 2, 1, 0, 1, 2, 4, 8])
"""Bytes of a number behind it."""
SHIFTS = np.array([0, 56, 48, 0, 32, 0, 0, 0, 0])
"""How far the low bytes of a number, so many, are from its first bytes."""
TEXT_EDGES, TEXT_MARKERS, TEXT_SIZES = np.array([2**5, 2**8, 2**16]), np.array([0xA0, 0xD9, 0xDA, 0xDB]), (0, 1, 2, 4)
"""The same of the length of a text: a short one is in the marker."""
TOKEN = np.dtype([("marker", "u1"), ("number", ">u8")])
"""A number and what stands before it; those of fewer bytes are the first bytes of it."""
TAKEN = np.arange(TOKEN.itemsize) < np.arange(TOKEN.itemsize + 1)[:, None]
"""The first bytes of so many."""


def blob_columns(view: BatchView, rows: Rows, chosen: Chosen) -> list[pa.Array]:
    """The blobs of some rows, as columns of bytes that are to be joined."""
    if any(isinstance(feature.type, ListType | VectorType) for feature in view.outputs().values()):
        return [pa.array(pack_rows(view, rows, chosen), pa.binary())]
    joined: list[pa.Array] = []
    beside = Beside(len(chosen))
    for token in _tokens(view, rows, chosen):
        if isinstance(token, Fixed):
            beside.add(token)
        else:
            joined += [*beside.flushed(), token]
    return joined + beside.flushed()


@dataclass(frozen=True, eq=False)
class Fixed:
    """Bytes that are the same in all rows, and numbers of so many bytes behind them."""

    constant: bytes
    numbers: Array | None = None
    size: int = 0


class Beside:
    """Tokens that have one width in all rows, side by side."""

    def __init__(self, count: int) -> None:
        self._count, self._row, self._numbers = count, bytearray(), list[tuple[int, Array, int]]()

    def add(self, token: Fixed) -> None:
        """One more to the right."""
        self._row += token.constant
        if token.numbers is not None:
            self._numbers.append((len(self._row), token.numbers, token.size))
            self._row += bytes(token.size)

    def flushed(self) -> list[pa.Array]:
        """They as one column, if there are any; none are left."""
        if not self._row:
            return []
        width, fields = len(self._row), [str(at) for at, _, _ in self._numbers]
        kinds = [f">{numbers.dtype.kind}{size}" for _, numbers, size in self._numbers]
        places = [at for at, _, _ in self._numbers]
        row = np.dtype({"names": fields, "formats": kinds, "offsets": places, "itemsize": width})
        data = np.empty((self._count, width), np.uint8)
        data[:] = np.frombuffer(self._row, np.uint8)
        for field, (_, numbers, _) in zip(fields, self._numbers, strict=True):
            data.view(row)[field][:, 0] = numbers  # the low bytes of whole numbers
        self._row, self._numbers = bytearray(), []
        return [_binary(data, np.arange(self._count + 1) * width)]


def _tokens(view: BatchView, rows: Rows, chosen: Chosen) -> Iterator[Fixed | pa.Array]:
    """What stands in a blob, one after another."""
    outputs, encode = view.outputs(), msgspec.msgpack.encode
    yield Fixed(b"\x95" + encode(FORMAT_VERSION) + encode(fingerprint(view)))
    yield from _integers(rows.event_us[chosen])
    yield from _integers(rows.created_us[chosen])
    yield Fixed(bytes([0x90 | len(outputs)]) if len(outputs) < 16 else struct.pack(">BH", 0xDC, len(outputs)))
    for name in outputs:
        yield from _column(rows.columns[name].take(chosen))


def _column(column: Column) -> Iterator[Fixed | pa.Array]:
    kind = column.values.dtype.kind
    if kind in "SO":
        return _texts(column)
    if kind == "f":
        return _floats(column)
    return _booleans(column) if kind == "b" else _integers(column.values, None if column.is_whole else column.valid)


def _floats(column: Column) -> Iterator[Fixed | pa.Array]:
    numbers = column.values.astype(np.float64, copy=False)
    if column.is_whole:
        yield Fixed(bytes([FLOAT]), numbers, 8)
    else:
        markers = np.where(column.valid, FLOAT, NIL)
        yield _tokens_of(markers, numbers.view(np.uint64), np.where(column.valid, 9, 1))


def _booleans(column: Column) -> Iterator[Fixed | pa.Array]:
    yield Fixed(b"", np.where(column.valid, column.values.astype(np.uint8) | FALSE, NIL), 1)


def _texts(column: Column) -> Iterator[Fixed | pa.Array]:
    kind = pa.binary() if column.values.dtype.kind == "S" else pa.string()
    texts = pa.array(column.values.tolist(), kind).cast(pa.binary()).fill_null(b"")
    if not column.is_whole:
        texts = pc.if_else(pa.array(column.valid), texts, b"")
    lengths = np.asarray(pc.binary_length(texts)).astype(np.int64)
    form = np.searchsorted(TEXT_EDGES, lengths, "right")
    markers, sizes = TEXT_MARKERS[form] | np.where(form, 0, lengths), np.array(TEXT_SIZES)[form]
    yield _tokens_of(np.where(column.valid, markers, NIL), _first(lengths, sizes), np.where(column.valid, 1 + sizes, 1))
    yield texts


def _integers(numbers: Array, valid: npt.NDArray[np.bool_] | None = None) -> Iterator[Fixed | pa.Array]:
    """Whole numbers, each in as few bytes as it needs; nil where they are not valid."""
    numbers = numbers.astype(np.int64, copy=False)
    least, most = (numbers.min(), numbers.max()) if len(numbers) else (0, 0)
    first, last = np.searchsorted(EDGES, (least, most), "right").tolist()
    if first == last and valid is None:
        size = int(SIZES[first])
        yield Fixed(bytes(MARKERS[first : first + 1]) if size else b"", numbers, size or 1)
        return
    form = np.full(len(numbers), first, np.int8)
    for edge in EDGES[first:last]:
        form += numbers >= edge
    sizes = SIZES[form]
    markers = np.where(sizes, MARKERS[form], numbers.astype(np.uint8))
    if valid is not None:
        markers, sizes = np.where(valid, markers, NIL), np.where(valid, sizes, 0)
    yield _tokens_of(markers, _first(numbers, sizes), 1 + sizes)


def _first(numbers: Ints, sizes: Ints) -> Ints:
    """The low bytes of numbers, so many of each, where their first bytes are."""
    shifted: Ints = numbers << SHIFTS[sizes]
    return shifted


def _tokens_of(markers: Array, numbers: Array, sizes: Ints) -> pa.Array:
    """A column of tokens of so many bytes each."""
    tokens = np.empty(len(markers), TOKEN)
    tokens["marker"], tokens["number"] = markers, numbers.view(np.uint64)
    data = tokens.view(np.uint8).reshape(len(tokens), TOKEN.itemsize)
    return _binary(data[TAKEN.take(sizes, 0)], np.concatenate(([0], np.cumsum(sizes))))


def _binary(data: Array, edges: Ints) -> pa.Array:
    """The bytes between edges, as texts of Arrow."""
    offsets = pa.py_buffer(edges.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(edges) - 1, [None, offsets, pa.py_buffer(np.ravel(data))])
