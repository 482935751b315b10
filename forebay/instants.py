"""Instants and intervals: the only time arithmetic there is.

An instant is an integer count of UTC microseconds since 1970; at the API it is an aware `datetime` (or an ISO 8601 text
with an offset). An interval is half-open, `[start, end)`. A duration is declared as text such as `"10m"` and computed
with as integer microseconds. Nothing here asks for the time: clocks are passed in.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, date, datetime, timedelta

from forebay.errors import RequestError

MILLISECOND_US = 1_000
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST_US, LATEST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Years 1 to 9999, which every store and calendar can write."""
_UNITS_US = {"ms": MILLISECOND_US, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US}
_DURATION = re.compile(r"([1-9][0-9]{0,8})(ms|s|m|h|d)")


def duration_us(text: str) -> int:
    """Microseconds of a duration such as `"250ms"`, `"30s"`, `"10m"`, `"24h"` or `"7d"`.

    >>> duration_us("10m")
    600000000
    """
    us = _duration_us(text) if isinstance(text, str) else None
    if us is None:
        raise ValueError(
            f"{text!r} is not a duration; write a whole number and a unit (ms, s, m, h, d), such as '10m' or '7d'"
        )
    return us


@functools.lru_cache(maxsize=1024)
def _duration_us(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS_US[match[2]]


def duration_text(us: int) -> str:
    """The shortest text of a duration.

    >>> duration_text(3_600_000_000)
    '1h'
    """
    for unit in ("d", "h", "m", "s", "ms"):
        if us % _UNITS_US[unit] == 0:
            return f"{us // _UNITS_US[unit]}{unit}"
    return f"{us / MILLISECOND_US}ms"


def instant_us(moment: datetime | str | int) -> int:
    """UTC microseconds of an aware datetime, an ISO 8601 text with an offset, or an instant that is one already.

    Raises `RequestError` for a naive datetime: which instant it means depends on where the code runs.

    >>> instant_us("2013-12-15T00:00:00Z")
    1387065600000000
    """
    if isinstance(moment, bool) or not isinstance(moment, int | str | datetime):
        raise RequestError(f"{moment!r} is not an instant; expected an aware datetime or ISO 8601 text with an offset")
    if isinstance(moment, int):
        if not EARLIEST_US <= moment <= LATEST_US:
            raise RequestError(f"{moment} is not an instant; expected UTC microseconds within the years 1 to 9999")
        return moment
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise RequestError(
                f"{moment!r} is not an instant; write ISO 8601 with an offset: '2013-12-15T00:00:00Z'"
            ) from None
    if moment.tzinfo is None:
        raise RequestError(
            f"{moment.isoformat()} has no time zone; say which instant is meant, e.g. with tzinfo=UTC or a 'Z'"
        )
    return (moment - EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """The aware UTC datetime of an instant."""
    return EPOCH + timedelta(microseconds=us)


def instant_text(us: int) -> str:
    """ISO 8601 text of an instant, in UTC with a `Z`."""
    return moment(us).isoformat().replace("+00:00", "Z")


def floor_us(us: int, step_us: int) -> int:
    """The largest multiple of `step_us` that is not after `us` (also before 1970)."""
    return us - us % step_us


def day_us(text: str) -> int:
    """The instant at which a UTC date `YYYY-MM-DD` begins."""
    return instant_us(datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC))


def day_text(us: int) -> str:
    """The UTC date `YYYY-MM-DD` in which an instant lies."""
    return moment(us).date().isoformat()
