"""Many rows of a batch view are the bytes that each of them is by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from forebay import BatchView, Bool, Decimal, Entity, Feature, Float64, Int64, List, String, TableSource, Timestamp
from forebay.core.rows import Rows
from forebay.core.values import arrow_type
from forebay.language.types import AnyType
from forebay.online.resp import _joined
from forebay.online.row_blob import pack_rows
from forebay.online.row_columns import EDGES, blob_columns

USER = Entity("user", keys={"user_id": String})
AT_EDGES = [int(edge) + step for edge in (*EDGES, 0, 2**31) for step in (-1, 0, 1)] + [-(2**63), 2**63 - 1]
INTEGERS = st.sampled_from(AT_EDGES) | st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=5) | st.sampled_from([length * "x" for length in (31, 32, 255, 256, 65_535, 65_536)])
KINDS: list[tuple[AnyType, st.SearchStrategy[Any], Any]] = [
    (Int64, INTEGERS, 0),
    (Float64, st.floats(allow_nan=False), 0.0),
    (Bool, st.booleans(), False),
    (Timestamp, st.integers(0, 2**50), "2000-01-01T00:00:00Z"),
    (Decimal(2), st.integers(-(10**18), 10**18), 0),
    (String, TEXTS, ""),
    (String(max_bytes=40), st.text(alphabet="ab é", max_size=20), ""),
    (List(Int64), st.lists(st.integers(0, 300), max_size=3), []),
]


def column_of(kind: AnyType, values: list[Any]) -> pa.Array:
    """A column of a table, from Python values or units."""
    if kind == Decimal(2):
        return pa.array(values, pa.int64()).cast(pa.decimal128(38, 0)).cast(arrow_type(kind))
    if kind == Timestamp:
        return pa.array(values, pa.int64()).cast(arrow_type(kind))
    return pa.array(values, arrow_type(kind))


@st.composite
def drawn(draw: st.DrawFn) -> tuple[BatchView, pa.Table]:
    """A view of some features, and rows of it."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=20))
    count = draw(st.integers(0, 5))
    features = [Feature(f"f{number}", kind, default=default) for number, (kind, _, default) in enumerate(kinds)]
    source = TableSource("t", schema={"user_id": String, "at": Timestamp}, effective="at", path="x.csv")
    view = BatchView("v", 1, USER, [source], features, history_start="2024-01-01")
    columns = {}
    for number, (kind, values, _) in enumerate(kinds):
        one = values | st.none() if draw(st.booleans()) else values
        columns[f"f{number}"] = column_of(kind, draw(st.lists(one, min_size=count, max_size=count)))
    instants = st.lists(st.integers(-(2**50), 2**50), min_size=count, max_size=count)
    for name in ("event_timestamp", "created_timestamp"):
        columns[name] = pa.array(draw(instants), pa.timestamp("us", "UTC"))
    return view, pa.table({"user_id": [f"u{number}" for number in range(count)], **columns})


@given(drawn())
def test_the_bytes_are_the_same(case: tuple[BatchView, pa.Table]) -> None:
    view, table = case
    rows = Rows.of(view, table)
    chosen = np.arange(len(rows))[::-1]
    assert _joined(blob_columns(view, rows, chosen)).to_pylist() == pack_rows(view, rows, chosen)
