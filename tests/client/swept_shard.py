"""A shard that only the sweep may answer, for tests of Spark: it is sent to the workers, whose modules no test patches.

Lives here, and not with those tests, since a worker imports where it is defined.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

from forebay.core import ranges
from forebay.history.spark import Shard


class SweptShard(Shard):
    """In a worker as on one node: what is not swept is an error."""

    def __call__(self, parts: pa.Table) -> pa.Table:
        """The answers, by range of rows."""
        with pytest.MonkeyPatch.context() as patch:
            patch.delattr(ranges, "answer_ranges")
            return super().__call__(parts)
