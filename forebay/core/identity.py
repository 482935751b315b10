"""Who an event is about: the text of an entity's key, and the slot it lives in.

One definition for every store and engine: keys of the online store, buckets of files, shards of a worker. The text
joins the key values with `|`; within a value, every byte that is not one of `A-Z a-z 0-9 _ . ~ @ + -` is
percent-encoded, so that a key can stand in a Redis key and no two entities share one.
"""

from __future__ import annotations

import re
import urllib.parse
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forebay.core.texts import bytes_of, data_of, edges_of, lengths_of
from forebay.errors import RequestError, suggestion
from forebay.language.entity import Entity
from forebay.language.types import Int64Type

SLOTS = 64
"""Slots of a deployment: a constant, because it is part of every online key."""
LANES = 8
"""Groups of slots (slot modulo LANES) that have one writer at a time: the most workers that a flow can use."""
KEY_BYTES_MAX = 512
"""Nothing is stored of a longer key, which would stand in several Redis keys: its entity has defaults everywhere."""

MANY_PER_BYTE = 100
"""Texts for each byte of the longest from which on one step for all of them costs less than a call for each."""

_SAFE = "@+"
_SPECIAL = re.compile(rb"[^A-Za-z0-9_.~@+-]")
SEPARATOR = "|"


def entity_keys(entity: Entity, columns: Mapping[str, pa.Array | pa.ChunkedArray]) -> pa.Array:
    """The key texts of many rows, as `pa.string()`; null where any key column is null."""
    return key_texts([columns[name] for name in entity.keys])


def key_texts(columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Array:
    """The key texts of many rows by the columns of an entity's keys, in their order."""
    parts = [_texts(column) for column in columns]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, SEPARATOR)


def entity_key(entity: Entity, row: Mapping[str, Any]) -> str:
    """The key text of a row such as `{"user_id": "u1"}`. Raises `RequestError` for a missing, null or mistyped key."""
    parts = []
    for name, kind in entity.keys.items():
        if name not in row:
            raise RequestError(f"Key {name!r} of entity {entity.name!r} is missing. {suggestion(name, row)}")
        value = row[name]
        if value is None:
            raise RequestError(f"Key {name!r} of entity {entity.name!r} is null; name the {entity.name}")
        try:
            parts.append(_quote(str(kind.units(value))))
        except RequestError as error:
            raise RequestError(f"Key {name!r} of entity {entity.name!r}: {error}") from None
    return SEPARATOR.join(parts)


def parse_entity_key(entity: Entity, key: str) -> dict[str, Any]:
    """The key columns of a key text."""
    parts = [urllib.parse.unquote(part) for part in key.split(SEPARATOR)]
    if len(parts) != len(entity.keys):
        raise RequestError(f"{key!r} has {len(parts)} parts; entity {entity.name!r} has keys {', '.join(entity.keys)}")
    return {
        name: _whole_number(entity, name, part) if isinstance(kind, Int64Type) else part
        for (name, kind), part in zip(entity.keys.items(), parts, strict=True)
    }


def parse_entity_keys(entity: Entity, keys: pa.Array) -> dict[str, pa.Array]:
    """The key columns of many key texts; at once where each of them is its only key's value, one by one elsewhere."""
    names = list(entity.keys)
    plain = not pc.any(pc.match_substring(keys, "%")).as_py()
    if len(names) == 1 and plain and not isinstance(entity.keys[names[0]], Int64Type):
        return {names[0]: keys}
    parsed = [parse_entity_key(entity, key) for key in keys.to_pylist()]
    kinds = {name: pa.int64() if isinstance(kind, Int64Type) else pa.string() for name, kind in entity.keys.items()}
    return {name: pa.array([row[name] for row in parsed], kinds[name]) for name in names}


def slot_of(key: str) -> int:
    """The slot of an entity: CRC-32 of its key text, modulo SLOTS.

    >>> slot_of("JFK")
    31
    """
    return zlib.crc32(key.encode()) % SLOTS


def slots_of(keys: Sequence[str] | pa.Array) -> npt.NDArray[np.int64]:
    """The slots of many entities."""
    if isinstance(keys, pa.Array):
        return crc32_of(keys).astype(np.int64) % SLOTS
    crc = zlib.crc32
    return np.fromiter((crc(key.encode()) for key in keys), np.int64, len(keys)) % SLOTS


def buckets_of(keys: pa.Array, count: int) -> npt.NDArray[np.int64]:
    """Which of `count` buckets each key text falls into: by the high bits of its CRC-32, so whatever its slot is.

    A null key is in bucket 0. Stable for ever: files and shards of engines are cut by it.

    >>> buckets_of(pa.array(["JFK", "LGA", None]), 8).tolist()
    [6, 1, 0]
    """
    return cut(crc32_of(keys), count)


def cut(crc: npt.NDArray[np.uint32], count: int) -> npt.NDArray[np.int64]:
    """The bucket of each hash, as `buckets_of` of its key."""
    return (crc.astype(np.uint64) * np.uint64(count) >> np.uint64(32)).astype(np.int64)


def bucket_edges(number: int, count: int) -> tuple[int, int]:
    """The hashes `[low, high)` of one of `count` buckets.

    >>> bucket_edges(1, 3)
    (1431655766, 2863311531)
    """
    return -(-(number << 32) // count), -(-((number + 1) << 32) // count)


def crc32_of(keys: pa.Array) -> npt.NDArray[np.uint32]:
    """CRC-32 of each key text (uint32), 0 of a null: of many at once, one byte of all texts at a time; of few, or of
    long ones, `zlib.crc32` of each.

    Source: Sarwate's table-driven algorithm (1988).
    """
    texts = keys.fill_null("") if keys.null_count else keys
    if not len(texts):
        return np.empty(0, np.uint32)
    lengths = lengths_of(texts)
    if len(texts) < MANY_PER_BYTE * int(lengths.max()):
        return np.fromiter(map(zlib.crc32, texts.view(pa.binary()).to_pylist()), np.uint32, len(texts))
    letters, starts = np.frombuffer(data_of(texts), np.uint8), edges_of(texts)[:-1]
    crc = np.full(len(texts), 0xFFFFFFFF, np.uint32)
    for place in range(int(lengths.max())):
        rows = slice(None) if lengths.min() > place else np.flatnonzero(lengths > place)
        last = crc[rows]
        crc[rows] = _CRC_TABLE[(last ^ letters[starts[rows] + place]) & 0xFF] ^ (last >> 8)
    return ~crc


def _crc_table() -> npt.NDArray[np.uint32]:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(0xEDB88320) ^ (table >> 1), table >> 1)
    return table


_CRC_TABLE = _crc_table()


def _whole_number(entity: Entity, name: str, text: str) -> int:
    if not re.fullmatch(r"-?\d{1,19}", text):
        raise RequestError(f"Key {name!r} of entity {entity.name!r} is {text!r}; expected a whole number of 64 bits")
    return int(text)


def _quote(text: str) -> str:
    return urllib.parse.quote(text, safe=_SAFE)


def _texts(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if not pa.types.is_string(array.type):
        return array.cast(pa.string())
    if _SPECIAL.search(bytes_of(array)) is None:
        return array
    return pa.array([None if text is None else _quote(text) for text in array.to_pylist()], pa.string())
