"""Key columns of requests: what is accepted, what is refused, and who is the same entity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forebay import Entity, Int64, String
from forebay.calls.keyed import ENTITY_ROWS_MAX, EntityRows, keyed_table
from forebay.core.identity import KEY_BYTES_MAX
from forebay.errors import RequestError

SHOPPER = Entity("shopper", keys={"user_id": Int64, "shop": String})
ROWS = [
    {"user_id": 1, "shop": "a b"},
    {"user_id": 2, "shop": "é"},
    {"user_id": 1, "shop": "a b"},
    {"user_id": 2, "shop": None},
]


def shapes() -> list[Any]:
    """The same rows, in each shape that a caller may have them in."""
    columns = {name: [row[name] for row in ROWS] for name in ("user_id", "shop")}
    frame = pd.DataFrame(ROWS)
    return [
        ROWS,
        columns,
        frame,
        frame.to_dict("records"),
        pa.table(columns),
        frame.astype({"shop": "category"}),
        pa.table(columns).cast(pa.schema([("user_id", pa.int32()), ("shop", pa.large_string())])),
    ]


@pytest.mark.parametrize("rows", shapes(), ids=lambda rows: type(rows).__name__)
def test_rows_of_one_entity_share_a_code_in_every_shape(rows: Any) -> None:
    given = EntityRows.of(rows, SHOPPER.keys)
    keyed = given.keyed(SHOPPER)
    assert keyed.keys == ["1|a%20b", "2|%C3%A9"]
    assert keyed.code.tolist() == [0, 1, 0, -1]
    assert given.columns == {"user_id": [1, 2, 1, 2], "shop": ["a b", "é", "a b", None]}


@pytest.mark.parametrize("rows", shapes()[2:3] + shapes()[4:], ids=lambda rows: type(rows).__name__)
def test_a_table_has_the_same_entities(rows: Any) -> None:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows)
    keyed = keyed_table(table, SHOPPER, "spine")
    assert keyed.keys == ["1|a%20b", "2|%C3%A9"]
    assert keyed.code.tolist() == [0, 1, 0, -1]


def test_whole_floats_are_keys_in_a_table_for_pandas_makes_them_of_ints_with_nulls() -> None:
    frame = pd.DataFrame({"user_id": [17.0, None], "shop": ["a", "a"]})
    assert EntityRows.of(frame, SHOPPER.keys).keyed(SHOPPER).keys == ["17|a"]
    with pytest.raises(RequestError, match="user_id"):
        EntityRows.of(pd.DataFrame({"user_id": [1.5], "shop": ["a"]}), SHOPPER.keys)


def test_numpy_scalars_are_keys() -> None:
    rows = [{"user_id": np.int64(3), "shop": np.str_("a")}]
    assert EntityRows.of(rows, SHOPPER.keys).keyed(SHOPPER).keys == ["3|a"]


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA, pd.NaT, np.float64("nan")])
def test_null_in_any_of_its_guises_is_no_entity(null: Any) -> None:
    keyed = EntityRows.of([{"user_id": null, "shop": "a"}], SHOPPER.keys).keyed(SHOPPER)
    assert keyed.keys == []
    assert keyed.code.tolist() == [-1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"user_id": 1}], r"entity_rows\[0\] has no key 'shop'"),
        ([{"user_id": 1, "shops": "a"}], "Did you mean 'shops'"),
        ([{"user_id": "1", "shop": "a"}], r"entity_rows\[0\], key 'user_id': '1' is not an Int64"),
        ([{"user_id": True, "shop": "a"}], "True is not an Int64"),
        ([{"user_id": 1.0, "shop": "a"}], "1.0 is not an Int64"),
        ([{"user_id": 1, "shop": 7}], "7 is not a String"),
        ([("a", 1)], r"entity_rows\[0\] is \('a', 1\)"),
        ({"user_id": [1]}, "no column 'shop'"),
        ({"user_id": [1], "shop": [1]}, "'shop' is int64; expected text"),
        ({"user_id": ["1"], "shop": ["a"]}, "expected whole numbers"),
        ({"user_id": [1, 2], "shop": ["a"]}, "different lengths"),
        ({"user_id": 1, "shop": "a"}, r"'user_id' is the one value 1; expected a list of dicts, \[\{"),
        ({"user_id": [1], "shop": "a"}, "'shop' is the one value 'a'"),
        ([{"user_id": 1, "shop": "\ud800"}], r"key 'shop': '\\ud800' is not a String; it has half a character"),
        ("user_id=1", "user_id=1"),
        (7, "entity_rows is a int"),
    ],
)
def test_bad_rows_are_refused_with_a_message_that_says_where(rows: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        EntityRows.of(rows, SHOPPER.keys).keyed(SHOPPER)


def test_too_many_rows_are_refused() -> None:
    rows = [{"user_id": 1, "shop": "a"}] * (ENTITY_ROWS_MAX + 1)
    with pytest.raises(RequestError, match="ask in several calls"):
        EntityRows.of(rows, SHOPPER.keys)


def test_a_key_that_is_too_long_to_be_stored_has_no_entity_as_a_null_one() -> None:
    long, longest = "x" * (KEY_BYTES_MAX - 1), "x" * (KEY_BYTES_MAX - 2)
    rows = {"user_id": [1, 1, None], "shop": [long, longest, "a"]}
    keyed = EntityRows.of(rows, SHOPPER.keys).keyed(SHOPPER)
    assert (keyed.code.tolist(), keyed.keys) == ([-1, 0, -1], [f"1|{longest}"])
    columns = pa.table({"user_id": pa.array(rows["user_id"], pa.int64()), "shop": rows["shop"]})
    spine = keyed_table(columns, SHOPPER, "entity_df")
    assert (spine.code.tolist(), spine.keys) == (keyed.code.tolist(), keyed.keys)
