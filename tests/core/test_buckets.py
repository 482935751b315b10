"""Which bucket an entity is in: of every text what zlib says, and evenly."""

from __future__ import annotations

import zlib

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from forebay.core.identity import SLOTS, buckets_of, crc32_of


@given(st.lists(st.none() | st.text(max_size=12), max_size=20), st.integers(0, 5))
def test_the_hash_is_that_of_zlib(texts: list[str | None], first: int) -> None:
    keys = pa.array(texts, pa.string()).slice(min(first, len(texts)))
    expected = [zlib.crc32((text or "").encode()) for text in keys.to_pylist()]
    assert crc32_of(keys).tolist() == expected


def test_buckets_are_even_also_among_the_entities_of_one_slot() -> None:
    keys = pa.array([f"u{i}" for i in range(64_000)])
    mine = keys.filter(pa.array(crc32_of(keys) % SLOTS == 5))
    for some, count in ((keys, 100), (mine, 10)):
        sizes = np.bincount(buckets_of(some, count), minlength=count)
        assert 0.6 < sizes.min() * count / len(some) <= sizes.max() * count / len(some) < 1.5
