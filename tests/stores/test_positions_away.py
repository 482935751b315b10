"""A position that cannot be read is a store that is away, which is waited for: it ended a flow with a raw error."""

from __future__ import annotations

import pyarrow as pa
import pytest
from deltalake.exceptions import DeltaError

from forebay.errors import StoreError, StoreUnavailableError
from forebay.offline.commit import Commit
from forebay.offline.lake_table import LakeTable
from forebay.offline.location import Location
from tests.infra.seaweedfs import SeaweedFs

LOCATION = Location("s3://shop")
LONG = "a-bucket-of-403-names/dns/" + "connect-and-retries/" * 30
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


@pytest.mark.parametrize(
    "why", ["after 3 retries, max_retries 3", "error sending request for url", "operation timed out", "Forbidden"]
)
def test_a_store_is_away_however_long_its_name_is(why: str) -> None:
    name = f"http://127.0.0.1:1/{LONG}events/orders/part-1.snappy.parquet"
    error = DeltaError(
        f"Failed to parse parquet: External: Generic S3 error: Error performing PUT {name} - {why} at last"
    )
    with pytest.raises(StoreUnavailableError, match=f"{why} at last") as caught, LOCATION.reached("writing"):
        raise error
    assert len(str(caught.value)) < 700


def test_an_error_is_not_one_of_a_store_that_is_away_for_the_name_of_what_it_is_of() -> None:
    with pytest.raises(StoreError, match="failed") as caught, LOCATION.reached("writing"):
        raise DeltaError(f"Invalid table version at s3://{LONG}events: 5")
    assert not isinstance(caught.value, StoreUnavailableError)


def test_a_store_of_a_long_name_that_goes_away_is_waited_for() -> None:
    with SeaweedFs() as s3:
        table = LakeTable(Location.of(f"{s3.url}/{LONG}", s3.environment), "t", SCHEMA, statistics=["n"])
        rows = pa.table({"n": [1], "date": ["2024-05-01"]}, schema=SCHEMA)
        table.append(lambda position: Commit(rows, {"p": 1}))

        def gone(position: object) -> Commit:
            s3.kill()
            return Commit(rows, {"p": 2})

        with pytest.raises(StoreUnavailableError, match="does not answer"):
            table.append(gone)
