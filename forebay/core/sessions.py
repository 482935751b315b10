"""Sessions in the events of many entities: the one function that stream, backfill, online reads and training share.

By entity and instant, the next event belongs to a session iff it is at most `gap` after the one before it and at most
`longest` after the session's first. In two steps:

    chains      maximal runs in which each event is at most `gap` after the one before: differences of sorted columns
    cuts        in a chain that is too long, every event knows which one would begin the next session if it began one;
                the sessions begin with the events that are reached from the chain's first. Reached are first those 1
                step away, then 2, 4, 8, …: log2 of the sessions of the longest chain, whatever the number of chains

Instants alone decide; of events with the same instant all belong to one session, so ids decide nothing, and within an
entity a session is named by when it starts. Pure, as all of the core.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.events import Column, Events
from forebay.core.tiles import group_starts

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
_SIGN = 2**63


@dataclass(frozen=True)
class Rule:
    """When a session ends: the longest distance within it, and the longest it can be."""

    gap_us: int
    longest_us: int


@dataclass(frozen=True)
class Sessions:
    """Sessions by entity and start: the entity of each, its first and last instant, and how many events it has.

    `root_us` is where the chain begins that it is cut from.
    """

    code: Ints
    start_us: Ints
    end_us: Ints
    events: Ints
    root_us: Ints

    def __len__(self) -> int:
        return len(self.code)

    def take(self, rows: npt.NDArray[np.bool_]) -> Sessions:
        """Some sessions, by a mask."""
        arrays = (self.code, self.start_us, self.end_us, self.events, self.root_us)
        return Sessions(*(array[rows] for array in arrays))


def sessionize(rule: Rule, code: Ints, ts: Ints) -> Sessions:
    """The sessions of events, given as the entity and the instant of each, in any order."""
    code, ts = _in_order(code, ts)
    if not len(code):
        return Sessions(code, ts, ts, ts, ts)
    chains = _chains(rule, code, ts)
    firsts = _with_cuts(rule, ts, chains)
    ends = np.append(firsts[1:], len(ts))
    roots = chains[np.searchsorted(chains, firsts, "right") - 1]
    return Sessions(code[firsts], ts[firsts], ts[ends - 1], ends - firsts, ts[roots])


def session_events(rule: Rule, sessions: Sessions, keys: pa.StringArray) -> Events:
    """Sessions as events: of the instants at which they are over, with all columns that a session has."""
    valid = np.ones(len(sessions), np.bool_)
    columns = {
        "ts": sessions.end_us + rule.gap_us,
        "session_start": sessions.start_us,
        "session_end": sessions.end_us,
        "duration": sessions.end_us - sessions.start_us,
        "events": sessions.events,
    }
    ids, none = session_ids(sessions.start_us), np.zeros(len(sessions), np.int64)
    described = {name: Column(values, valid) for name, values in columns.items()} | {"event_id": Column(ids, valid)}
    return Events(keys, sessions.code, columns["ts"], ids, none, described)


def session_ids(start_us: Ints) -> npt.NDArray[np.bytes_]:
    """The id of sessions: the instants at which they start, as 16 hexadecimal digits that sort as instants do."""
    big_endian = (start_us.astype(np.uint64) ^ np.uint64(_SIGN)).astype(">u8")
    return np.frombuffer(big_endian.tobytes().hex().encode(), "S16")


def uprooted(rule: Rule, code: Ints, ts: Ints, since_us: int, needed_us: int) -> Ints:
    """The entities of whose sessions with `ts ≥ needed` some may not be whole, where only events from `since` on are
    given: those whose first chain may have begun before, and reaches so far that it decides such a session.
    """
    code, ts = _in_order(code, ts)
    if not len(code):
        return code
    firsts = _chains(rule, code, ts)
    ends = ts[np.append(firsts[1:], len(ts)) - 1]
    torn = (ts[firsts] < since_us + rule.gap_us) & (ends >= needed_us - rule.gap_us)
    entities: Ints = code[firsts[torn]]
    return entities


def settled(rule: Rule, sessions: Sessions, horizon_us: int) -> npt.NDArray[np.bool_]:
    """Which sessions no event at or after an instant can touch any more."""
    return sessions.end_us + rule.gap_us < horizon_us


def _in_order(code: Ints, ts: Ints) -> tuple[Ints, Ints]:
    ascending = (code[1:] > code[:-1]) | ((code[1:] == code[:-1]) & (ts[1:] >= ts[:-1]))
    if ascending.all():
        return code, ts
    order = np.lexsort((ts, code))
    return code[order], ts[order]


def _chains(rule: Rule, code: Ints, ts: Ints) -> Rows:
    """Where chains begin."""
    apart = np.empty(len(ts), np.int64)
    apart[0] = 0
    apart[1:] = np.cumsum(np.diff(ts) > rule.gap_us)
    return group_starts(code, apart)


def _with_cuts(rule: Rule, ts: Ints, chains: Rows) -> Rows:
    """Where sessions begin: with each chain, and where a chain that is too long is cut."""
    ends = np.append(chains[1:], len(ts))
    long = ts[ends - 1] - ts[chains] > rule.longest_us
    if not long.any():
        return chains
    counts = (ends - chains)[long]
    firsts = np.cumsum(counts) - counts
    rows = np.arange(counts.sum()) + np.repeat(chains[long] - firsts, counts)
    begins = _reached(_next(rule, ts[rows], firsts, counts), firsts)
    return np.union1d(chains, rows[begins])


def _next(rule: Rule, ts: Ints, firsts: Rows, counts: Rows) -> Rows:
    """For each event the one that begins the next session, if it begins one; the number of events where none does.

    Chains are laid out one behind another on one axis, further apart than `longest`. A chain is shorter than its
    events times the gap, and longer than `longest`, so the axis fits 64 bits for 50 million events and the longest gap.
    """
    lengths = ts[firsts + counts - 1] - ts[firsts]
    ends = np.cumsum((lengths + rule.longest_us + 1).astype(np.uint64))
    shift = np.append(np.uint64(0), ends[:-1])
    axis = (ts - np.repeat(ts[firsts], counts)).astype(np.uint64) + np.repeat(shift, counts)
    found = np.searchsorted(axis, axis + np.uint64(rule.longest_us), "right")
    chain_ends = np.repeat(firsts + counts, counts)
    return np.where(found < chain_ends, found, len(ts))


def _reached(following: Rows, firsts: Rows) -> Rows:
    """The events that are reached from the first ones, going from each to its following one."""
    count = len(following)
    reached = np.zeros(count + 1, np.bool_)
    reached[firsts] = True
    jump = np.append(following, count)
    while (jump[firsts] < count).any():
        reached[jump[reached]] = True
        jump = jump[jump]
    reached[count] = False
    return np.flatnonzero(reached)
