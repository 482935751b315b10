"""Instants, durations and dates: the only time arithmetic there is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import RequestError
from forebay.instants import (
    DAY_US,
    EPOCH,
    HOUR_US,
    MINUTE_US,
    day_text,
    day_us,
    duration_text,
    duration_us,
    floor_us,
    instant_text,
    instant_us,
    moment,
)

INSTANTS = st.datetimes().map(lambda naive: (naive.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1ms", 1_000),
        ("250ms", 250_000),
        ("30s", 30_000_000),
        ("10m", 10 * MINUTE_US),
        ("24h", DAY_US),
        ("7d", 7 * DAY_US),
    ],
)
def test_a_duration_is_a_whole_number_and_a_unit(text: str, us: int) -> None:
    assert duration_us(text) == us
    assert duration_us(duration_text(us)) == us


@pytest.mark.parametrize(
    "text", ["", "0s", "-1h", "1.5h", "1 h", "1H", "h", "10", "1w", "01m", "1h30m", "1９m", 10, None]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match=r"is not a duration; write a whole number and a unit \(ms, s, m, h, d\)"):
        duration_us(text)  # type: ignore[arg-type]  # on purpose: a caller without types


@given(st.integers(1, 10**9))
def test_the_text_of_a_duration_is_the_shortest_and_says_the_same(ms: int) -> None:
    text = duration_text(ms * 1_000)
    assert duration_us(text) == ms * 1_000 if len(text.rstrip("dhms")) <= 9 else text.endswith("ms")


@given(INSTANTS)
def test_an_instant_comes_back_from_its_datetime_and_its_text(us: int) -> None:
    assert instant_us(moment(us)) == instant_us(instant_text(us)) == instant_us(us) == us
    assert instant_text(us).endswith("Z")


def test_an_offset_says_which_instant_is_meant() -> None:
    assert instant_us("2013-12-15T00:00:00-05:00") == instant_us("2013-12-15T05:00:00Z")
    assert instant_us(datetime(2013, 12, 15, 5, tzinfo=timezone(timedelta(hours=5)))) == instant_us("2013-12-15T00:00Z")


def test_no_microsecond_is_lost_far_away() -> None:
    assert instant_us("9999-12-31T23:59:59.999999Z") == 253_402_300_799_999_999
    assert instant_us("0001-01-01T00:00:00.000001+00:00") == -62_135_596_799_999_999


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (datetime(2013, 12, 15), "2013-12-15T00:00:00 has no time zone; say which instant is meant"),  # noqa: DTZ001 a naive datetime on purpose
        ("2013-12-15T00:00:00", "2013-12-15T00:00:00 has no time zone; say which instant is meant"),
        ("2013-12-15", "2013-12-15T00:00:00 has no time zone"),
        ("yesterday", "'yesterday' is not an instant; write ISO 8601 with an offset: '2013-12-15T00:00:00Z'"),
        (1.5, "1.5 is not an instant; expected an aware datetime or ISO 8601 text with an offset"),
        (True, "True is not an instant"),
        (10**18, "1000000000000000000 is not an instant; expected UTC microseconds within the years 1 to 9999"),
        (-(10**30), "-1000000000000000000000000000000 is not an instant; expected UTC microseconds"),
        (None, "None is not an instant"),
    ],
)
def test_what_names_no_instant_is_refused(value: object, sentence: str) -> None:
    with pytest.raises(RequestError) as caught:
        instant_us(value)  # type: ignore[arg-type]  # on purpose: a caller without types
    assert str(caught.value).startswith(sentence)


@given(INSTANTS, st.sampled_from([1, MINUTE_US, HOUR_US, DAY_US]))
def test_the_floor_is_the_largest_multiple_that_is_not_after(us: int, step_us: int) -> None:
    floor = floor_us(us, step_us)
    assert floor % step_us == 0
    assert floor <= us < floor + step_us


@given(st.dates())
def test_a_day_begins_at_its_midnight_in_utc(day: object) -> None:
    start_us = day_us(str(day))
    assert day_text(start_us) == day_text(start_us + DAY_US - 1) == str(day)
    assert start_us % DAY_US == 0
