"""A position that cannot be read is a store that is away, which is waited for: it ended a flow with a raw error."""

from __future__ import annotations

import pyarrow as pa
import pytest

from forebay.errors import StoreUnavailableError
from forebay.offline.commit import Commit
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from tests.infra.seaweedfs import SeaweedFs

SCHEMA = pa.schema([("n", pa.int64()), ("date", pa.string())])


def test_a_position_is_not_read_from_a_log_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    with SeaweedFs() as s3:
        table = LakeTable(Location.of(f"{s3.url}/away", s3.environment), "t", SCHEMA, statistics=["n"])
        rows = pa.table({"n": [1], "date": ["2024-05-01"]}, schema=SCHEMA)
        table.append(lambda position: Commit(rows, {"p": 7}))
        assert table.position("p") == 7
        known = table.snapshot()
        s3.kill()  # between the look at the table's newest version and the question
        monkeypatch.setattr(table, "snapshot", lambda: known)
        with pytest.raises(StoreUnavailableError, match="reading the log of t"):
            table.position("p")
