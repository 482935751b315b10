"""Rows of a column by their numbers, whatever it holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from forebay.core.events import is_unused, taken, unused


@pytest.mark.parametrize(
    "array",
    [
        np.array([b"one", b"a longer one", b"", b"\x00in"]),
        np.arange(4),
        np.array([0.5, np.nan, -0.0, np.inf]),
        np.array([True, False, True, True]),
        np.array([[1], [2], [3], None], object),
        np.arange(8).reshape(4, 2),
        np.zeros(4, [("n", "<i8"), ("text", "S3")]),
    ],
    ids=lambda array: str(array.dtype),
)
@pytest.mark.parametrize("dtype", ["<i4", "<i8"])
def test_what_is_taken_is_what_an_index_finds(array: np.ndarray[Any, Any], dtype: str) -> None:
    rows = np.array([3, 0, 0, 2, 1], dtype)
    found, expected = taken(array, rows), array[rows]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert taken(array, rows[:0]).shape == expected[:0].shape


def test_of_an_unused_column_nothing_is_copied() -> None:
    found = taken(unused("S16", 4), np.array([3, 0, 0, 2, 1]))
    assert is_unused(found)
    assert found.tolist() == [b""] * 5
