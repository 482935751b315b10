"""Where a training set is written to: a file (.parquet, .csv, .ndjson), or a folder, which becomes a Delta table.

May live here: which of the two a place is. Invariant: what is there in the end is the whole set, in one commit or under
its name, or what was there before.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from forebay.calls.files import FILE_KINDS, plain, write_pieces
from forebay.errors import RequestError


def check_out(out: str | Path, what: str = "out") -> None:
    """Raise `RequestError` unless a training set can be written to such a place."""
    place = Path(out)
    if place.suffix not in ("", *FILE_KINDS):
        raise RequestError(
            f"{what} {str(out)!r} ends in {place.suffix!r}; expected a file that ends in one of "
            f"{', '.join(FILE_KINDS)}, or a folder for a Delta table, whose name has no dot"
        )
    if place.suffix in FILE_KINDS and str(out).startswith("s3://"):
        raise RequestError(
            f"{what} {str(out)!r} is a file on S3; name a folder there for a Delta table, or a local file"
        )
    if place.is_dir() and any(place.iterdir()) and not (place / "_delta_log").is_dir():
        raise RequestError(
            f"{what} {str(out)!r} is a folder of something else; name a new one, or that of a Delta table"
        )


def write_out(schema: pa.Schema, pieces: Iterable[pa.Table], out: str | Path, file_bytes: int | None = None) -> None:
    """Write rows piece by piece; a Delta table that is there is replaced, by files of some `file_bytes` at most."""
    check_out(out)
    if Path(out).suffix in FILE_KINDS:
        write_pieces(schema, pieces, Path(out))
        return
    from forebay.offline.location import Location
    from forebay.offline.training_table import FILE_BYTES, write_delta

    rows, plain_schema = (plain(piece) for piece in pieces), plain(schema.empty_table()).schema
    write_delta(Location.of(str(out)), plain_schema, rows, FILE_BYTES if file_bytes is None else file_bytes)
