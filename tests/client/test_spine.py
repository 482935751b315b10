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
from forebay.calls.asked import Asked
from forebay.errors import RequestError
from forebay.history.spine import Spine
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
        ["2013-06-01T12:00:00.000000999Z"],
        pd.Categorical(["2013-06-01T12:00:00Z"]),
        pa.array([NOON]).dictionary_encode(),
        pa.array(["2013-06-01T12:00:00+00:00"], pa.string_view()),
    ],
    ids=[
        *("zone", "nanoseconds", "seconds", "text", "datetimes", "finer than a microsecond", "finer text"),
        *("categories", "dictionary", "view"),
    ],
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
        ({"user_id": ["a"], "event_timestamp": [NOON.date()]}, "a date is no instant"),
        (
            {"user_id": ["a"], "event_timestamp": pa.array([2**60], pa.timestamp("s", "UTC"))},
            "row 0; expected instants within the years 1 to 9999",
        ),
        ({"user_id": ["a"] * 2, "event_timestamp": [NOON, "2013-06-01T14:00:00Z"]}, "columns of one type each"),
        ({"user_id": ["a", 7], "event_timestamp": [NOON] * 2}, "columns of one type each"),
        ({"user_id": ["a\ud800"], "event_timestamp": [NOON]}, "surrogates not allowed"),
        (pd.DataFrame([["a", "b"]], columns=["user_id", "user_id"]), "two columns 'user_id'"),
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


ITEM = Entity("item", keys={"shop": Int64})
VISITED = WindowedView(
    "visited",
    version=1,
    entity=ITEM,
    source=EventSource(
        "visits", schema={"event_id": String, "shop": Int64, "ts": Timestamp}, timestamp="ts", event_id="event_id"
    ),
    features=[Count("visits", windows=["1h"], default=0)],
)
BY_NUMBER = Asked.of(Definitions.of(VISITED), ["visited@1:visits_1h"])


@pytest.mark.parametrize(
    "keys",
    [
        pa.array([7, None], pa.int32()),
        pa.array([7, None], pa.uint64()),
        pa.array([7.0, float("nan")]),
        pd.array([7, None], "Int64"),
        pd.array([7, None], pd.ArrowDtype(pa.int16())),
        pd.Series([7.0, None]),
        pd.Categorical([7, None]),
        [7, None],
    ],
    ids=["int32", "uint64", "NaN", "Int64", "Arrow in pandas", "float of pandas", "categories", "list"],
)
def test_whole_numbers_may_be_keys_in_any_width_and_null_is_nobody(keys: Any) -> None:
    spine = Spine.of({"shop": keys, "event_timestamp": [NOON, NOON]}, BY_NUMBER)
    assert spine.keyed["item"].keys == ["7"]
    assert spine.keyed["item"].code.tolist() == [0, -1]


@pytest.mark.parametrize("keys", [pd.Categorical(["a", None]), pd.array(["a", None], "string"), ["a", None]])
def test_text_may_be_a_key_in_any_form(keys: Any) -> None:
    spine = Spine.of({"user_id": keys, "event_timestamp": [NOON, NOON]}, ASKED)
    assert (spine.keyed["user"].keys, spine.keyed["user"].code.tolist()) == (["a"], [0, -1])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([7.5], "not a column of Int64"),
        ([2.0**53], "a float cannot tell such whole numbers apart"),
        ([float("inf")], "a float cannot tell"),
        (pa.array([2**63], pa.uint64()), "not a column of Int64"),
        ([True], "is bool; expected whole numbers"),
        (["7"], "is string; expected whole numbers"),
    ],
)
def test_a_key_that_may_be_somebody_elses_is_refused(keys: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Spine.of({"shop": keys, "event_timestamp": [NOON]}, BY_NUMBER)


CELLS = {
    ".csv": 'user_id,event_timestamp,note\n007,2013-06-01T12:00:00Z,NA\n,2013-06-01T14:00:00+02:00,\n"",'
    "2013-06-01T12:00:00Z,x\n2013-06-01,2013-06-01T12:00:00Z,y\n",
    ".ndjson": '{"user_id": "007", "event_timestamp": "2013-06-01T12:00:00Z", "note": "NA"}\n'
    '{"user_id": null, "event_timestamp": "2013-06-01T14:00:00+02:00"}\n'
    '{"user_id": "", "event_timestamp": "2013-06-01T12:00:00Z", "note": "x"}\n'
    '{"user_id": "2013-06-01", "event_timestamp": "2013-06-01T12:00:00Z", "note": "y"}\n',
}


@pytest.mark.parametrize("suffix", [".csv", ".ndjson"])
def test_what_a_file_of_text_holds_is_not_guessed(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"spine{suffix}"
    path.write_text(CELLS[suffix])
    spine = Spine.of(path, ASKED)
    assert spine.table["user_id"].to_pylist() == ["007", None, "", "2013-06-01"]
    assert spine.table["note"].to_pylist() == ["NA", None, "x", "y"]
    assert spine.instants_us.tolist() == [NOON_US] * 4
    assert spine.keyed["user"].code.tolist() == [0, -1, 1, 2]


def test_a_column_of_nulls_in_a_file_is_there_and_one_that_no_line_names_is_not(tmp_path: Path) -> None:
    path = tmp_path / "spine.ndjson"
    path.write_text('{"user_id": null, "event_timestamp": "2013-06-01T12:00:00Z"}\n')
    assert Spine.of(path, ASKED).keyed["user"].code.tolist() == [-1]
    path.write_text('{"event_timestamp": "2013-06-01T12:00:00Z"}\n')
    with pytest.raises(RequestError, match="no column 'user_id', a key"):
        Spine.of(path, ASKED)


def test_a_column_that_is_named_as_a_status_is_refused_where_statuses_are_asked_for() -> None:
    rows = {"user_id": ["a"], "event_timestamp": [NOON], "clicks_1h__status": ["?"]}
    assert Spine.of(rows, ASKED).table["clicks_1h__status"].to_pylist() == ["?"]
    with pytest.raises(RequestError, match="'clicks_1h__status', as the status of a feature of 'clicked@1'"):
        Spine.of(rows, ASKED, with_statuses=True)
