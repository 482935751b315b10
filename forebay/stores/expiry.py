"""How long the online store keeps what it was given: garbage collection, which no answer may notice.

A view's tiles can go once no window holds them: the longest window (with its hop) after the write, or the ttl where
that is longer, counted from the wall clock. To that come the skew that an event's date may have, an hour for clocks
that disagree, and the age that the data had already: what is replayed years later is read years later, with `at`. A
lifetime never goes.

A batch row can go once it is forgotten (`forebay.core.rows.REMEMBERED_US` after its ttl): from then on it counts as
missing in every path. Without a ttl it never goes. Each publication gives every row its full time again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forebay.core.layout import Layout
from forebay.core.rows import REMEMBERED_US
from forebay.instants import HOUR_US, SECOND_US
from forebay.language.view import AnyView, BatchView

SLACK_US = HOUR_US
AGE_US_MAX = 1000 * 365 * 24 * HOUR_US
"""Older than this, age no longer adds: EXPIRE has a limit of its own."""


def keep_us(view: AnyView) -> int | None:
    """How long after a write its keys are kept; `None` for ever."""
    if isinstance(view, BatchView):
        return None if view.ttl_us is None else view.ttl_us + REMEMBERED_US + SLACK_US
    lookback_us = Layout.of(view).lookback_us
    if lookback_us is None:
        return None
    return max(lookback_us, view.ttl_us or 0) + view.source.max_skew_us + SLACK_US


def lifetimes_s(view: AnyView, newest_us: npt.NDArray[np.int64], now_us: int) -> list[int] | None:
    """Seconds for EXPIRE of values whose newest events are given, written now; `None` where the view never expires."""
    keep = keep_us(view)
    if keep is None:
        return None
    age_us = now_us - np.clip(newest_us, now_us - AGE_US_MAX, now_us)
    lifetimes: list[int] = ((age_us + keep) // SECOND_US + 1).tolist()
    return lifetimes
