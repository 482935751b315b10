"""Lists and vectors are the same values in every shape: Python, Arrow, NumPy, pandas, files, and the row of a store."""

from __future__ import annotations

import decimal
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay import (
    BatchView,
    Bool,
    CountDistinct,
    DecayedSum,
    Decimal,
    Derived,
    Entity,
    EventSource,
    Feature,
    Float64,
    Histogram,
    Int64,
    LastK,
    List,
    Median,
    Quantile,
    String,
    Timestamp,
    TopK,
    Vector,
    WindowedView,
)
from forebay.calls.files import write_file
from forebay.calls.tables import to_frame
from forebay.core.events import Column
from forebay.core.lists import objects
from forebay.core.rows import Rows, stored
from forebay.core.values import FeatureColumn, arrow_array, arrow_type
from forebay.errors import DefinitionError, RequestError
from forebay.ingest.lists import convert_feature
from forebay.language.types import FeatureType
from forebay.offline.rows_table import rows_schema
from forebay.online.row_blob import pack_rows, unpack_rows
from tests.language.strategies import defaults

KINDS: list[FeatureType] = [
    List(kind) for kind in (Int64, Float64, Decimal(2), Timestamp, Bool, String, String(max_bytes=8))
]
KINDS.append(Vector(3))
USER = Entity("user", keys={"user": String})
SOURCE = EventSource(
    "s",
    schema={"user": String, "id": String, "n": Int64, "d": Decimal(2), "ts": Timestamp},
    timestamp="ts",
    event_id="id",
)


def column_of(kind: FeatureType, values: list[Any]) -> FeatureColumn:
    """A column of Python values, null where None."""
    units = [kind.units(value) for value in values]
    count = len(values)
    there = np.array([unit is not None for unit in units], np.bool_)
    feature = Feature("f", kind, default=None)
    return FeatureColumn(feature, objects(units), there, np.zeros(count, np.uint8), np.zeros(count, np.int64))


@given(st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(defaults(kind), max_size=4))))
def test_values_come_back_from_arrow_and_from_a_row_blob(case: tuple[FeatureType, list[Any]]) -> None:
    kind, values = case
    column = column_of(kind, values)
    array = column.to_arrow()
    array.validate(full=True)
    assert array.type == arrow_type(kind)
    assert array.to_pylist() == column.to_python()
    back = stored(array, kind)
    assert back.valid.tolist() == column.valid.tolist()
    assert arrow_array(kind, back.values, back.valid) == array
    view = BatchView("v", 1, USER, [SOURCE], [column.feature], history_start="2024-01-01")
    none = np.zeros(len(values), np.int64)
    rows = Rows(pa.array([""] * len(values)), none, none, none, {"f": Column(column.values, column.valid)})
    columns, _ = unpack_rows(view, pack_rows(view, rows, np.arange(len(values))))
    assert arrow_array(kind, columns["f"].values, columns["f"].valid) == array


def viewed(feature: Any) -> WindowedView:
    """A view of one feature."""
    return WindowedView("v", version=1, entity=USER, source=SOURCE, features=[feature])


def histogram(**arguments: Any) -> WindowedView:
    """A view of a histogram."""
    return viewed(Histogram("h", windows=["1h"], default=[], **arguments))


def test_a_default_is_one_value_of_every_row() -> None:
    column = FeatureColumn.of_defaults(Feature("f", List(Decimal(1)), default=[1, "2.5"]), 3)
    assert column.to_python() == [[decimal.Decimal("1.0"), decimal.Decimal("2.5")]] * 3
    assert FeatureColumn.of_defaults(Feature("f", List(Int64), default=[]), 2).to_python() == [[], []]
    assert FeatureColumn.of_defaults(Feature("f", Vector(2), default=None), 1).to_python() == [None]


def test_a_whole_column_of_vectors_is_a_matrix_and_one_with_nulls_is_objects() -> None:
    matrix = column_of(Vector(2), [[1, 2], [3, 4.5]]).to_numpy()
    assert (matrix.dtype, matrix.tolist()) == (np.float64, [[1.0, 2.0], [3.0, 4.5]])
    assert column_of(Vector(2), [[1, 2], None]).to_numpy().tolist() == [[1.0, 2.0], None]
    assert column_of(List(Int64), [[1], [2, 3]]).to_numpy().tolist() == [[1], [2, 3]]
    assert FeatureColumn.of_defaults(Feature("f", Vector(2), default=[0, 0]), 0).to_numpy().shape == (0, 2)


def test_lists_in_frames_and_files(tmp_path: Path) -> None:
    table = pa.table({"f": column_of(List(Decimal(1)), [["1.5"], None, []]).to_arrow()})
    assert to_frame(table)["f"].tolist() == [[decimal.Decimal("1.5")], None, []]
    write_file(table, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == '"f"\n"[1.5]"\n\n"[]"\n'
    write_file(table, tmp_path / "t.ndjson")
    assert [json.loads(line) for line in (tmp_path / "t.ndjson").read_text().splitlines()][1:] == [
        {"f": None},
        {"f": []},
    ]
    write_file(table, tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("kind", "values", "good", "faults"),
    [
        (List(Int64), [[1, 2], None, [], [3.0]], [[1, 2], None, [], [3]], {}),
        (List(Int64), [[1.5], [1.0]], [None, [1]], {"wrong_type": [True, False]}),
        (List(Int64), [[1, None], [1]], [None, [1]], {"wrong_type": [True, False]}),
        (List(Float64), [[1.0], [float("inf")]], [[1.0], None], {"infinite": [False, True]}),
        (List(Int64), [list(range(1025)), [1]], [None, [1]], {"too_large": [True, False]}),
        (List(String(max_bytes=2)), [["ab"], ["abc"]], [["ab"], None], {"too_large": [False, True]}),
        (Vector(2), [[1, 2], [1], None], [[1.0, 2.0], None, None], {"wrong_type": [False, True, False]}),
        (Vector(2), [1, 2], [None, None], {"wrong_type": [True, True]}),
        (List(Int64), [None, None], [None, None], {}),
    ],
)
def test_what_a_batch_view_returns(kind: FeatureType, values: list[Any], good: list[Any], faults: Any) -> None:
    converted = convert_feature(kind, pa.chunked_array([pa.array(values)]))
    assert converted.array.type == arrow_type(kind)
    assert converted.array.to_pylist() == good
    assert {reason: mask.tolist() for reason, mask in converted.faults.items()} == faults


def test_tables_hold_vectors_as_lists() -> None:
    view = BatchView("v", 1, USER, [SOURCE], [Feature("f", Vector(2), default=None)], history_start="2024-01-01")
    assert rows_schema(view).field("f").type == pa.list_(pa.float64())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: List(List(Int64)),
            "List(ListType(of=Int64Type())) is a list of no column's type; expected e.g. List(Int64)",
        ),
        (lambda: Vector(0), "Vector(0) is out of bounds; expected a length of 1 to 4096"),
        (lambda: Vector(4097), "Vector(4097) is out of bounds; expected a length of 1 to 4096"),
        (
            lambda: Feature("f", List(Int64), default=[1, None]),
            "Feature 'f': default [1, None] is not a List(Int64); expected no null in it",
        ),
        (
            lambda: Feature("f", List(Int64), default="ab"),
            "Feature 'f': default 'ab' is not a List(Int64); expected a list of at most 1024 values",
        ),
        (
            lambda: Feature("f", List(Decimal(1)), default=[0.25]),
            (
                "Feature 'f': default 0.25 is not a Decimal(1), which would make 0.2 of it; "
                "write what an entity without a value is to get"
            ),
        ),
        (
            lambda: Feature("f", List(Int64), default=Median(over="30d", otherwise=[])),
            "Feature 'f': default Median cannot be taken of List(Int64); it needs numbers",
        ),
        (
            lambda: histogram(of="d", edges=["0.005", 5]),
            "View 'v': Histogram 'h': edge '0.005' is not a Decimal(2), which would make 0.00 of it, as of values",
        ),
        (
            lambda: histogram(of="n", edges=[1, 1]),
            "View 'v': Histogram 'h': edges=[1, 1] do not ascend; expected e.g. edges=[10, 100]",
        ),
        (
            lambda: histogram(of="n", edges=[1.5]),
            "View 'v': Histogram 'h': edge 1.5 is not an Int64; expected a whole number of 64 bits",
        ),
        (
            lambda: histogram(of="n", edges=[]),
            "Histogram 'h' has 0 edges; expected 1 to 256, e.g. edges=[10, 100]",
        ),
        (
            lambda: Quantile("q", of="n", windows=["1h"], default=0, q=95),
            "Quantile 'q': q=95 is no share; expected a number from 0 to 1, e.g. q=0.5",
        ),
        (
            lambda: Quantile("q", of="n", windows=["1h"], default=0, q=0.99999999),
            "Quantile 'q': q=0.99999999 is finer than a millionth; write 1.0",
        ),
        (
            lambda: TopK("t", of="n", windows=["1h"], default=[], k=20, cap=10),
            "TopK 't': cap=10; expected a whole number from 20 to 1,024",
        ),
        (
            lambda: CountDistinct("c", of="n", windows=["1h"], default=0, k=8),
            "CountDistinct 'c': k=8; expected a whole number from 16 to 4,096",
        ),
        (
            lambda: DecayedSum("d", of="n", windows=["1h"], default=0),
            "DecayedSum 'd' names no half-life; say after how long an event counts half, e.g. half_life='1h'",
        ),
        (
            lambda: viewed(CountDistinct("c", of="id", windows=["1h"], default=0)),
            (
                "View 'v': CountDistinct 'c': CountDistinct keeps the text in every tile, so it must be bounded: "
                "declare the column as String(max_bytes=32)"
            ),
        ),
        (
            lambda: viewed(DecayedSum("d", of="id", windows=["1h"], default=0, half_life="1h")),
            "View 'v': DecayedSum 'd': DecayedSum cannot be taken of String; it needs numbers",
        ),
        (
            lambda: Feature("f", Vector(2), default=[1]),
            "Feature 'f': default [1] is not a Vector(2); expected a list of 2 numbers",
        ),
        (
            lambda: EventSource("s", schema={"a": List(Int64)}, timestamp="a", event_id="a"),
            (
                "EventSource 's': column 'a' is ListType(of=Int64Type()); "
                "expected a type such as String, Int64 or Decimal(2)"
            ),
        ),
        (
            lambda: Derived("1", Vector(2)),
            "Derived('1') is of type VectorType(length=2); expected a type such as String, Int64 or Decimal(2)",
        ),
        (
            lambda: LastK("l", of="n", windows=["1h"], default=[], k=257),
            "LastK 'l': k=257; expected a whole number from 1 to 256",
        ),
        (
            lambda: WindowedView(
                "v",
                version=1,
                entity=USER,
                source=SOURCE,
                features=[LastK("l", of="n", windows=["1h"], default=0, k=2)],
            ),
            "View 'v': LastK 'l': default 0 is not a List(Int64); expected a list of at most 1024 values",
        ),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(DefinitionError) as error:
        make()
    assert str(error.value) == message


def test_a_value_that_is_no_list() -> None:
    with pytest.raises(RequestError):
        List(Int64).units({1: 2})
