"""Which events are in a window: the law.

For a window W with hop h at an instant T, an event counts iff `floor(T - W, h) <= ts < T`. The new edge is exact and
excludes T, so an event at the scored instant cannot leak; the old edge moves in steps of h, so a window is W to W + h
long:

    events      . .  .   . ..  .    .   .
    hops     |----|----|----|----|----|----|
    window        [=====================)
                  floor(T - W, h)       T

A lifetime window has no old edge. Hops divide a day, so that tiles never straddle a partition.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from forebay.errors import DefinitionError
from forebay.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, duration_text, floor_us
from forebay.language.durations import declared_us, required_us

HOPS_US = (
    SECOND_US,
    5 * SECOND_US,
    10 * SECOND_US,
    30 * SECOND_US,
    MINUTE_US,
    5 * MINUTE_US,
    15 * MINUTE_US,
    HOUR_US,
    6 * HOUR_US,
    DAY_US,
)
HOPS_PER_WINDOW = 60
"""The old edge moves by at most a sixtieth of the window, unless a hop is declared."""
WINDOW_MAX_US = 3660 * DAY_US
"""Ten years; longer is a lifetime."""
HOP_MIN_US = SECOND_US


@dataclass(frozen=True, order=True)
class Window:
    """A window and the grain of its old edge, in microseconds; `length_us=None` is the lifetime."""

    length_us: int | None
    hop_us: int

    @classmethod
    def of(cls, where: str, length: str | None, hop: str | None) -> Window:
        """The window of declared texts. Raises `DefinitionError`."""
        length_us = declared_us(f"{where}: window", length)
        if length_us is None:
            return cls(None, DAY_US)
        if length_us > WINDOW_MAX_US:
            raise DefinitionError(f"{where}: window {length!r} is longer than ten years; write None for the lifetime")
        if hop is None:
            return cls(length_us, default_hop_us(length_us))
        hop_us = required_us(f"{where}: hop", hop)
        if DAY_US % hop_us or not HOP_MIN_US <= hop_us <= length_us:
            raise DefinitionError(
                f"{where}: hop {hop!r} of window {length!r} must divide a day, be at least 1s and at most the window"
            )
        return cls(length_us, hop_us)

    def start_us(self, instant_us: int) -> int | None:
        """The old edge at an instant: the first microsecond that counts; `None` for the lifetime."""
        return None if self.length_us is None else floor_us(instant_us - self.length_us, self.hop_us)


def default_hop_us(length_us: int) -> int:
    """The largest standard hop of at most a sixtieth of the window, and 1 s below a minute.

    >>> duration_text(default_hop_us(24 * HOUR_US))
    '15m'
    """
    return max((hop for hop in HOPS_US if hop * HOPS_PER_WINDOW <= length_us), default=SECOND_US)


def check_hops(where: str, windows: Sequence[Window]) -> None:
    """Raise `DefinitionError` unless the hops of one view divide one another."""
    hops = sorted({window.hop_us for window in windows})
    for fine, coarse in pairwise(hops):
        if coarse % fine:
            raise DefinitionError(
                f"{where}: hops {duration_text(fine)} and {duration_text(coarse)} do not divide one another; "
                "declare hop= so that they do"
            )
