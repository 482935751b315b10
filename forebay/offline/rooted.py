"""Reading back to where sessions begin.

    events       ·  • •  •••  ••|•• •    •• |           |   sessions that are over in [start, end) are whole iff the
    since                  since₁ since₀    start       end  first chain of each entity that reaches them has its root
                   ◀─ further ─◀─                            in what was read

A session begins at most `longest + gap` before it is over, but where it begins depends on the chain of events that it
is cut from, which has no bound. So what is certain to be needed is read first; then, for the entities whose first chain
may have begun before that, twice as far back, until every root is there or the source's history begins. What lies
before the instant that was reached decides nothing.

Lives here: how far to read. What is read, and for whom, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from forebay.core.events import Events, united
from forebay.core.sessions import Rule, uprooted
from forebay.instants import DAY_US, floor_us

Read = Callable[[int, int, Sequence[str] | None], Events]
"""Reads the events in `[start, end)`, of some entities or of all."""


def read_rooted(rule: Rule, read: Read, history_us: int, start_us: int, end_us: int) -> tuple[Events, int]:
    """The events of which all sessions that are over in `[start, end)` are made, and a midnight that is as far back as
    was read.
    """
    step_us = rule.gap_us + rule.longest_us
    since_us = max(floor_us(start_us - step_us, DAY_US), floor_us(history_us, DAY_US))
    events = read(since_us, end_us, None)
    while since_us > history_us and len(torn := uprooted(rule, events.code, events.ts, since_us, start_us)):
        step_us *= 2
        further_us = max(floor_us(since_us - step_us, DAY_US), floor_us(history_us, DAY_US))
        older = read(further_us, since_us, events.keys.take(pa.array(np.unique(torn))).to_pylist())
        events, since_us = together([events, older]), further_us
    return events, since_us


def together(parts: Sequence[Events]) -> Events:
    """Events of several readings under one numbering of their entities; the first one's numbers stay."""
    keys, numbers = united([part.keys for part in parts])
    code = np.concatenate([known[part.code] for known, part in zip(numbers, parts, strict=True)])
    ts, ids, offset = (np.concatenate([getattr(part, name) for part in parts]) for name in ("ts", "ids", "offset"))
    return Events(keys, code, ts, ids, offset, {})
