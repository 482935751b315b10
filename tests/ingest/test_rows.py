"""Rows that others decoded become the same columns as JSON lines, and what no column can be is a fault of its row."""

from __future__ import annotations

import datetime
import decimal
import json
import uuid

import numpy as np
import pytest

from forebay import Bool, Decimal, EventSource, Float64, Int64, String, Timestamp
from forebay.ingest.batch import EVENT_BYTES_MAX
from forebay.ingest.json import decode_json
from forebay.ingest.rows import Messages, Unreadable, decode_rows, obstacle

NOW_US = 1_709_300_000_000_000
TS = "2024-03-01T12:00:00.123456Z"
SOURCE = EventSource(
    "clicks",
    schema={
        "event_id": String,
        "ts": Timestamp,
        "n": Int64,
        "x": Float64,
        "amount": Decimal(2),
        "text": String(max_bytes=4),
        "flag": Bool,
    },
    timestamp="ts",
    event_id="event_id",
)
UTC = datetime.UTC
MOMENT = datetime.datetime(2024, 3, 1, 12, 0, 0, 123456, UTC)


def row(**columns: object) -> dict[str, object]:
    return {"event_id": "e", "ts": TS} | columns


def decode(*rows: dict[str, object] | Unreadable) -> tuple[list[dict[str, object]], list[tuple[int, str]]]:
    """The events as rows, and (offset, reason) of the dead letters."""
    messages = Messages(SOURCE, "p", 7, [b"raw"] * len(rows))
    batch, dead = decode_rows(messages, rows, NOW_US)
    assert {letter.raw for letter in dead} <= {b"raw"}
    assert (batch.first_offset, batch.next_offset) == (7, 7 + len(rows))
    return batch.table.to_pylist(), [(letter.offset, letter.reason) for letter in dead]


def test_rows_of_scalars_are_what_their_json_is() -> None:
    rows = [
        row(n=n, x=x, amount=amount, text=text, flag=flag)
        for n, x, amount, text, flag in [
            (1, 1.5, 0.125, "a", True),
            (None, 3, 17, None, None),
            (5.0, None, "2.675", "ü", False),
            (2**63, 1, 1, "a", True),
            (1, 1, 1, "longer", True),
            ("1", 1, 1, "a", 1),
            (1, 1, 10**30, "a", True),
        ]
    ]
    rows += [row(ts=1_709_290_000_000_000), row(ts="yesterday"), row(ts=None), {"ts": TS}, row(ts=NOW_US * 2)]
    raw = [json.dumps(one).encode() for one in rows]
    batch, dead = decode_rows(Messages(SOURCE, "p", 0, raw), rows, NOW_US)
    expected, lost = decode_json(SOURCE, "p", 0, raw, NOW_US)
    assert batch.table.equals(expected.table)
    assert dead == lost


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"ts": MOMENT}, {"ts": MOMENT}),
        ({"ts": MOMENT.astimezone(datetime.timezone(datetime.timedelta(hours=2)))}, {"ts": MOMENT}),
        ({"amount": decimal.Decimal("1.005")}, {"amount": decimal.Decimal("1.00")}),
        ({"amount": decimal.Decimal("12345678901234.565")}, {"amount": decimal.Decimal("12345678901234.56")}),
        ({"x": decimal.Decimal("0.1")}, {"x": 0.1}),
        ({"n": decimal.Decimal("5.0")}, {"n": 5}),
    ],
)
def test_values_that_json_does_not_have_are_exact(columns: dict[str, object], expected: dict[str, object]) -> None:
    (event,), dead = decode(row(**columns))
    assert not dead
    assert {name: event[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"ts": MOMENT.replace(tzinfo=None)}, "wrong_type"),
        ({"ts": MOMENT.date()}, "wrong_type"),
        ({"text": b"ab"}, "wrong_type"),
        ({"text": uuid.UUID(int=1)}, "wrong_type"),
        ({"text": decimal.Decimal(1)}, "wrong_type"),
        ({"text": "\ud800"}, "malformed"),
        ({"n": [1]}, "wrong_type"),
        ({"n": decimal.Decimal("5.5")}, "wrong_type"),
        ({"x": {"a": 1}}, "wrong_type"),
        ({"x": decimal.Decimal("1e400")}, "infinite"),
        ({"amount": decimal.Decimal("1e400")}, "too_large"),
    ],
)
def test_values_that_no_column_can_be_are_faults_of_their_row(columns: dict[str, object], reason: str) -> None:
    events, dead = decode(row(), row(**columns), row())
    assert len(events) == 2
    assert dead == [(8, reason)]


def test_unreadable_messages_are_dead_letters_in_their_place() -> None:
    events, dead = decode(Unreadable("malformed", "no"), row(n="x"), row(), Unreadable("tombstone", "none"))
    assert [event["source_offset"] for event in events] == [9]
    assert dead == [(7, "malformed"), (8, "wrong_type"), (10, "tombstone")]
    assert decode() == ([], [])


def test_offsets_may_have_gaps() -> None:
    messages = Messages(SOURCE, "p", 3, [b"1", b"2"], np.array([5, 9], np.int64))
    batch, _ = decode_rows(messages, [row(), row()], NOW_US)
    assert (batch.first_offset, batch.next_offset) == (3, 10)
    assert batch.table["source_offset"].to_pylist() == [5, 9]


def test_what_stands_against_a_message_in_any_format() -> None:
    assert obstacle(b"") is None
    assert obstacle(None) == Unreadable("tombstone", "the message has no value")
    large = obstacle(b"x" * (EVENT_BYTES_MAX + 1))
    assert large is not None
    assert large.reason == "too_large"


def test_a_line_without_a_value_is_a_tombstone() -> None:
    line = json.dumps(row()).encode()
    batch, dead = decode_json(SOURCE, "p", 0, [line, None, b"", line], NOW_US)
    assert len(batch) == 2
    assert [(letter.offset, letter.reason, letter.raw) for letter in dead] == [
        (1, "tombstone", b""),
        (2, "malformed", b""),
    ]
