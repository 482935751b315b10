"""What is read from the buffers of Arrow texts is what its kernels say, whatever slice of what they are."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from forebay.core.texts import bytes_of, data_of, edges_of, lengths_of
from forebay.ingest import select
from forebay.ingest.convert import with_nul
from forebay.ingest.select import fixed_bytes

DRAWN = ["", "a", "käse", "x" * 40, "nul\0", "日本"]


def slices(seed: int, *, nulls: bool = False) -> list[pa.Array]:
    """A column of drawn texts, and some slices of it."""
    chance = random.Random(seed)
    texts = [chance.choice([*DRAWN, None] if nulls else DRAWN) for _ in range(chance.randrange(40))]
    whole = pa.array(texts, pa.string())
    cuts = [sorted(chance.randrange(len(texts) + 1) for _ in range(2)) for _ in range(5)]
    return [whole, *(whole[first:last] for first, last in cuts)]


@pytest.mark.parametrize("seed", range(20))
def test_lengths_and_bytes_of_a_slice_are_its_own(seed: int) -> None:
    for texts in slices(seed):
        raw = [text.encode() for text in texts.to_pylist()]
        assert lengths_of(texts).tolist() == list(map(len, raw))
        assert bytes(bytes_of(texts)) == b"".join(raw)
        if len(texts):
            edges = edges_of(texts).tolist()
            assert [bytes(data_of(texts)[a:b]) for a, b in itertools.pairwise(edges)] == raw


@pytest.mark.parametrize("seed", range(20))
def test_a_null_has_no_bytes_and_no_nul(seed: int) -> None:
    for texts in slices(seed, nulls=True):
        assert lengths_of(texts).tolist() == pc.binary_length(texts).fill_null(0).to_pylist()
        assert with_nul(texts).tolist() == [text is not None and "\0" in text for text in texts.to_pylist()]


def test_a_null_over_bytes_has_none() -> None:
    """Arrow allows bytes behind a null."""
    valid, edges = pa.py_buffer(bytes([0b101])), pa.py_buffer(np.array([0, 1, 3, 4], np.int32))
    texts = pa.Array.from_buffers(pa.string(), 3, [valid, edges, pa.py_buffer(b"a\0bc")])
    assert texts.to_pylist() == ["a", None, "c"]
    assert lengths_of(texts).tolist() == [1, 0, 1]
    assert with_nul(texts).tolist() == [False, False, False]


@pytest.mark.parametrize("seed", range(20))
def test_few_texts_are_brought_to_one_width_as_many_are(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for texts in slices(seed):
        width = max(1, int(lengths_of(texts).max(initial=0)))
        few = fixed_bytes(texts, width)
        monkeypatch.setattr(select, "FEW", 0)
        many = fixed_bytes(texts, width)
        monkeypatch.undo()
        assert (few.dtype, few.tobytes()) == (many.dtype, many.tobytes())
