"""The bytes of Arrow texts, where they are: a kernel takes as long to be called for a few of them as for thousands.

May live here: looking into the buffers of a column of text. Nothing is copied, nothing computed but lengths.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[np.int64]


def edges_of(texts: pa.Array) -> npt.NDArray[np.int32]:
    """Where each text begins in the bytes of `data_of`, and where the last one ends; at least one must be there."""
    offsets: Any = texts.buffers()[1]
    return np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]


def data_of(texts: pa.Array) -> memoryview:
    """The bytes of all texts, those of a slice among others'."""
    data = texts.buffers()[2]
    return memoryview(b"") if data is None else memoryview(data)


def bytes_of(texts: pa.Array) -> memoryview:
    """The bytes of these texts, one after another."""
    if not len(texts):
        return memoryview(b"")
    edges = edges_of(texts)
    return data_of(texts)[edges[0] : edges[-1]]


def lengths_of(texts: pa.Array) -> Ints:
    """How many bytes each text has; a null has none."""
    if not len(texts):
        return np.empty(0, np.int64)
    if texts.null_count:
        return np.asarray(pc.binary_length(texts).fill_null(0)).astype(np.int64)
    edges = edges_of(texts).astype(np.int64)
    return edges[1:] - edges[:-1]
