"""The specification of sessions: a loop over the sorted instants of an entity. It imports nothing from Forebay."""

import functools


@functools.cache
def sessions_of(instants, gap_us, longest_us):
    """(start, end, events) of each session in the instants of one entity, given as a tuple."""
    sessions = []
    for ts in sorted(instants):
        if sessions and ts - sessions[-1][1] <= gap_us and ts - sessions[-1][0] <= longest_us:
            start, _, events = sessions[-1]
            sessions[-1] = (start, ts, events + 1)
        else:
            sessions.append((ts, ts, 1))
    return sessions


def session_triples(events, gap_us, longest_us, value):
    """Sessions as the events of `tests.oracle`: (entity, ts, id, value of a session) from (entity, ts) pairs."""
    triples = []
    for entity in {entity for entity, _ in events}:
        instants = tuple(sorted(ts for e, ts in events if e == entity))
        for session in sessions_of(instants, gap_us, longest_us):
            triples.append((entity, session[1] + gap_us, f"{session[0]:020}", value(*session)))
    return triples
