"""Duplicates are a function of a partition's order: however it is cut, and whatever was forgotten meanwhile."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forebay.ingest.dedupe import CAPACITY_MIN, INT64_MIN, Dedupe
from forebay.instants import HOUR_US, MINUTE_US

Event = tuple[int, str]
HORIZON_US = 10 * MINUTE_US


def naive(events: list[Event], horizon_us: int) -> list[bool]:
    """The definition, in words: an earlier offset held the same, and it is not older than newest − dedupe."""
    judged = []
    for n, (ts, name) in enumerate(events):
        newest = max((other for other, _ in events[:n]), default=None)
        judged.append((ts, name) in events[:n] and newest is not None and ts >= newest - horizon_us)
    return judged


def judge(dedupe: Dedupe, events: list[Event]) -> list[bool]:
    ts = np.array([ts for ts, _ in events], np.int64)
    return dedupe(ts, pa.array([name for _, name in events], pa.string())).tolist()


def test_the_timeline_of_the_docstring() -> None:
    """
    offset     0       1       2       3       4       5       6
    event    a 10:00 b 10:04 a 10:00 c 10:11 b 10:04 a 10:00 a 10:11
    dropped                    ×               ×     beyond  another ts
    """
    minutes = [(0, "a"), (4, "b"), (0, "a"), (11, "c"), (4, "b"), (0, "a"), (11, "a")]
    events = [(minute * MINUTE_US, name) for minute, name in minutes]
    expected = [False, False, True, False, True, False, False]
    assert judge(Dedupe(HORIZON_US), events) == naive(events, HORIZON_US) == expected
    one_by_one = Dedupe(HORIZON_US)
    assert [judge(one_by_one, [event])[0] for event in events] == expected


EVENTS = st.lists(
    st.tuples(
        st.one_of(
            st.integers(0, 30).map(lambda minute: minute * MINUTE_US),
            st.sampled_from([INT64_MIN, INT64_MIN + 1, -1, 0, 1, HORIZON_US, HORIZON_US + 1, 2**62]),
        ),
        st.sampled_from(["", "a", "b", "ü"]),
    ),
    max_size=30,
)


@given(EVENTS, st.lists(st.integers(0, 30)), st.sampled_from([1, 999, MINUTE_US, HORIZON_US, 24 * HOUR_US]))
def test_any_cut_of_any_log_is_judged_by_the_definition(events: list[Event], cuts: list[int], horizon_us: int) -> None:
    dedupe, found = Dedupe(horizon_us), list[bool]()
    edges = sorted({0, len(events), *(cut for cut in cuts if cut < len(events))})
    for low, high in itertools.pairwise(edges):
        found += judge(dedupe, events[low:high])
    assert found == naive(events, horizon_us)


@given(EVENTS, st.integers(0, 30))
def test_what_was_kept_within_the_horizon_is_all_that_a_successor_needs(events: list[Event], at: int) -> None:
    head, tail = events[:at], events[at:]
    newest = max((ts for ts, _ in head), default=INT64_MIN)
    kept = [event for event, dropped in zip(head, naive(head, HORIZON_US), strict=True) if not dropped]
    recent = [event for event in kept if event[0] >= newest - HORIZON_US]
    random.Random(at).shuffle(recent)
    again = Dedupe(HORIZON_US, newest)
    judge(again, recent)
    assert judge(again, tail) == naive(events, HORIZON_US)[len(head) :]


@pytest.mark.parametrize("batch", [1000, 4096])
def test_memory_is_bounded_by_the_horizon(batch: int) -> None:
    dedupe, rate_per_minute = Dedupe(HORIZON_US), 2000
    count = 60 * rate_per_minute
    ts = np.arange(count, dtype=np.int64) * MINUTE_US // rate_per_minute
    names = pa.array([f"event-{n}" for n in range(count)])
    for low in range(0, count, batch):
        assert not dedupe(ts[low : low + batch], names[low : low + batch]).any()
    within = 10 * rate_per_minute
    assert within <= dedupe.remembered <= within * 1.2
    assert dedupe.nbytes <= 40 * within
    again = dedupe(ts[-within:], names[-within:])
    assert again.all()


def test_a_sparse_stream_costs_a_few_small_tables() -> None:
    dedupe = Dedupe(HORIZON_US)
    assert not judge(dedupe, [(n * HOUR_US, "same") for n in range(500)])[1:].count(True)
    assert dedupe.remembered == 1
    assert dedupe.nbytes == 12 * CAPACITY_MIN
