"""A file of history becomes part of the archive: streamed, in one commit, once.

The file's content names its partition (`load:` and a hash), so loading it again, under whatever name, adds nothing.
Its rows pass in batches and never lie in memory together (`DataFiles`). Its dead letters are committed before its
events, under its own offsets, so a load that was killed can be repeated. Duplicates within it are dropped as within a
partition of a stream; an event that is in two files, or in a file and a stream, counts twice.
"""

from __future__ import annotations

import gzip
import hashlib
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from forebay.errors import RequestError
from forebay.ingest.arrow import conform, mismatches
from forebay.ingest.batch import EVENT_ID, LETTER_BYTES_MAX, DeadLetter, EventBatch
from forebay.ingest.dedupe import Dedupe
from forebay.ingest.json import decode_json
from forebay.offline.archive import LOAD, Archive, archived
from forebay.offline.dead_letters import DeadLetters

BATCH_ROWS = 64 * 1024
LINES_BATCH = 16 * 1024
BATCH_BYTES = 64 * 1024 * 1024
"""Bytes of lines that are decoded at once, and of dead letters before they are committed."""
LETTERS_HELD_MAX = 1024
NDJSON, PARQUET = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz"), (".parquet",)
Decoded = tuple[EventBatch, list[DeadLetter]]


@dataclass(frozen=True)
class Loaded:
    """What loading a file did: events added, dead letters, whether it had been loaded before (then nothing), and events
    that were dropped as duplicates.
    """

    rows: int
    dead: int
    already: bool
    duplicates: int = 0


def load(archive: Archive, file: Path) -> Loaded:
    """Append the events of a file to an archive. Raises `RequestError` for a file that cannot be read as a whole."""
    check_file(archive, file)
    archive.check_types()
    partition = LOAD + _hash(file)
    if archive.table.position(partition) is not None:
        return Loaded(0, 0, already=True)
    now_us = time.time_ns() // 1000
    letters = DeadLetters(archive.table.location)
    files = archive.table.files(archive.source.timestamp)
    held: list[DeadLetter] = []
    rows = dead = duplicates = 0
    dedupe = None if archive.source.dedupe_us is None else Dedupe(archive.source.dedupe_us)
    for batch, refused in _decoded(archive, partition, file, now_us):
        if dedupe is not None:
            whole, batch = len(batch), _distinct(batch, dedupe)
            duplicates += whole - len(batch)
        files.write(archived(archive.source, [batch], now_us))
        held += refused
        rows, dead = rows + len(batch), dead + len(refused)
        if len(held) > LETTERS_HELD_MAX or sum(len(letter.raw) for letter in held) > BATCH_BYTES:
            letters.append(held, now_us)
            held = []
    letters.append(held, now_us)
    files.flush()
    added = archive.table.append_files(files, {partition: rows})
    return Loaded(rows, dead, already=False, duplicates=duplicates) if added else Loaded(0, 0, already=True)


def _distinct(batch: EventBatch, dedupe: Dedupe) -> EventBatch:
    """A batch without the events that the file held before."""
    ts = np.asarray(batch.table[batch.source.timestamp].cast(pa.int64()))
    repeated = dedupe(ts, batch.table[EVENT_ID])
    return replace(batch, table=batch.table.filter(pa.array(~repeated))) if repeated.any() else batch


def check_file(archive: Archive, file: Path) -> None:
    """Raise `RequestError` unless a file exists, is of a known kind and (Parquet) has the source's columns."""
    if not file.is_file():
        raise RequestError(f"{str(file)!r} is not a file; give a Parquet or NDJSON file")
    if not file.name.endswith(NDJSON + PARQUET):
        raise RequestError(
            f"{str(file)!r} is of an unknown kind; expected a name that ends in {', '.join(PARQUET + NDJSON)}"
        )
    if file.name.endswith(PARQUET):
        wrong = mismatches(archive.source, _parquet(file).schema_arrow)
        if wrong:
            raise RequestError(
                f"{str(file)!r} does not hold events of {archive.source.name!r}: column {'; '.join(wrong)}. "
                "Nothing was loaded"
            )


def _decoded(archive: Archive, partition: str, file: Path, now_us: int) -> Iterator[Decoded]:
    offset = 0
    if file.name.endswith(PARQUET):
        for batch in _parquet(file).iter_batches(BATCH_ROWS):
            table = pa.Table.from_batches([batch])
            yield conform(archive.source, partition, offset, table, now_us, archive.limits)
            offset += len(table)
        return
    with _open(file) as stream:
        lines: list[bytes] = []
        size = 0
        for line in _lines(file, stream):
            lines.append(line)
            size += len(line)
            if len(lines) == LINES_BATCH or size > BATCH_BYTES:
                yield decode_json(archive.source, partition, offset, lines, now_us, archive.limits)
                offset, lines, size = offset + len(lines), [], 0
        if lines:
            yield decode_json(archive.source, partition, offset, lines, now_us, archive.limits)


def _parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowException, OSError) as error:
        raise RequestError(f"{str(file)!r} cannot be read as Parquet: {error}") from None


def _open(file: Path) -> IO[bytes]:
    return gzip.open(file) if file.name.endswith(".gz") else file.open("rb")  # type: ignore[return-value]  # a GzipFile is one


def _lines(file: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Lines without their ends; of one that is longer than a batch, just so much that it is seen to be no event."""
    try:
        while line := stream.readline(BATCH_BYTES):
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(LETTER_BYTES_MAX)
            yield line.rstrip(b"\r\n")
    except (EOFError, OSError, zlib.error) as error:
        raise RequestError(f"{str(file)!r} cannot be read to its end: {error}. Nothing was loaded") from None


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
