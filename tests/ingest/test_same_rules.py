"""The same events through JSON and Parquet are the same table, and nothing that is offered is lost or raises."""

from __future__ import annotations

import decimal
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from forebay import Bool, Decimal, EventSource, Float64, Int64, String, Timestamp
from forebay.ingest.arrow import conform
from forebay.ingest.batch import EVENT_BYTES_MAX, LETTER_BYTES_MAX, REASONS, event_schema
from forebay.ingest.json import decode_json
from forebay.instants import instant_text, instant_us
from forebay.language.source import content_hash

NOW_US = instant_us("2024-06-01T12:00:00Z")
SCHEMA = {
    "event_id": String(max_bytes=8),
    "text": String,
    "short": String(max_bytes=3),
    "flag": Bool,
    "whole": Int64,
    "real": Float64,
    "cents": Decimal(2),
    "fine": Decimal(12),
    "ts": Timestamp,
    "seen": Timestamp,
}
ALL_TIME = "0001-01-01"
BY_ID = EventSource("by_id", schema=SCHEMA, timestamp="ts", event_id="event_id", history_start=ALL_TIME)
HASHED = EventSource(
    "hashed",
    schema={name: kind for name, kind in SCHEMA.items() if name != "event_id"},
    timestamp="ts",
    event_id=content_hash,
    history_start=ALL_TIME,
)
LIMITS = {"whole": 2**47, "cents": 2**47}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
instants = st.integers(instant_us("0001-01-02T00:00:00Z"), NOW_US + 120_000_000)
reals = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.125, 0.375, 1.005, -2.5, 2.0**53, 1e22])
ROWS = st.fixed_dictionaries(
    {
        "event_id": st.none() | texts,
        "text": st.none() | texts,
        "short": st.none() | texts,
        "flag": st.none() | st.booleans(),
        "whole": st.none() | st.integers(-(2**63), 2**63 - 1) | st.integers(-5, 5),
        "real": st.none() | reals,
        "cents": st.none() | reals | st.floats(-1000, 1000),
        "fine": st.none() | st.floats(-1000, 1000),
        "ts": st.none() | instants,
        "seen": st.none() | instants,
    }
)


def _json(row: dict[str, Any], *, iso: bool) -> bytes:
    instants_as = {name: instant_text(row[name]) for name in ("ts", "seen") if iso and row[name] is not None}
    return json.dumps(row | instants_as).encode()


def _parquet(rows: list[dict[str, Any]], *, iso: bool) -> pa.Table:
    """The rows as a producer writes them: floats as doubles, instants as timestamps or numbers."""
    instant = pa.timestamp("us", "UTC") if iso else pa.int64()
    kinds = {"flag": pa.bool_(), "whole": pa.int64(), "ts": instant, "seen": instant}
    floats = dict.fromkeys(("real", "cents", "fine"), pa.float64())
    schema = pa.schema([(name, (kinds | floats).get(name, pa.string())) for name in SCHEMA])
    buffer = io.BytesIO()
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in SCHEMA}
    pq.write_table(pa.table(columns), buffer)
    return pq.read_table(buffer)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(ROWS, max_size=12), iso=st.booleans(), source=st.sampled_from([BY_ID, HASHED]))
def test_json_and_parquet_give_equal_tables(rows: list[dict[str, Any]], iso: bool, source: EventSource) -> None:
    lines = [_json(row, iso=iso) for row in rows]
    by_line, dead_lines = decode_json(source, "p", 7, lines, NOW_US, LIMITS)
    by_row, dead_rows = conform(source, "p", 7, _parquet(rows, iso=iso), NOW_US, LIMITS)

    assert by_line.table.equals(by_row.table)
    assert by_line.table.schema.equals(event_schema(source))
    assert [(d.offset, d.reason) for d in dead_lines] == [(d.offset, d.reason) for d in dead_rows]
    assert (by_line.first_offset, by_line.next_offset) == (7, 7 + len(rows))


@settings(max_examples=200, deadline=None)
@given(value=reals | st.floats(-1e6, 1e6), scale=st.integers(0, 12))
def test_a_json_number_is_rounded_half_even_from_its_shortest_decimal(value: float, scale: int) -> None:
    source = EventSource("s", schema={"x": Decimal(scale), "ts": Timestamp}, timestamp="ts", event_id=content_hash)
    batch, dead = decode_json(source, "p", 0, [json.dumps({"x": value, "ts": NOW_US}).encode()], NOW_US)

    with decimal.localcontext(prec=1000):
        units = (decimal.Decimal(repr(value)) * 10**scale).to_integral_value(decimal.ROUND_HALF_EVEN)
        expected = units.scaleb(-scale)
    if abs(units) > 2**53:
        assert [d.reason for d in dead] == ["too_large"]
    else:
        assert batch.table["x"].to_pylist() == [expected]


@settings(max_examples=100, deadline=None)
@given(number=st.decimals(allow_nan=False, allow_infinity=False), scale=st.integers(0, 12))
def test_decimal_text_and_decimal128_agree(number: decimal.Decimal, scale: int) -> None:
    source = EventSource("s", schema={"x": Decimal(scale), "ts": Timestamp}, timestamp="ts", event_id=content_hash)
    batch, dead = decode_json(source, "p", 0, [json.dumps({"x": str(number), "ts": 0}).encode()], NOW_US)
    try:
        column = pa.array([number])
    except pa.ArrowInvalid:  # more digits than any Arrow decimal has
        return
    other, dead_too = conform(source, "p", 0, pa.table({"x": column, "ts": [0]}), NOW_US)
    assert batch.table.equals(other.table)
    assert [d.reason for d in dead] == [d.reason for d in dead_too]


GARBAGE = [
    b"", b" ", b"\x00", b"\xff\xfe", b"null", b"1", b"[]", b"[" * 50_000, b'{"z":' * 5_000, b"{} {}",
    b'{"ts":1}{"ts":2}',
    b'{"event_id":"a","ts":1e400}', b'{"event_id":"a","ts":1,"real":1e400}', b'{"event_id":"a","ts":"Infinity"}',
    b'{"event_id":"a","ts":1,"real":Infinity}', b'{"event_id":"a","ts":1,"real":NaN}', b'{"event_id":"a","ts":true}',
    b'{"event_id":"a","ts":1,"whole":true}', b'{"event_id":"a","ts":1,"whole":1' + b"0" * 5_000 + b"}",
    b'{"event_id":"a","ts":1,"whole":99999999999999999999}', b'{"event_id":"a","ts":99999999999999999999}',
    b'{"event_id":"\\ud800","ts":1}', b'{"event_id":"\\udc00","ts":1}', b'{"event_id":"a\\u0000","ts":1}',
    b'{"event_id":"\xff","ts":1}', b'{"event_id":["a"],"ts":1}', b'{"event_id":"a","ts":"2024-01-01T00:00:00"}',
    b'{"event_id":"a","ts":1,"cents":"1e9999"}', b'{"event_id":"a","ts":1,"cents":"' + b"9" * 9_999 + b'"}',
    b'{"event_id":"a","ts":1,"cents":"NaN"}', b'{"event_id":"123456789","ts":1}', b"x" * (EVENT_BYTES_MAX + 1),
    b"y" * (LETTER_BYTES_MAX + 1),
    b'{"event_id":"a","ts":"9999-12-31T23:59:59Z"}', b'{"event_id":"a","ts":1,"seen":"0000-01-01T00:00:00Z"}',
]  # fmt: skip
GOOD = b'{"event_id":"good","ts":"2024-06-01T14:00:00+02:00","cents":12.345,"unknown":[{}],"whole":5.0}'


@pytest.mark.parametrize("line", GARBAGE, ids=lambda line: repr(line[:40]))
def test_a_bad_line_takes_nobody_with_it(line: bytes) -> None:
    batch, dead = decode_json(BY_ID, "p", 100, [GOOD, line, GOOD], NOW_US)

    assert batch.table["source_offset"].to_pylist() == [100, 102]
    assert batch.table["cents"].to_pylist() == [decimal.Decimal("12.34")] * 2
    assert [(d.offset, d.raw, d.size) for d in dead] == [(101, line[:LETTER_BYTES_MAX], len(line))]
    assert dead[0].reason in REASONS
    assert dead[0].detail


@settings(max_examples=300, deadline=None)
@given(
    lines=st.lists(st.binary(max_size=80) | st.sampled_from([*GARBAGE, GOOD]) | ROWS.map(json.dumps).map(str.encode))
)
def test_whatever_is_offered_is_an_event_or_a_dead_letter(lines: list[bytes]) -> None:
    batch, dead = decode_json(BY_ID, "p", 0, lines, NOW_US)

    assert len(batch) + len(dead) == len(lines)
    assert sorted([*batch.table["source_offset"].to_pylist(), *(d.offset for d in dead)]) == list(range(len(lines)))


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(ROWS.map(json.dumps).map(str.encode) | st.sampled_from([*GARBAGE, GOOD]), max_size=8))
def test_a_line_does_not_depend_on_its_neighbours(lines: list[bytes]) -> None:
    together, dead = decode_json(BY_ID, "p", 0, lines, NOW_US)
    apart = [decode_json(BY_ID, "p", offset, [line], NOW_US) for offset, line in enumerate(lines)]

    tables = [batch.table for batch, _ in apart] or [together.table]
    assert together.table.equals(pa.concat_tables(tables))
    assert dead == [letter for _, letters in apart for letter in letters]


scalars = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | texts | st.sampled_from(["1.5", "x"])


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from([*SCHEMA, "other"]), scalars), max_size=6))
def test_any_scalar_in_any_column_is_an_event_or_a_dead_letter(rows: list[dict[str, Any]]) -> None:
    batch, dead = decode_json(BY_ID, "p", 0, [json.dumps(row).encode() for row in rows], NOW_US)
    assert len(batch) + len(dead) == len(rows)


whole = st.integers(instant_us("2024-01-01T00:00:00Z"), NOW_US) | st.integers(2**53 - 3, 2**53 + 3)
like_each_other = st.sampled_from([0, 1, 2**63, 10**20, 10**400]) | whole
values_of_a_column = scalars | like_each_other | like_each_other.filter(lambda n: n < 10**30).map(float)


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(SCHEMA)), values=st.lists(values_of_a_column, min_size=2, max_size=4))
def test_a_value_does_not_depend_on_the_other_values_of_its_column(name: str, values: list[Any]) -> None:
    good = {"event_id": "good", "ts": "2024-06-01T12:00:00Z"}
    lines = [json.dumps(good | {name: value}).encode() for value in values]
    together, dead = decode_json(BY_ID, "p", 0, lines, NOW_US)
    apart = [decode_json(BY_ID, "p", offset, [line], NOW_US) for offset, line in enumerate(lines)]

    assert together.table.equals(pa.concat_tables([batch.table for batch, _ in apart]))
    assert dead == [letter for _, letters in apart for letter in letters]


@pytest.mark.parametrize(("short", "long"), [("1e20", "1" + "0" * 20), ("-1e300", "-1" + "0" * 300)])
def test_a_number_is_the_same_with_all_its_digits(short: str, long: str) -> None:
    lines = [b'{"event_id":"e","ts":0,"real":%s}' % number.encode() for number in (short, long, "5")]
    batch, dead = decode_json(BY_ID, "p", 0, lines, NOW_US)
    assert (batch.table["real"].to_pylist(), dead) == ([float(short), float(short), 5.0], [])


@pytest.mark.parametrize("number", ["1" + "0" * 400, "-1" + "0" * 400])
@pytest.mark.parametrize("beside", [b"null", b"0.5", b"7"])
def test_a_number_beyond_all_doubles_is_a_dead_letter(number: str, beside: bytes) -> None:
    lines = [b'{"event_id":"e","ts":0,"real":%s}' % value for value in (number.encode(), beside)]
    batch, dead = decode_json(BY_ID, "p", 0, lines, NOW_US)
    assert batch.table["source_offset"].to_pylist() == [1]
    assert [(letter.offset, letter.reason) for letter in dead] == [(0, "infinite")]


ODD_COLUMNS = [
    pa.array([None, None]), pa.array([b"\xff", b"a"]), pa.array([[1], [2]]), pa.array([1.5, float("inf")]),
    pa.array([2**64 - 1, 1], pa.uint64()), pa.array(["a", "b"]).dictionary_encode(), pa.array([True, None]),
    pa.array([1, 2], pa.timestamp("ns")), pa.array([-(2**62), 2**62], pa.timestamp("s", "UTC")),
    pa.array([1, 2], pa.date32()),
    pa.array([decimal.Decimal("9" * 38), None]), pa.array([decimal.Decimal("1e-30"), None]),
    pa.array([1.5, 2.5], pa.float16()),
    pa.array(["a", "b"], pa.large_string()), pa.array([1, -(2**62)], pa.timestamp("ns", "Asia/Tokyo")),
    pa.array([decimal.Decimal("9" * 60), None], pa.decimal256(76, 2)),
    pa.Array.from_buffers(pa.string(), 2, pa.array([b"\xff", b"a"]).buffers()),
]  # fmt: skip


@pytest.mark.parametrize("column", ODD_COLUMNS, ids=lambda column: str(column.type))
@pytest.mark.parametrize("name", SCHEMA)
def test_any_column_type_is_an_event_or_a_dead_letter(name: str, column: pa.Array) -> None:
    table = pa.table({"event_id": ["a", "b"], "ts": [1, 2]}).select([c for c in ("event_id", "ts") if c != name])
    batch, dead = conform(BY_ID, "p", 0, table.append_column(name, column), NOW_US)
    assert len(batch) + len(dead) == 2
    assert batch.table.schema.equals(event_schema(BY_ID))
    batch.table.validate(full=True)


def test_a_content_hash_is_pinned() -> None:
    line = b'{"text":"a,b","flag":true,"whole":5,"real":0.5,"cents":1.005,"ts":"1970-01-01T00:00:00.000001Z"}'
    batch, _ = decode_json(HASHED, "p", 0, [line], NOW_US)
    assert batch.table["event_id"].to_pylist() == ["55f8fa6a250916f34626b27f634a33a8"]


def test_an_event_from_before_history_is_refused_because_no_partition_would_hold_it() -> None:
    source = EventSource("s", schema=SCHEMA, timestamp="ts", event_id="event_id", history_start="2024-01-01")
    start_us = source.history_start_us
    events = [{"event_id": name, "ts": start_us + us} for name, us in (("first", 0), ("old", -1))]
    kept, dead = decode_json(source, "p", 0, [json.dumps(event).encode() for event in events], NOW_US)
    assert kept.table["event_id"].to_pylist() == ["first"]
    detail = f"'ts' is {start_us - 1}, before the source's history_start 2024-01-01"
    assert [(letter.offset, letter.reason, letter.detail) for letter in dead] == [(1, "before_history", detail)]
    again, refused = conform(source, "p", 0, pa.Table.from_pylist(events), NOW_US)
    assert again.table.equals(kept.table)
    assert [letter.reason for letter in refused] == ["before_history"]


def test_offsets_may_have_gaps() -> None:
    batch, dead = decode_json(BY_ID, "p", 5, [GOOD, b"", GOOD], NOW_US, offsets=np.array([5, 9, 12]))
    assert batch.table["source_offset"].to_pylist() == [5, 12]
    assert (dead[0].offset, batch.first_offset, batch.next_offset) == (9, 5, 13)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_the_bytes_of_a_refused_row_are_the_event_as_json(unit: str) -> None:
    """So that it is one when it is judged again, whatever unit its file has for instants: pandas writes nanoseconds."""
    instant = pa.array(["2023-06-01T12:00:00"]).cast(pa.timestamp(unit)).cast(pa.timestamp(unit, "UTC"))
    early = pa.table({"event_id": ["a"], "ts": instant})
    source = replace(BY_ID, history_start="2024-01-01")
    batch, (letter,) = conform(source, "p", 0, early, NOW_US)
    assert (len(batch), letter.reason) == (0, "before_history")
    (again,) = decode_json(BY_ID, "p", 0, [letter.raw], NOW_US)[0].table["ts"].to_pylist()
    assert again.isoformat() == "2023-06-01T12:00:00+00:00"
