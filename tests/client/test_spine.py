"""The spine of a training set: instants with a time zone, rows in order, nothing else touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from forebay import (
    Count,
    Entity,
    EventSource,
    FeatureService,
    FileStream,
    Int64,
    String,
    Timestamp,
    WindowedView,
)
from forebay.client.asked import Asked
from forebay.client.spine import Spine
from forebay.errors import RequestError
from forebay.instants import instant_us
from forebay.language.definitions import Definitions

USER = Entity("user", keys={"user_id": String})
CLICKS = EventSource(
    "clicks",
    schema={"event_id": String, "user_id": String, "ts": Timestamp, "pages": Int64},
    timestamp="ts",
    event_id="event_id",
    stream=FileStream("clicks.ndjson"),
)
VIEW = WindowedView(
    "clicked", version=1, entity=USER, source=CLICKS, features=[Count("clicks", windows=["1h"], default=0)]
)
ASKED = Asked.of(Definitions.of(FeatureService("ads", version=1, features=[VIEW])), "ads@1")

NOON = datetime(2013, 6, 1, 12, tzinfo=UTC)
NOON_US = instant_us(NOON)
ELSEWHERE = timezone(timedelta(hours=2))


def test_instants_become_utc_and_other_columns_stay() -> None:
    frame = pd.DataFrame(
        {"label": [1, 0], "user_id": ["b", "a"], "event_timestamp": [NOON, NOON.astimezone(ELSEWHERE)]}
    )
    spine = Spine.of(frame, ASKED)
    assert spine.instants_us.tolist() == [NOON_US, NOON_US]
    assert spine.table.column_names == ["label", "user_id", "event_timestamp"]
    assert spine.table["label"].to_pylist() == [1, 0]
    assert spine.keyed["user"].keys == ["b", "a"]


@pytest.mark.parametrize(
    "instants",
    [
        pd.Series([NOON]).dt.tz_convert("America/New_York"),
        pd.Series([NOON], dtype="datetime64[ns, UTC]"),
        pd.Series([NOON], dtype="datetime64[s, UTC]"),
        ["2013-06-01T14:00:00+02:00"],
        [NOON],
        pa.array([NOON_US * 1000 + 999], pa.timestamp("ns", "Europe/Paris")),
    ],
    ids=["zone", "nanoseconds", "seconds", "text", "datetimes", "finer than a microsecond"],
)
def test_every_way_to_write_an_instant_means_the_same(instants: Any) -> None:
    assert Spine.of({"user_id": ["a"], "event_timestamp": instants}, ASKED).instants_us.tolist() == [NOON_US]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_spine_may_be_a_file(tmp_path: Path, suffix: str) -> None:
    table = pa.table(
        {"user_id": ["a", None], "event_timestamp": pa.array([NOON_US, NOON_US + 1], pa.timestamp("us", "UTC"))}
    )
    path = tmp_path / f"spine{suffix}"
    (pyarrow.parquet.write_table if suffix == ".parquet" else pyarrow.csv.write_csv)(table, path)
    spine = Spine.of(path, ASKED)
    assert spine.instants_us.tolist() == [NOON_US, NOON_US + 1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"user_id": ["a"]}, "no column 'event_timestamp'"),
        ({"event_timestamp": [NOON]}, "no column 'user_id', a key"),
        ({"user_id": ["a"], "event_timestamp": [NOON.replace(tzinfo=None)]}, "no time zone in row 0"),
        ({"user_id": ["a"] * 2, "event_timestamp": [NOON, NOON.replace(tzinfo=None)]}, "no time zone in row 1"),
        (pd.DataFrame({"user_id": ["a"], "event_timestamp": [NOON.replace(tzinfo=None)]}), "tz_localize"),
        ([{"user_id": "a", "event_timestamp": NOON.replace(tzinfo=None)}], "no time zone in row 0"),
        ({"user_id": ["a"] * 2, "event_timestamp": [NOON, None]}, "null in row 1"),
        ({"user_id": ["a"], "event_timestamp": ["2013-06-01T14:00:00"]}, "row 0: .* no time zone"),
        ({"user_id": ["a"], "event_timestamp": ["noon"]}, "row 0: 'noon' is not an instant"),
        ({"user_id": ["a"], "event_timestamp": [7]}, "is int64; expected aware datetimes"),
        ({"user_id": [7], "event_timestamp": [NOON]}, "'user_id' is int64; expected text"),
        ({"user_id": ["a"], "event_timestamp": [NOON], "clicks_1h": [1]}, "has a column 'clicks_1h'"),
        ("spine.xlsx", "ends in '.xlsx'"),
        ("nowhere.csv", "is not a file"),
        (7, "entity_df is a int"),
    ],
)
def test_a_bad_spine_is_refused_with_a_message_that_says_where(rows: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Spine.of(rows, ASKED)


def test_a_column_that_is_named_as_a_feature_may_stay_with_full_names() -> None:
    asked = Asked.of(Definitions.of(VIEW), ["clicked@1:clicks_1h"], full_feature_names=True)
    spine = Spine.of({"user_id": ["a"], "event_timestamp": [NOON], "clicks_1h": [1]}, asked)
    assert [column.title for column in asked.columns] == ["clicked__clicks_1h"]
    assert spine.table["clicks_1h"].to_pylist() == [1]
