"""Many small tables as few larger ones: whoever looks keys up in a piece sets up a hash table for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa


def in_pieces(tables: Iterable[pa.Table], rows_least: int) -> Iterator[tuple[int, pa.Table]]:
    """The same rows in pieces of at least so many (the last may have fewer), each with the number of its first row."""
    held: list[pa.Table] = []
    number = count = 0
    for rows in tables:
        held.append(rows)
        count += len(rows)
        if count >= rows_least:
            yield number, pa.concat_tables(held)
            number, count, held = number + count, 0, []
    if held:
        yield number, pa.concat_tables(held)
