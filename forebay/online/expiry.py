"""How long the online store keeps what it was given: garbage collection, which no answer may notice.

A view's tiles can go once no window holds them: the longest window (with its hop) after the write, or the ttl where
that is longer, counted from the wall clock. To that come the skew that an event's date may have, an hour for clocks
that disagree, and the age that the data had already: what is replayed years later is read years later, with `at`. A
lifetime never goes.

A batch row can go once it is forgotten (`forebay.core.rows.REMEMBERED_US` after its ttl): from then on it counts as
missing in every path. Without a ttl it never goes. Each publication gives every row its full time again.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from forebay.core.layout import Layout
from forebay.core.rows import REMEMBERED_US
from forebay.instants import HOUR_US, SECOND_US
from forebay.language.view import AnyView, BatchView

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]

SLACK_US = HOUR_US
RENEW_SHARE, RENEW_S, RENEW_S_MAX = 16, 15 * 60, 24 * 3600
"""A key is kept longer than it must be, so that it isn't told again with each write within that time: by a share of its
lifetime, at least and at most so many seconds.
"""
PLACES = 1 << 21
"""Keys whose expiry a writer remembers, each in a place of its own: a power of two."""
BYTES = PLACES * 12
"""What that takes at most: 25 MB, of which only what is used is memory."""
UNTIL_S_MAX = 2**32 - 1
"""The year 2106: what is kept longer is told each time."""
_ODD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 by the golden ratio: what multiplies an entity's hash, so that it is none of a view's."""
AGE_US_MAX = 1000 * 365 * 24 * HOUR_US
"""Older than this, age no longer adds: EXPIRE has a limit of its own."""


@functools.lru_cache(maxsize=1024)
def keep_us(view: AnyView) -> int | None:
    """How long after a write its keys are kept; `None` for ever."""
    if isinstance(view, BatchView):
        return None if view.ttl_us is None else view.ttl_us + REMEMBERED_US + SLACK_US
    lookback_us = Layout.of(view).lookback_us
    if lookback_us is None:
        return None
    over_us = 0 if view.sessions is None else view.sessions.gap_us
    return max(lookback_us, view.ttl_us or 0) + over_us + view.source.max_skew_us + SLACK_US


def lifetimes_s(view: AnyView, newest_us: Ints, now_us: int) -> Ints | None:
    """Seconds for EXPIRE of values whose newest events are given, written now; `None` where the view never expires."""
    keep = keep_us(view)
    if keep is None:
        return None
    age_us = now_us - np.minimum(np.maximum(newest_us, now_us - AGE_US_MAX), now_us)
    lifetimes: Ints = (age_us + keep) // SECOND_US + 1
    return lifetimes


class Expiries:
    """Until when keys are kept at least, as far as their one writer remembers.

    A table with one place for each of many keys: a key that takes the place of another makes that one be told again,
    which costs a command and nothing else. What it takes does not grow with keys (`BYTES`).
    """

    def __init__(self) -> None:
        self._keys, self._until_s = np.zeros(PLACES, np.uint64), np.zeros(PLACES, np.uint32)

    def due(self, keys: Words, lifetimes: Ints | None, now_us: int) -> tuple[Rows, Ints]:
        """Which keys (by a hash of each) would not be kept for their lifetime, and for how many seconds to keep these;
        they count as told.
        """
        if lifetimes is None:
            return np.empty(0, np.intp), np.empty(0, np.int64)
        now_s, place = now_us // SECOND_US, _places(keys)
        until_s = np.where(self._keys[place] == keys, self._until_s[place], 0).astype(np.int64)
        rows = np.flatnonzero(until_s < now_s + lifetimes)
        kept = lifetimes[rows] + np.clip(lifetimes[rows] // RENEW_SHARE, RENEW_S, RENEW_S_MAX)
        self._keys[place[rows]] = keys[rows]
        # of two keys with one place the last is remembered, in both columns: NumPy assigns in order
        self._until_s[place[rows]] = np.minimum(now_s + kept, UNTIL_S_MAX)
        return rows, kept

    def forget(self, keys: Words | None = None) -> None:
        """Some keys were deleted; or nothing is known any more (`None`)."""
        if keys is None:
            self._until_s[:] = 0
            return
        place = _places(keys)
        self._until_s[place[self._keys[place] == keys]] = 0


def key_hashes(view: str, entities: pa.StringArray) -> Words:
    """A hash of each entity of a view: Python's own of both texts, of 64 bits and with another secret in each process.

    Not the one like the other: an entity may be called as a view is, and the view as that entity.
    """
    hashes = np.fromiter(map(hash, entities.to_pylist()), np.int64, len(entities)).view(np.uint64)
    return hashes * _ODD + np.uint64(hash((view,)) & 2**64 - 1)


def _places(keys: Words) -> Rows:
    return (keys & np.uint64(PLACES - 1)).astype(np.intp)
