"""The sessions of the core are those of a loop over sorted events, whatever their order and however much is read."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from forebay.core.events import Events
from forebay.core.sessions import Rule, Sessions, session_ids, sessionize, settled
from forebay.instants import DAY_US, MINUTE_US
from forebay.offline.rooted import read_rooted
from tests.laws.sessionizer import sessions_of

GAP, LONGEST = 30 * MINUTE_US, 90 * MINUTE_US
RULE = Rule(GAP, LONGEST)
HISTORY = 100 * DAY_US
STEPS = st.sampled_from([0, 1, MINUTE_US, GAP - 1, GAP, GAP + 1, LONGEST, LONGEST + 1, DAY_US])
WALKS = st.lists(st.tuples(st.sampled_from([0, 1, 2]), STEPS), max_size=40)
"""Each event of an entity comes so long after the one before it: chains and their ends, to the microsecond."""


def walked(walks: list[tuple[int, int]], origin: int = 0) -> list[tuple[int, int]]:
    """(entity, instant) of events."""
    at = {0: origin, 1: origin + 7, 2: origin - 12}
    events = []
    for entity, step in walks:
        at[entity] += step
        events.append((entity, at[entity]))
    return events


def expected(events: list[tuple[int, int]]) -> list[tuple[int, int, int, int]]:
    of = {e: tuple(sorted(ts for other, ts in events if other == e)) for e in sorted({e for e, _ in events})}
    return [(e, *session) for e, instants in of.items() for session in sessions_of(instants, GAP, LONGEST)]


def rows(sessions: Sessions) -> list[tuple[int, ...]]:
    columns = (sessions.code, sessions.start_us, sessions.end_us, sessions.events)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def made(events: list[tuple[int, int]]) -> Sessions:
    code, ts = (np.array([event[i] for event in events], np.int64) for i in (0, 1))
    return sessionize(RULE, code, ts)


@given(WALKS, st.randoms(use_true_random=False))
@example([(0, MINUTE_US)] * 200, random.Random(0))
def test_sessions_are_those_of_a_loop_in_any_order(walks: list[tuple[int, int]], chance: random.Random) -> None:
    events = walked(walks)
    chance.shuffle(events)
    assert rows(made(events)) == expected(events)


def test_a_chain_of_many_sessions_is_cut_where_a_loop_cuts_it() -> None:
    #  one event a minute for a week: 12 entities whose chains are shifted, and one that is always within the gap
    events = [(e, e * 13 + n * MINUTE_US) for e in range(12) for n in range(7 * 24 * 60 - e)]
    assert rows(made(events)) == expected(events)
    assert len(made(events)) > 1200


@given(WALKS, st.integers(0, 40))
def test_what_came_before_an_instant_decides_the_sessions_that_are_over_by_then(walks: list, cut: int) -> None:
    events = walked(walks)
    instants = sorted(ts for _, ts in events) or [0]
    at = instants[cut % len(instants)] + 1
    over = [row for row in expected(events) if row[2] + GAP < at]
    known = [row for row in expected([event for event in events if event[1] < at]) if row[2] + GAP < at]
    assert known == over


@given(WALKS, WALKS, st.integers(0, 40))
def test_settled_sessions_leave_the_rest_as_it_is(walks: list, later: list, cut: int) -> None:
    events = walked(walks)
    instants = sorted(ts for _, ts in events) or [0]
    horizon = instants[cut % len(instants)]
    sessions = made(events)
    gone = settled(RULE, sessions, horizon)
    left = {row[:2]: row for row in rows(sessions.take(~gone))}
    kept = [
        (e, ts)
        for e, ts in events
        if not any(e == row[0] and row[1] <= ts <= row[2] for row in rows(sessions.take(gone)))
    ]
    more = [event for event in walked(later, horizon + 12) if event[1] >= horizon]
    assert {row[:2]: row for row in rows(made(kept))} == left
    assert sorted(rows(sessions.take(gone)) + rows(made(kept + more))) == expected(events + more)


@given(WALKS, st.integers(0, 12 * 60), st.integers(1, 600))
def test_read_back_as_far_as_it_takes_every_session_is_whole(walks: list, start: int, length: int) -> None:
    events = walked(walks, HISTORY + 2 * DAY_US)
    start_us = HISTORY + 2 * DAY_US + start * 10 * MINUTE_US
    end_us = start_us + length * MINUTE_US
    keys = ["a", "b", "c"]

    def read(first_us: int, last_us: int, names: list[str] | None) -> Events:
        mine = [(e, ts) for e, ts in events if first_us <= ts < last_us and (names is None or keys[e] in names)]
        code, ts = (np.array([event[i] for event in mine], np.int64) for i in (0, 1))
        return Events(pa.array(keys), code, ts, np.empty(len(mine), "S1"), ts, {})

    found, since_us = read_rooted(RULE, read, HISTORY, start_us, end_us)
    assert HISTORY <= since_us <= start_us
    sessions = [row for row in rows(sessionize(RULE, found.code, found.ts)) if start_us <= row[2] + GAP < end_us]
    assert sessions == [row for row in expected(events) if start_us <= row[2] + GAP < end_us]


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1))
def test_ids_sort_as_the_starts_of_sessions_do(starts: list[int]) -> None:
    ids = session_ids(np.array(starts, np.int64)).tolist()
    assert [start for _, start in sorted(zip(ids, starts, strict=True))] == sorted(starts)
    assert len(set(ids)) == len(set(starts))
    assert all(len(name) == 16 for name in ids)
