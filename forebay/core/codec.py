"""Tiles as bytes in the online store. The format is written down in `docs/formats.md` and pinned by golden files.

A stream or batch blob is a header and condensed records (`forebay.core.condensed`); one of before may have them as they
are. A pending blob is records only, because the stream appends to it: any number of these is decoded with one
`numpy.frombuffer`. Where a view has partials of no fixed size, frames (`forebay.core.frames`) stand in the place of
either.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.condensed import condense, expand
from forebay.core.frames import pack_frames, unpack_frames
from forebay.core.layout import PENDING, Layout
from forebay.core.records import copied
from forebay.core.tiles import Tiles
from forebay.errors import FormatError

RECORDS, CONDENSED = 1, 2
"""The versions of the format: what is behind the header, records or frames as they are, or condensed records."""
STREAM, BATCH = 1, 2
NO_CUT = -(2**63)
"""The cut of an entity that no batch has published: its stream tiles count from the beginning."""
OFFSET_MAX = 2**31 - 1
HEADER = np.dtype(
    [("version", "<u2"), ("kind", "<u2"), ("layout", "<u4"), ("commit", "<u8"), ("newest", "<i8"), ("cut", "<i8")]
)


def pack(layout: Layout, tiles: Tiles, entities: int, *, kind: int, commit: int, cut_us: int = NO_CUT) -> list[bytes]:
    """One blob per entity, in the order of their codes; an entity without tiles gets a header alone."""
    columns = pack_columns(layout, tiles, newest_of(tiles, entities), kind=kind, commit=commit, cut_us=cut_us)
    blobs: list[bytes] = pc.binary_join_element_wise(*columns, b"").to_pylist()
    return blobs


def pack_columns(
    layout: Layout, tiles: Tiles, newest: npt.NDArray[np.int64], *, kind: int, commit: int, cut_us: int = NO_CUT
) -> tuple[pa.BinaryArray, ...]:
    """The blobs of `pack` as Arrow columns, of headers and of what is behind them; `newest` is that of each entity."""
    headers = pack_headers(layout, newest, kind=kind, commit=commit, cut_us=cut_us)
    heads = _binaries(headers.data, np.arange(len(newest) + 1) * HEADER.itemsize)
    if version_of(layout) == RECORDS:
        return heads, _bodies(layout, tiles, len(newest))
    parts = condense(tiles.records, _edges(tiles, len(newest)))
    return heads, *(_binaries(data.data, edges) for data, edges in parts)


def version_of(layout: Layout) -> int:
    """The version of the blobs that are written, and the newest that is read; frames are not condensed."""
    return RECORDS if layout.ragged else CONDENSED


def pack_headers(
    layout: Layout, newest: npt.NDArray[np.int64], *, kind: int, commit: int, cut_us: int
) -> npt.NDArray[np.uint8]:
    """The header of each entity's blob, by its newest event: rows of bytes."""
    headers = np.zeros(len(newest), HEADER)
    headers["version"], headers["kind"], headers["layout"] = version_of(layout), kind, layout.fingerprint
    headers["commit"], headers["cut"], headers["newest"] = commit, cut_us, newest
    return headers.view(np.uint8).reshape(len(newest), HEADER.itemsize)


def pack_pending(layout: Layout, tiles: Tiles, entities: int) -> pa.BinaryArray:
    """The bytes to append to each entity's pending blob; those of records lie one after another as they are."""
    records = copied(tiles.records)
    records["ring"] = PENDING
    return _bodies(layout, Tiles(tiles.code, records, tiles.cells), entities)


def unpack(layout: Layout, blobs: Sequence[bytes | None]) -> tuple[npt.NDArray[Any], Tiles]:
    """The headers of all blobs and their tiles; no blob has a header of zeros and NO_CUT. Raises `FormatError`."""
    headers = np.zeros(len(blobs), HEADER)
    headers["cut"] = headers["newest"] = NO_CUT
    there = [i for i, blob in enumerate(blobs) if blob]
    size = HEADER.itemsize
    if there:
        heads = [(blobs[i] or b"")[:size] for i in there]
        shortest = min(map(len, heads))
        if shortest < size:
            raise FormatError(
                f"A blob of view {layout.view.key!r} has {shortest} bytes, fewer than its header of {size}; "
                "it was damaged. Publish the view again."
            )
        headers[there] = np.frombuffer(b"".join(heads), HEADER)
        readable = (headers["version"] >= RECORDS) & (headers["version"] <= version_of(layout))
        readable &= headers["layout"] == layout.fingerprint
        wrong = ~readable[there]
        if wrong.any():
            _refuse(layout, headers[there][wrong][0])
    bodies = [memoryview(blob or b"")[size:] for blob in blobs]
    condensed = headers["version"] == CONDENSED
    if not condensed.any():
        return headers, unpack_records(layout, bodies)
    if condensed[there].all():
        return headers, expand(layout, bodies)
    return headers, _unpack_both(layout, bodies, condensed)


def _unpack_both(layout: Layout, bodies: Sequence[memoryview], condensed: npt.NDArray[np.bool_]) -> Tiles:
    """The tiles of bodies of which some are condensed and some are records as they are."""
    nothing = memoryview(b"")
    plain = unpack_records(layout, [nothing if one else body for body, one in zip(bodies, condensed, strict=True)])
    expanded = expand(layout, [body if one else nothing for body, one in zip(bodies, condensed, strict=True)])
    both = Tiles.joined([plain, expanded])
    return both.take(np.argsort(both.code, kind="stable"))


def unpack_records(layout: Layout, bodies: Sequence[bytes | memoryview | None]) -> Tiles:
    """The tiles of bodies without a header, such as pending blobs; within an entity in stored order."""
    if layout.ragged:
        return unpack_frames(layout, bodies)
    sizes = np.fromiter((len(body or b"") for body in bodies), np.int64, len(bodies))
    if (sizes % layout.record.itemsize).any():
        torn = int(sizes[sizes % layout.record.itemsize > 0][0])
        raise FormatError(
            f"Tiles of view {layout.view.key!r} have {torn} bytes, which is no multiple of its record of "
            f"{layout.record.itemsize}; they were damaged or written for another definition. Publish the view again "
            "(`forebay rebuild`); where that changes nothing they are the stream's: empty this Redis, run `forebay "
            "apply` and start the stream again, which fills it."
        )
    records = np.frombuffer(b"".join([body for body in bodies if body]), layout.record)
    return Tiles(np.repeat(np.arange(len(bodies), dtype=np.int64), sizes // layout.record.itemsize), records)


def newest_of(tiles: Tiles, entities: int) -> npt.NDArray[np.int64]:
    """The newest event of each entity; NO_CUT where it has none."""
    newest = np.full(entities, NO_CUT, np.int64)
    np.maximum.at(newest, tiles.code, np.ascontiguousarray(tiles.records["newest"]))
    return newest


def _bodies(layout: Layout, tiles: Tiles, entities: int) -> pa.BinaryArray:
    """The tiles of each entity, without a header; records stay where they are."""
    edges = _edges(tiles, entities)
    if layout.ragged:
        return pa.array(pack_frames(layout, tiles, edges), pa.binary())
    return _binaries(_bytes_of(tiles.records), edges * layout.record.itemsize)


def _edges(tiles: Tiles, entities: int) -> npt.NDArray[np.int64]:
    """Where the tiles of each entity begin, and where the last one's end."""
    return np.searchsorted(tiles.code, np.arange(entities + 1))


def _binaries(data: memoryview, edges: npt.NDArray[np.int64]) -> pa.BinaryArray:
    """A column of the bytes between edges, where they are."""
    if edges[-1] > OFFSET_MAX:
        raise FormatError(f"{int(edges[-1]):,} bytes of tiles cannot be packed at once; pack fewer entities together")
    offsets = pa.py_buffer(edges.astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(edges) - 1, [None, offsets, pa.py_buffer(data)])


def _bytes_of(records: npt.NDArray[Any]) -> memoryview:
    """The bytes of records, where they are."""
    return np.ascontiguousarray(records).view(np.uint8).data if len(records) else memoryview(b"")


def _refuse(layout: Layout, header: Any) -> None:
    expected = " or ".join(map(str, range(RECORDS, version_of(layout) + 1)))
    found = f"format {int(header['version'])} and layout {int(header['layout']):08x}"
    raise FormatError(
        f"Tiles of view {layout.view.key!r} have {found}; expected {expected} and "
        f"{layout.fingerprint:08x}. They were written by another version of Forebay or for another definition: publish "
        "the view again."
    )
