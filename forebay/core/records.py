"""Moving records of tiles: gathering, joining and copying them as plain bytes.

Lives here: what NumPy does with packed structured rows field by field, some ten to seventy times slower than it moves
their bytes. The values are the same; only moving may live here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Records = npt.NDArray[Any]


def gathered(records: Records, rows: npt.NDArray[Any]) -> Records:
    """Some records, by a mask or by row numbers in any order."""
    return records.take(np.flatnonzero(rows) if rows.dtype == np.bool_ else rows)


def leading(records: Records, fields: np.dtype[Any]) -> Records:
    """The first fields of records, side by side: one pass over what is not in the cache, whatever is then asked."""
    return records.getfield(np.dtype((np.void, fields.itemsize))).copy().view(fields)


def joined(parts: Sequence[Records]) -> Records:
    """The records of at least one part, one after another; all are of one layout."""
    return np.concatenate([_bytes(part) for part in parts]).view(parts[0].dtype)


def copied(records: Records) -> Records:
    """The same records, to be written to."""
    return _bytes(records).copy().view(records.dtype)


def put(records: Records, rows: npt.NDArray[np.intp], values: Records) -> None:
    """Overwrite some records."""
    _bytes(records)[rows] = _bytes(values)


def _bytes(records: Records) -> Records:
    return records.view(np.dtype((np.void, records.dtype.itemsize)))
