"""Windows and hops: which events count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.errors import DefinitionError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, duration_text
from forebay.language.windows import HOPS_US, Window, check_hops, default_hop_us


def test_the_old_edge_moves_in_hops_and_the_new_edge_is_exact() -> None:
    #   minutes   0    1    2    3    4    5
    #             |----|----|----|----|----|
    #   T = 4:30       [==================)       floor(4:30 − 3 m, 1 m) = 1
    #   T = 4:59       [====================)     still 1
    #   T = 5:00            [================)    2
    window = Window(3 * MINUTE_US, MINUTE_US)
    assert window.start_us(270 * SECOND_US) == MINUTE_US
    assert window.start_us(5 * MINUTE_US - 1) == MINUTE_US
    assert window.start_us(5 * MINUTE_US) == 2 * MINUTE_US


def test_before_1970_the_old_edge_is_never_after_the_window() -> None:
    assert Window(MINUTE_US, MINUTE_US).start_us(-1) == -2 * MINUTE_US


def test_a_lifetime_has_no_old_edge() -> None:
    assert Window.of("v", None, "1h") == Window(None, DAY_US)
    assert Window(None, DAY_US).start_us(0) is None


@pytest.mark.parametrize(
    ("window", "hop"),
    [
        ("500ms", "1s"),
        ("1s", "1s"),
        ("59s", "1s"),
        ("1m", "1s"),
        ("5m", "5s"),
        ("10m", "10s"),
        ("30m", "30s"),
        ("1h", "1m"),
        ("3h", "1m"),
        ("5h", "5m"),
        ("24h", "15m"),
        ("7d", "1h"),
        ("30d", "6h"),
        ("60d", "1d"),
        ("3660d", "1d"),
    ],
)
def test_the_hop_is_the_largest_of_the_ladder_within_a_sixtieth(window: str, hop: str) -> None:
    assert duration_text(Window.of("v", window, None).hop_us) == hop


def test_every_hop_of_the_ladder_divides_the_next_and_a_day() -> None:
    check_hops("v", [Window(DAY_US, hop) for hop in HOPS_US])
    assert all(DAY_US % hop == 0 for hop in HOPS_US)


@given(st.integers(1, 3660 * DAY_US), st.integers(-(2**53), 2**53))
def test_a_window_is_as_long_as_declared_and_at_most_a_hop_longer(length_us: int, instant_us: int) -> None:
    window = Window(length_us, default_hop_us(length_us))
    start_us = window.start_us(instant_us)
    assert start_us is not None
    assert start_us % window.hop_us == 0
    assert length_us <= instant_us - start_us < length_us + window.hop_us


@given(st.sampled_from(["1h", "24h", "7d"]), st.sampled_from(["1s", "30s", "1m", "7m", "1h", "5h", "1d"]))
def test_a_declared_hop_divides_a_day_and_is_at_most_the_window(length: str, hop: str) -> None:
    if hop in ("7m", "5h") or (length, hop) == ("1h", "1d"):
        with pytest.raises(DefinitionError, match="must divide a day, be at least 1s and at most the window"):
            Window.of("v", length, hop)
    else:
        assert duration_text(Window.of("v", length, hop).hop_us) == duration_text(Window.of("w", hop, hop).hop_us)


@pytest.mark.parametrize("hop", ["500ms", "ten", "0s"])
def test_a_hop_is_a_duration_of_at_least_a_second(hop: str) -> None:
    with pytest.raises(DefinitionError):
        Window.of("v", "1h", hop)


def test_hops_of_one_view_divide_one_another() -> None:
    check_hops("v", [Window(HOUR_US, hop * MINUTE_US) for hop in (1, 5, 15, 30, 60)])
    with pytest.raises(DefinitionError, match=r"v: hops 10m and 15m do not divide one another"):
        check_hops("v", [Window(HOUR_US, hop * MINUTE_US) for hop in (15, 10, 5)])
