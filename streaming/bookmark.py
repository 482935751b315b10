"""Where an offset begins in a file of lines, so that whoever goes on there need not count to it.

    offset    0   1   2   …   n           the bookmark of n:    place   ┆ check
    bytes     ───────────────▲───────                          40 bits ┆ 23 bits: of n, and of the bytes before it

Lives here: making bookmarks, and trusting them. A bookmark is stored beside the offset that it is of. One that belongs
to another offset (whoever moved it on knew none) or to a file that is no longer the same there does not meet its check:
then lines are counted (docs/adr/0271).
"""

from __future__ import annotations

import os
import zlib
from typing import BinaryIO

REMEMBERED = 64
"""Bytes before a place in a file that are remembered, to see that it is still that place: most of an event."""
PLACE_BITS, CHECK_BITS = 40, 23
"""A terabyte; there are no bookmarks beyond it."""


def bookmark(offset: int, place: int, before: bytes) -> int | None:
    """The bookmark of an offset, given its place and the bytes before it, up to REMEMBERED of them.

    >>> bookmark(2, 2**40, b"{}") is None
    True
    """
    return None if place >> PLACE_BITS else place << CHECK_BITS | _check(offset, before)


def place_of(file: BinaryIO, offset: int, mark: int | None) -> int | None:
    """Where an offset begins in a file, if its bookmark can be trusted."""
    if mark is None:
        return None
    place = mark >> CHECK_BITS
    before = bytes_before(file, place)
    return place if len(before) == min(place, REMEMBERED) and mark == bookmark(offset, place, before) else None


def bytes_before(file: BinaryIO, place: int) -> bytes:
    """The bytes before a place in a file, up to REMEMBERED of them."""
    count = min(place, REMEMBERED)
    return os.pread(file.fileno(), count, place - count)


def _check(offset: int, before: bytes) -> int:
    return zlib.crc32(b"%d " % offset + before) >> (32 - CHECK_BITS)
