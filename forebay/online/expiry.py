"""How long the online store keeps what it was given: garbage collection, which no answer may notice.

A view's tiles can go once no window holds them: the longest window (with its hop) after the write, or the ttl where
that is longer, counted from the wall clock. To that come the skew that an event's date may have, an hour for clocks
that disagree, and the age that the data had already: what is replayed years later is read years later, with `at`. A
lifetime never goes.

A batch row can go once it is forgotten (`forebay.core.rows.REMEMBERED_US` after its ttl): from then on it counts as
missing in every path. Without a ttl it never goes. Each publication gives every row its full time again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from forebay.core.layout import Layout
from forebay.core.rows import REMEMBERED_US
from forebay.instants import HOUR_US, SECOND_US
from forebay.language.view import AnyView, BatchView

SLACK_US = HOUR_US
RENEW_S = 15 * 60
"""A key is kept so much longer than it must be, so that it isn't told again with each write within that time."""
REMEMBERED_MAX = 200_000
"""Keys whose expiry a writer remembers: some 40 MB."""
AGE_US_MAX = 1000 * 365 * 24 * HOUR_US
"""Older than this, age no longer adds: EXPIRE has a limit of its own."""


def keep_us(view: AnyView) -> int | None:
    """How long after a write its keys are kept; `None` for ever."""
    if isinstance(view, BatchView):
        return None if view.ttl_us is None else view.ttl_us + REMEMBERED_US + SLACK_US
    lookback_us = Layout.of(view).lookback_us
    if lookback_us is None:
        return None
    over_us = 0 if view.sessions is None else view.sessions.gap_us
    return max(lookback_us, view.ttl_us or 0) + over_us + view.source.max_skew_us + SLACK_US


def lifetimes_s(view: AnyView, newest_us: npt.NDArray[np.int64], now_us: int) -> list[int] | None:
    """Seconds for EXPIRE of values whose newest events are given, written now; `None` where the view never expires."""
    keep = keep_us(view)
    if keep is None:
        return None
    age_us = now_us - np.clip(newest_us, now_us - AGE_US_MAX, now_us)
    lifetimes: list[int] = ((age_us + keep) // SECOND_US + 1).tolist()
    return lifetimes


class Expiries:
    """Until when keys are kept at least, as far as their one writer remembers.

    Beyond `REMEMBERED_MAX` keys it forgets all: that costs commands and nothing else.
    """

    def __init__(self) -> None:
        self._until_s: dict[str, int] = {}

    def due(self, names: Sequence[str], lifetimes: Sequence[int] | None, now_us: int) -> list[tuple[str, int]]:
        """The keys that would not be kept for their lifetime, and for how long to keep them; they count as told."""
        if lifetimes is None:
            return []
        known, now_s, due = self._until_s, now_us // SECOND_US, []
        for name, lifetime in zip(names, lifetimes, strict=True):
            if known.get(name, 0) < now_s + lifetime:
                due.append((name, lifetime + RENEW_S))
        if len(known) + len(due) > REMEMBERED_MAX:
            known.clear()
        known.update((name, now_s + kept) for name, kept in due)
        return due

    def forget(self, names: Iterable[str] | None = None) -> None:
        """Some keys were deleted; or nothing is known any more (`None`)."""
        if names is None:
            self._until_s.clear()
            return
        for name in names:
            self._until_s.pop(name, None)
