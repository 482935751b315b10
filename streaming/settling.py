"""Up to which instant sessions of the online store are settled: what may leave a view's pending events.

    archive        ●───────●──────●────┤ offsets, watermark       read anew at most once a minute
    lane           ●───────●──────●────────┤                      has applied all of it

Where a lane has applied everything that the archive holds, the events before the archive's watermark less the lateness
are all there: what comes later and is older is late, or lies before a published cut, and marked for repair. Lives here:
asking the archive, seldom, and the comparison. Invariant: rather too early an instant than too late a one: events that
stay longer than they must cost eight bytes each and nothing else.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field

from forebay.core.codec import NO_CUT
from forebay.errors import StoreUnavailableError
from forebay.language.source import EventSource
from forebay.offline.archive import PartitionPosition, least_watermark_us
from streaming.aside import ask_aside

Positions = Mapping[str, PartitionPosition]
ASK_EVERY_S = 60.0
"""Reading a table's positions takes some 50 ms of a processor."""


@dataclass
class _Known:
    """What was last heard of a source, and what it was asked again, at an instant."""

    asked_s: float
    asked: Future[Positions] | None = None
    positions: Positions = field(default_factory=dict)


class Settling:
    """Answers one lane; belongs to its thread, which does not wait: what was heard a minute ago does, too."""

    def __init__(
        self,
        archived: Callable[[EventSource], Positions],
        *,
        clock_s: Callable[[], float] = time.monotonic,
        ask: Callable[[Callable[[], Positions]], Future[Positions]] = ask_aside,
    ) -> None:
        self._archived, self._clock_s, self._ask = archived, clock_s, ask
        self._known: dict[str, _Known] = {}

    def __call__(self, source: EventSource, next_offset: Callable[[str], int]) -> int:
        """The archive's watermark less the lateness, if all that it holds is applied; NO_CUT otherwise."""
        positions = self._positions(source)
        watermark_us = least_watermark_us(positions.values())
        if watermark_us is None or any(next_offset(name) < one.next_offset for name, one in positions.items()):
            return NO_CUT
        return watermark_us - source.lateness_us

    def _positions(self, source: EventSource) -> Positions:
        now_s = self._clock_s()
        known = self._known.setdefault(source.name, _Known(now_s - ASK_EVERY_S))
        if known.asked is None and now_s - known.asked_s >= ASK_EVERY_S:
            known.asked_s, known.asked = now_s, self._ask(lambda: self._archived(source))
        if known.asked is not None and known.asked.done():
            asked, known.asked = known.asked, None
            with contextlib.suppress(StoreUnavailableError):  # whoever writes to it says so
                known.positions = asked.result()
        return known.positions
