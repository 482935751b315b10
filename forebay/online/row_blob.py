"""The row of a batch view as bytes in the online store.

It is the MessagePack array `[version, layout, event_us, created_us, [values…]]`. Values are in stored form (units of a
Decimal, microseconds of a Timestamp, UTF-8 text), null where there is none, in the order of the view's features. The
format is written down in `docs/formats.md` and pinned by golden files.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from forebay.core.events import Column
from forebay.core.lists import objects
from forebay.core.rows import Rows
from forebay.core.values import NO_INSTANT
from forebay.errors import FormatError
from forebay.language.types import FeatureType, ListType, VectorType
from forebay.language.view import BatchView

FORMAT_VERSION = 1
Ints = npt.NDArray[np.int64]

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(tuple[int, int, int, int, list[Any]])


def fingerprint(view: BatchView) -> int:
    """32 bits that change whenever the names, order or types of a view's features do."""
    return zlib.crc32(repr([(name, repr(feature.type)) for name, feature in view.outputs().items()]).encode())


def pack_rows(view: BatchView, rows: Rows, chosen: npt.NDArray[np.intp]) -> list[bytes]:
    """The bytes of some rows."""
    columns = [_texts_or_numbers(rows.columns[name].take(chosen)) for name in view.outputs()]
    events, created = rows.event_us[chosen].tolist(), rows.created_us[chosen].tolist()
    encode, layout = _ENCODER.encode, fingerprint(view)
    return [
        encode((FORMAT_VERSION, layout, event_us, created_us, values))
        for event_us, created_us, values in zip(events, created, zip(*columns, strict=True), strict=True)
    ]


def unpack_rows(view: BatchView, blobs: Sequence[bytes | None]) -> tuple[dict[str, Column], Ints]:
    """The columns of rows and their `event_us`, `NO_INSTANT` where there is no blob. Raises `FormatError`."""
    features = view.outputs()
    layout, empty = fingerprint(view), [None] * len(features)
    event_us = np.full(len(blobs), NO_INSTANT, np.int64)
    found: list[Sequence[Any]] = [empty] * len(blobs)
    for i, blob in enumerate(blobs):
        if blob is not None:
            event_us[i], found[i] = _decoded(view, layout, blob)
    lists = zip(*found, strict=True) if blobs else iter([()] * len(features))
    return {
        name: _column(features[name].type, list(values)) for name, values in zip(features, lists, strict=True)
    }, event_us


def _decoded(view: BatchView, layout: int, blob: bytes) -> tuple[int, list[Any]]:
    try:
        version, written, event_us, _, values = _DECODER.decode(blob)
    except msgspec.DecodeError as error:
        raise FormatError(f"A row of view {view.key!r} cannot be read ({error}). Publish the view again.") from None
    if version != FORMAT_VERSION or written != layout or len(values) != len(view.outputs()):
        raise FormatError(
            f"A row of view {view.key!r} has format {version} and layout {written:08x}; expected "
            f"{FORMAT_VERSION} and {layout:08x}. Another Forebay or definition wrote it: publish the view again."
        )
    return event_us, values


def _texts_or_numbers(column: Column) -> list[Any]:
    values = column.values.tolist()
    if column.values.dtype.kind == "S":
        values = [value.decode() for value in values]
    return (
        values
        if column.valid.all()
        else [v if ok else None for v, ok in zip(values, column.valid.tolist(), strict=True)]
    )


def _column(kind: FeatureType, values: list[Any]) -> Column:
    storage = np.dtype(kind.storage)
    valid = np.array([value is not None for value in values], np.bool_)
    if isinstance(kind, ListType | VectorType):
        return Column(objects([tuple(value or ()) for value in values]), valid)
    if storage.kind == "S":
        return Column(np.array([(value or "").encode() for value in values], storage), valid)
    if storage.kind == "O":
        return Column(np.array([*values, None], object)[:-1], valid)
    return Column(np.array([0 if value is None else value for value in values], storage), valid)
