"""A spine, and what is stored of its entities, cut into buckets of entities: each bucket can be answered by itself.

    spine of 'user'      row, instant, key      ─┐
    events, batch rows   needed columns         ─┴─  by the hash of the key (`forebay.core.identity`)  →  bucket files

May live here: what goes into which bucket, and how many there must be. Everything stored is read once per entity and
source, and what nobody asks about is left out by a bitmap of hashes (what it lets through costs room, no answer).

Invariants: all of an entity is in one bucket; in a bucket rows have the order that they are stored in, so that what
decides between equals is what decides in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.calls.keyed import Keyed
from forebay.core.identity import crc32_of, cut, entity_keys
from forebay.language.entity import Entity
from forebay.language.types import AnyType, StringType
from forebay.offline.spill import FILES_MAX, Spill, give_back

Ints = npt.NDArray[np.int64]
ROW, INSTANT_US, KEY = "row", "instant_us", "key"
SPINE_SCHEMA = pa.schema([(ROW, pa.int64()), (INSTANT_US, pa.int64()), (KEY, pa.string())])
HASH_BITS = 22
"""The bitmap of asked entities has 2^22 places (4 MB): of a million entities it lets a fifth of all others through."""
TEXT_BYTES = 24
COPIES = 4
"""How often a stored row is in memory at the peak: as Arrow, as columns, in order, and what is made of them."""
ROW_BYTES, VALUE_BYTES, LIST_BYTES = 250, 60, 500
"""What a row asked takes: its entity and its place, and each of its values on the way to the result."""
PIECE_SHARE = 10
"""What is read or written together may take a tenth of the memory that is left."""

TIGHT = 300_000_000
"""With less, the freed memory that Arrow keeps counts (some 100 MB); taking it anew for each piece costs CPU time."""


@dataclass
class SpineBuckets:
    """The rows of a spine for one entity kind, by bucket."""

    entity: Entity
    spill: Spill
    asked: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(2**HASH_BITS, np.bool_))
    start_us: int = 2**63 - 1
    end_us: int = -(2**63)

    def add(self, first_row: int, instants_us: Ints, keyed: Keyed) -> None:
        """One piece of the spine. Rows without an entity are in bucket 0."""
        keys = pa.array([*keyed.keys, None], pa.string())
        crc = crc32_of(keys)
        self.asked[crc[:-1] >> (32 - HASH_BITS)] = True
        rows = np.arange(first_row, first_row + len(keyed.code))
        mine = instants_us[keyed.code >= 0]
        self.start_us = min(self.start_us, int(mine.min(initial=self.start_us)))
        self.end_us = max(self.end_us, int(mine.max(initial=self.end_us)))
        table = pa.table([rows, instants_us, keys.take(pa.array(keyed.code % len(keys)))], schema=SPINE_SCHEMA)
        self.spill.add(table, cut(crc, self.spill.files)[keyed.code])

    @property
    def nobody(self) -> bool:
        """Whether no row names an entity."""
        return self.start_us > self.end_us

    def bucket(self, number: int) -> tuple[Ints, Ints, Keyed]:
        """The rows of one bucket: their numbers, their instants, and whose they are."""
        rows = self.spill.file(number).read()
        coded = rows[KEY].combine_chunks().dictionary_encode()
        keyed = Keyed(coded.dictionary.to_pylist(), np.asarray(coded.indices.fill_null(-1)).astype(np.int64))
        return np.asarray(rows[ROW]), np.asarray(rows[INSTANT_US]), keyed

    def spilled(self, folder: Path, tables: Iterator[pa.Table], schema: pa.Schema) -> Spill:
        """Stored rows by the bucket of their entity, without those of entities that are not asked about."""
        spill = Spill(folder, schema, self.spill.files)
        for rows in tables:
            keys = entity_keys(self.entity, {name: rows[name] for name in self.entity.keys})
            crc = crc32_of(keys)
            mine = self.asked[crc >> (32 - HASH_BITS)] & np.asarray(keys.is_valid())
            spill.add(rows if mine.all() else rows.filter(pa.array(mine)), cut(crc[mine], spill.files))
        spill.close()
        return spill


def buckets_needed(stored_bytes: int, asked_bytes: int, left: int) -> int:
    """In how many buckets a half of the memory that is left holds one: some are a half larger than others."""
    return min(max(1, -(-3 * (stored_bytes + asked_bytes) // left)), FILES_MAX)


def stored_row_bytes(schema: pa.Schema, declared: Mapping[str, object]) -> int:
    """About how much memory a stored row takes while its bucket is answered."""
    return COPIES * sum(_width(column, declared.get(column.name)) for column in schema) + 40


def asked_row_bytes(kinds: Iterable[object]) -> int:
    """About how much memory a row asked for features of some types takes while its bucket is answered."""
    return ROW_BYTES + sum(VALUE_BYTES if isinstance(kind, AnyType) else LIST_BYTES for kind in kinds)


def piece_rows(row_bytes: int, left: int, most: int) -> int:
    """Rows that are worked on together where a piece may take a small part of the memory that is left."""
    return max(1_024, min(most, left // PIECE_SHARE // max(row_bytes, 1)))


def in_pieces(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` to twice as many (the last may be smaller)."""
    held: list[pa.Table] = []
    for table in tables:
        held += [table] if len(table) else []
        while (count := sum(map(len, held))) >= size:
            whole = pa.concat_tables(held)
            yield whole.slice(0, size if count >= 2 * size else count)
            held = [whole.slice(size)] if count >= 2 * size else []
    if held:
        yield pa.concat_tables(held)


def tightly(pieces: Iterator[pa.Table], left: int) -> Iterator[pa.Table]:
    """The same pieces. Where little memory is left, what Arrow keeps of each is given back before the next is made."""
    for piece in pieces:
        yield piece
        del piece
        if left < TIGHT:
            give_back()


def columns_of(parts: Sequence[Sequence[str]]) -> list[str]:
    """Each name once, in order."""
    return list(dict.fromkeys(name for names in parts for name in names))


def _width(column: pa.Field, declared: object) -> int:
    if isinstance(declared, StringType):
        return TEXT_BYTES if declared.max_bytes is None else declared.max_bytes + 8
    try:
        return int(column.type.bit_width) // 8 + 1
    except ValueError:
        return TEXT_BYTES
