"""A column of events, ready to be lifted: what every kind of partial begins with.

May live here: the value and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Lifted:
    """One column of a batch of events: stored values, which of them are there, and when and which event it was."""

    values: Array
    valid: npt.NDArray[np.bool_]
    ts: npt.NDArray[np.int64]
    ids: Array
